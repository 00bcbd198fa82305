//! A client of the soak: it pushes, pulls, mounts, moves, deletes and goes away at random, and compares every answer
//! with the model.
//!
//! Owns what is asked for and what an answer may be. The bookkeeping is in `model`, the server's lives in `server`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use crate::bench::drive::block_on;
use crate::bench::http::Conn;
use crate::bench::payload::digest_of;
use crate::bench::registry::{OCI_MANIFEST, closing, local, request, with_length};

use super::Shared;
use super::content::{Content, Image, OCI_INDEX, Random};
use super::model::{Moment, Outcome, SECOND, Ticket};

const OCTETS: &str = "application/octet-stream";
/// Tries of a push before it is given up: a promise that ran out, a blob collected at that moment.
const TRIES: usize = 5;
/// One blob upload in so many is broken off by its client.
const HANG_UPS: usize = 30;
/// Looks at something that is missing before that is called a loss.
const LOOKS: usize = 4;

/// Why a client stops in the middle of something.
pub(super) enum Stop {
    /// No answer: the server was killed, or this client went away.
    Lost,
    /// Something else is to be done first; not wrong.
    Again,
}

type Step<T> = Result<T, Stop>;

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    location: Option<String>,
    digest: Option<String>,
    /// When the request was sent and when the answer was there.
    pub(super) from: Moment,
    pub(super) to: Moment,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(400)]).trim().to_owned()
    }

    fn says(&self, code: &str) -> bool {
        self.status >= 400 && self.text().contains(code)
    }
}

/// One client.
pub(super) struct Client<'a> {
    shared: &'a Shared,
    name: String,
    /// The repository that only it writes to.
    own: String,
    random: Random,
    conn: Conn,
    generation: u64,
}

impl<'a> Client<'a> {
    pub(super) fn new(shared: &'a Shared, number: usize) -> Self {
        Self {
            shared,
            name: format!("c{number}"),
            own: shared.own(number),
            random: Random::new(shared.seed ^ ((number as u64 + 1) << 40)),
            conn: Conn::blocking(shared.address),
            generation: 0,
        }
    }

    /// Acts until the run is over.
    pub(super) fn run(&mut self) {
        while !self.shared.is_over() {
            if self.ready() {
                // Lost and started anew alike: the model knows.
                let _ = self.act();
            }
            sleep(Duration::from_millis(2 + self.random.below(45) as u64));
        }
    }

    /// Waits for a server that runs, on a new connection if it is another process than last time.
    fn ready(&mut self) -> bool {
        let generation = self.shared.generation();
        if generation == 0 || generation.is_multiple_of(2) {
            return false;
        }
        if generation != self.generation {
            self.conn = Conn::blocking(self.shared.address);
            self.generation = generation;
        }
        true
    }

    /// Takes the server that runs now as the one to talk to.
    pub(super) fn adopt_generation(&mut self) {
        self.generation = self.shared.generation();
    }

    fn act(&mut self) -> Step<()> {
        match self.random.below(100) {
            0..30 => self.push_new(),
            30..54 => self.pull_some(),
            54..61 => self.move_tag(),
            61..67 => self.delete_tag(),
            67..74 => self.delete_manifest(),
            74..80 => self.push_index(),
            80..86 => self.push_referrer(),
            86..93 => self.push_deleted(),
            93..95 => self.hang_up(),
            95..97 => self.delete_blob(),
            _ => self.look_at_lists(),
        }
    }

    // --- what a client does ---

    fn push_new(&mut self) -> Step<()> {
        let blobs = self.shared.pool.blobs(&mut self.random);
        let image = Arc::new(Image::of(blobs, None, self.random.next()));
        let repository = self.repository();
        let tag = if self.random.one_in(6) { None } else { Some(self.tag()) };
        self.push(&repository, &image, tag.as_deref())
    }

    fn push_index(&mut self) -> Step<()> {
        let repository = self.repository();
        let mut children = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            match self.some_image(&repository).filter(|image| image.children.is_empty() && self.random.one_in(2)) {
                Some(known) => children.push(known),
                None => {
                    let blobs = self.shared.pool.blobs(&mut self.random);
                    children.push(Arc::new(Image::of(blobs, None, self.random.next())));
                }
            }
        }
        let index = Arc::new(Image::index(children, self.random.next()));
        let tag = self.tag();
        self.push(&repository, &index, Some(&tag))
    }

    fn push_referrer(&mut self) -> Step<()> {
        let repository = self.repository();
        let Some(subject) = self.some_image(&repository) else {
            return Ok(());
        };
        let size = 20 + self.random.below(3_000);
        let blobs = [self.shared.empty.clone(), Arc::new(Content::new(self.random.next(), size))].into();
        let referrer = Arc::new(Image::of(blobs, Some(&subject), self.random.next()));
        self.push(&repository, &referrer, None)
    }

    /// Pushes an image again that was deleted some time ago, where its blobs may just be on their way out.
    fn push_deleted(&mut self) -> Step<()> {
        let Some((repository, image)) = self.shared.exhume(&mut self.random) else {
            return Ok(());
        };
        let repository = if self.random.one_in(3) { self.repository() } else { repository };
        let repository = if repository.contains("/own-") { self.own.clone() } else { repository };
        let tag = self.tag();
        self.shared.count("pushes of deleted images");
        self.push(&repository, &image, Some(&tag))
    }

    fn move_tag(&mut self) -> Step<()> {
        let repository = self.repository();
        let (Some(image), tag) = (self.some_image(&repository), self.tag()) else {
            return Ok(());
        };
        self.shared.count("tag moves");
        self.push(&repository, &image, Some(&tag))
    }

    fn delete_tag(&mut self) -> Step<()> {
        let (repository, tag) = (self.repository(), self.tag());
        let ticket = self.shared.model().begin_tag_deletion(self.shared.now(), &repository, &tag);
        let before = self.shared.now();
        let path = format!("/v2/{repository}/manifests/{tag}");
        let reply = self.change(&ticket, &request("DELETE", &path, ""), b"", 202)?;
        match reply.status {
            202 => self.shared.count("tags deleted"),
            404 => {
                let model = self.shared.model();
                let may = model.allows_tag(&repository, &tag, None, before, reply.to);
                drop(model);
                if !may {
                    self.wrong(&format!("{repository}:{tag}"), "an acknowledged tag is unknown to its deletion");
                }
            }
            _ => self.unexpected("DELETE", &path, &reply),
        }
        Ok(())
    }

    fn delete_manifest(&mut self) -> Step<()> {
        let repository = self.repository();
        let Some(image) = self.some_image(&repository) else {
            return Ok(());
        };
        let digest = &image.digest;
        let before = self.shared.now();
        let ticket = self.shared.model().begin_manifest_deletion(before, &repository, digest);
        let path = format!("/v2/{repository}/manifests/{digest}");
        let reply = self.change(&ticket, &request("DELETE", &path, ""), b"", 202)?;
        match reply.status {
            202 => {
                self.shared.count("manifests deleted");
                self.shared.bury(&repository, &image);
            }
            404 => {
                // Refused is settled: what must be there now had to be there then.
                let must = self.shared.model().must_have(&repository, digest, before, reply.to);
                if must {
                    self.wrong(digest, "an acknowledged manifest is unknown to its deletion");
                }
            }
            _ => self.unexpected("DELETE", &path, &reply),
        }
        Ok(())
    }

    /// Deletes a blob from the repository that is this client's own, mostly one that nothing refers to.
    fn delete_blob(&mut self) -> Step<()> {
        let repository = self.own.clone();
        let blob = if self.random.one_in(3) {
            self.some_image(&repository).and_then(|image| image.blobs.last().cloned())
        } else {
            let blob = self.shared.pool.blobs(&mut self.random).pop();
            if let Some(blob) = &blob {
                self.provide(&repository, blob)?;
            }
            blob
        };
        let Some(blob) = blob.filter(|blob| blob.digest != self.shared.empty.digest) else {
            return Ok(());
        };
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        self.shared.model().begin_blob_deletion(&repository, &blob.digest);
        let reply = self.ask(&[&request("DELETE", &path, "")]);
        let now = self.shared.now();
        self.shared.model().end_blob_deletion(&repository, &blob.digest, now);
        let reply = reply?;
        match reply.status {
            202 => {
                self.shared.count("blobs deleted");
                let after = self.ask(&[&request("HEAD", &path, "")])?;
                if after.status == 200 {
                    self.wrong(&blob.digest, "a blob is there after its deletion was acknowledged");
                }
                if self.random.one_in(2) {
                    self.provide(&repository, &blob)?;
                }
            }
            404 => {}
            // A registry may protect what a manifest refers to.
            status if (400..500).contains(&status) => self.shared.count("blob deletions refused"),
            _ => self.unexpected("DELETE", &path, &reply),
        }
        Ok(())
    }

    fn pull_some(&mut self) -> Step<()> {
        let repository = self.repository();
        if self.random.one_in(3) {
            return match self.some_image(&repository) {
                Some(image) => self.pull_manifest(&repository, &image.digest, true).map(drop),
                None => Ok(()),
            };
        }
        let tag = self.tag();
        self.pull_tag(&repository, &tag)
    }

    fn look_at_lists(&mut self) -> Step<()> {
        let repository = self.repository();
        let path = format!("/v2/{repository}/tags/list");
        let reply = self.ask(&[&request("GET", &path, "")])?;
        if reply.status != 200 && reply.status != 404 {
            self.unexpected("GET", &path, &reply);
        }
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let listed: Vec<&str> =
            body["tags"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
        for tag in &self.shared.tags {
            let there = listed.contains(&tag.as_str());
            let certain =
                self.shared.model().certain_tag(&repository, tag, reply.from, reply.to).map(|value| value.is_some());
            if certain.is_some_and(|certain| certain != there) {
                self.wrong(&format!("{repository}:{tag}"), &format!("listed among the tags: {there}"));
            }
        }
        if let Some(subject) = self.some_image(&repository) {
            self.look_at_referrers(&repository, &subject)?;
        }
        self.shared.count("lists");
        Ok(())
    }

    fn look_at_referrers(&mut self, repository: &str, subject: &Image) -> Step<()> {
        let path = format!("/v2/{repository}/referrers/{}", subject.digest);
        let reply = self.ask(&[&request("GET", &path, "")])?;
        if reply.status != 200 {
            self.unexpected("GET", &path, &reply);
            return Ok(());
        }
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        // The first page has hundreds; no subject here gets as many.
        let referrers = self.shared.model().certain_referrers(repository, &subject.digest, reply.from, reply.to);
        for digest in referrers.iter().filter(|digest| !body.contains(digest.as_str())) {
            self.wrong(digest, &format!("not among the referrers of {}", subject.digest));
        }
        Ok(())
    }

    /// Goes away in the middle of something, on a connection of its own.
    fn hang_up(&mut self) -> Step<()> {
        // Where nobody deletes blobs: one that is stored later would seem to have outlived its deletion.
        let repository = self.shared.shared[self.random.below(self.shared.shared.len())].clone();
        self.shared.count("clients that went away");
        let head = match self.random.below(3) {
            0 => {
                let blob = self.shared.pool.blobs(&mut self.random).pop();
                let blob = blob.expect("an image has a config at least");
                let path = format!("/v2/{repository}/blobs/uploads/?digest={}", blob.digest);
                let mut sent = with_length("POST", &path, OCTETS, blob.size, "");
                // All of it, at times: then it may be stored, and nobody was told.
                let part = if self.random.one_in(3) { blob.size } else { self.random.below(blob.size) };
                sent.extend_from_slice(&blob.bytes()[..part]);
                sent
            }
            1 => {
                let (Some(image), tag) = (self.some_image(&repository), self.tag()) else {
                    return Ok(());
                };
                let ticket = self.shared.model().begin_push(self.shared.now(), &repository, &image, Some(&tag));
                let path = format!("/v2/{repository}/manifests/{tag}");
                let mut sent = with_length("PUT", &path, image.media_type, image.bytes.len(), "");
                sent.extend_from_slice(&image.bytes);
                self.send_and_leave(&sent, 0);
                let at = self.shared.now();
                self.shared.model().settle(&ticket, Outcome::Lost { at, hung_up: true });
                self.note(&format!("PUT {path} {} and left", image.digest));
                return Ok(());
            }
            _ => {
                let Some(blob) = self.some_image(&repository).and_then(|image| image.blobs.last().cloned()) else {
                    return Ok(());
                };
                request("GET", &format!("/v2/{repository}/blobs/{}", blob.digest), "")
            }
        };
        let wanted = self.random.below(100_000);
        self.send_and_leave(&head, wanted);
        Ok(())
    }

    fn send_and_leave(&mut self, bytes: &[u8], wanted: usize) {
        let Ok(mut stream) = TcpStream::connect(self.shared.address) else {
            return;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
        let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
        let mut left = vec![0; wanted];
        if stream.write_all(bytes).is_ok() && wanted > 0 {
            let _ = stream.read(&mut left);
        } else {
            sleep(Duration::from_millis(self.random.below(30) as u64));
        }
    }

    // --- pushing ---

    /// Pushes an image with all that it refers to.
    pub(super) fn push(&mut self, repository: &str, image: &Arc<Image>, tag: Option<&str>) -> Step<()> {
        for _ in 0..TRIES {
            match self.try_push(repository, image, tag) {
                Err(Stop::Again) => self.shared.count("pushes begun anew"),
                other => return other,
            }
        }
        self.shared.count("pushes given up");
        Ok(())
    }

    fn try_push(&mut self, repository: &str, image: &Arc<Image>, tag: Option<&str>) -> Step<()> {
        for child in &image.children {
            let now = self.shared.now();
            let known = self.shared.model().must_have(repository, &child.digest, now, now + SECOND);
            if !known {
                self.push(repository, child, None)?;
            }
        }
        for blob in &image.blobs {
            self.provide(repository, blob)?;
        }
        if self.random.one_in(25) {
            // A slow client, whose first promises run out at times.
            self.shared.count("slow pushes");
            sleep(Duration::from_millis(self.random.below(12_000) as u64));
        }
        for blob in &image.blobs {
            // What was promised too long ago is asked for again.
            let soon = self.shared.now() + SECOND;
            let promised = self.shared.model().is_promised(repository, &blob.digest, soon);
            if !promised && !self.random.one_in(3) && !self.has(repository, blob)? {
                return Err(Stop::Again);
            }
        }
        self.put(repository, image, tag)
    }

    fn put(&mut self, repository: &str, image: &Arc<Image>, tag: Option<&str>) -> Step<()> {
        let path = format!("/v2/{repository}/manifests/{}", tag.unwrap_or(&image.digest));
        let head = with_length("PUT", &path, image.media_type, image.bytes.len(), "");
        let ticket = self.shared.model().begin_push(self.shared.now(), repository, image, tag);
        let reply = self.change(&ticket, &head, &image.bytes, 201)?;
        if reply.status == 201 {
            self.shared.count(if image.children.is_empty() { "manifests pushed" } else { "indexes pushed" });
            if image.subject.is_some() {
                self.shared.count("referrers pushed");
            }
            if reply.digest.as_deref() != Some(&image.digest) {
                self.wrong(&image.digest, "acknowledged under another digest");
            }
            return Ok(());
        }
        if !reply.says("BLOB_UNKNOWN") && !reply.says("MANIFEST_UNKNOWN") {
            self.unexpected("PUT", &path, &reply);
            return Err(Stop::Lost);
        }
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        for blob in image.blobs.iter().filter(|blob| text.contains(&blob.digest)) {
            let promised = self.shared.model().is_promised(repository, &blob.digest, reply.to);
            if promised {
                self.wrong(&blob.digest, &format!("refused in {} within its lease", image.digest));
            }
        }
        for child in image.children.iter().filter(|child| text.contains(&child.digest)) {
            let must = self.shared.model().must_have(repository, &child.digest, reply.from, reply.to);
            if must {
                self.wrong(&child.digest, &format!("there, but refused in the index {}", image.digest));
            }
        }
        self.shared.count("manifests refused after a promise ran out");
        Err(Stop::Again)
    }

    /// Asks whether a repository has a blob, which makes a promise of it.
    fn has(&mut self, repository: &str, blob: &Content) -> Step<bool> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let reply = self.ask(&[&request("HEAD", &path, "")])?;
        match reply.status {
            200 => self.shared.model().promise(repository, &blob.digest, reply.from),
            404 => {
                let promised = self.shared.model().is_promised(repository, &blob.digest, reply.to);
                if promised {
                    self.wrong(&blob.digest, &format!("unknown in {repository} within its lease"));
                }
            }
            _ => self.unexpected("HEAD", &path, &reply),
        }
        Ok(reply.status == 200)
    }

    /// Makes a repository have a blob, as Docker does.
    fn provide(&mut self, repository: &str, blob: &Content) -> Step<()> {
        if self.has(repository, blob)? {
            self.shared.count("blobs found there");
            return Ok(());
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        if self.random.one_in(3) {
            let from = self.repository();
            let path = format!("{uploads}?mount={}&from={from}", blob.digest);
            let reply = self.ask(&[&request("POST", &path, "")])?;
            return match reply.status {
                201 => {
                    self.shared.model().promise(repository, &blob.digest, reply.from);
                    self.shared.count("blobs mounted");
                    Ok(())
                }
                202 => self.finish(repository, blob, &reply.location.unwrap_or_default()),
                _ => {
                    self.unexpected("POST", &path, &reply);
                    Err(Stop::Lost)
                }
            };
        }
        if self.random.one_in(6) {
            let path = format!("{uploads}?digest={}", blob.digest);
            let head = with_length("POST", &path, OCTETS, blob.size, "");
            let reply = self.ask(&[&head, &blob.bytes()])?;
            return match (reply.status, &reply.location) {
                (202, Some(location)) => self.finish(repository, blob, &location.clone()),
                _ => self.stored(repository, blob, &path, &reply, self.generation),
            };
        }
        let reply = self.ask(&[&request("POST", &uploads, "")])?;
        match (reply.status, reply.location.clone()) {
            (202, Some(location)) => self.finish(repository, blob, &location),
            _ => {
                self.unexpected("POST", &uploads, &reply);
                Err(Stop::Lost)
            }
        }
    }

    /// Sends the bytes of a blob to an upload that was begun, in one of the ways that clients have.
    fn finish(&mut self, repository: &str, blob: &Content, location: &str) -> Step<()> {
        let (mut location, generation) = (location.to_owned(), self.generation);
        let bytes = blob.bytes();
        if self.random.one_in(HANG_UPS) {
            let part = self.random.below(bytes.len());
            let head = with_length("PATCH", &location, OCTETS, bytes.len(), "");
            self.send_and_leave(&[&head[..], &bytes[..part]].concat(), 0);
            self.shared.count("uploads broken off");
            return Err(Stop::Lost);
        }
        let style = self.random.below(3);
        let mut last: &[u8] = b"";
        if style == 0 {
            // containerd: all in the closing request.
            last = &bytes;
        } else if style == 1 {
            // Docker: one request in chunked coding.
            let head = format!("PATCH {location} HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut body = Vec::with_capacity(bytes.len() + 1024);
            for part in bytes.chunks(32 * 1024) {
                body.extend(format!("{:x}\r\n", part.len()).into_bytes());
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let reply = self.ask(&[head.as_bytes(), &body])?;
            location = self.next(&location, reply, generation)?;
        } else {
            // skopeo and others: parts with their range.
            let step = 1 + bytes.len() / (1 + self.random.below(4));
            for (index, part) in bytes.chunks(step).enumerate() {
                let start = index * step;
                let range = format!("Content-Range: {start}-{}\r\n", start + part.len() - 1);
                let head = with_length("PATCH", &location, OCTETS, part.len(), &range);
                let reply = self.ask(&[&head, part])?;
                location = self.next(&location, reply, generation)?;
            }
        }
        let path = closing(&location, &blob.digest);
        let head = with_length("PUT", &path, OCTETS, last.len(), "");
        let reply = self.ask(&[&head, last])?;
        self.stored(repository, blob, &path, &reply, generation)
    }

    /// Where an upload goes on after a part.
    fn next(&mut self, path: &str, reply: Reply, generation: u64) -> Step<String> {
        match (reply.status, &reply.location) {
            (202, Some(location)) => Ok(location.clone()),
            // It was in the memory of a server that is no more.
            (404, _) if generation != self.shared.generation() => Err(Stop::Again),
            _ => {
                self.unexpected("PATCH", path, &reply);
                Err(Stop::Lost)
            }
        }
    }

    fn stored(&mut self, repository: &str, blob: &Content, path: &str, reply: &Reply, generation: u64) -> Step<()> {
        match reply.status {
            201 => {
                self.shared.model().promise(repository, &blob.digest, reply.from);
                self.shared.count("blobs pushed");
                Ok(())
            }
            404 | 416 if generation != self.shared.generation() => Err(Stop::Again),
            _ if reply.text().contains("send it again") => {
                self.shared.count("blobs collected at the moment of their push");
                Err(Stop::Again)
            }
            _ => {
                self.unexpected("PUT", path, reply);
                Err(Stop::Lost)
            }
        }
    }

    // --- pulling ---

    /// Pulls what a tag names, and compares.
    pub(super) fn pull_tag(&mut self, repository: &str, tag: &str) -> Step<()> {
        let reply = self.get_manifest(repository, tag)?;
        let digest = (reply.status == 200).then(|| digest_of(&reply.body));
        let may = self.shared.model().allows_tag(repository, tag, digest.as_deref(), reply.from, reply.to);
        if !may {
            let seen = digest.as_deref().unwrap_or("nothing");
            self.wrong(&format!("{repository}:{tag}"), &format!("the tag names {seen}, which it must not"));
        }
        self.shared.count("tags pulled");
        match digest {
            Some(digest) => self.pull_parts(repository, &digest, false),
            None => Ok(()),
        }
    }

    /// Pulls a manifest by its digest, and compares; whether it is there.
    pub(super) fn pull_manifest(&mut self, repository: &str, digest: &str, parts: bool) -> Step<bool> {
        let reply = self.get_manifest(repository, digest)?;
        let there = reply.status == 200;
        let (must, may) = {
            let model = self.shared.model();
            (
                model.must_have(repository, digest, reply.from, reply.to),
                model.allows_manifest(repository, digest, reply.from, reply.to),
            )
        };
        if there && digest_of(&reply.body) != digest {
            self.wrong(digest, "a manifest came back with other bytes");
        }
        if there && !may {
            self.wrong(digest, "a manifest is served though its deletion was acknowledged");
        }
        if !there && must {
            self.wrong(digest, "an acknowledged manifest is lost");
        }
        self.shared.count("manifests pulled");
        if there && parts {
            self.pull_parts(repository, digest, true)?;
        }
        Ok(there)
    }

    fn get_manifest(&mut self, repository: &str, reference: &str) -> Step<Reply> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let reply = self.ask(&[&request("GET", &path, &format!("Accept: {OCI_MANIFEST}, {OCI_INDEX}\r\n"))])?;
        if reply.status == 200 {
            if reply.digest.as_deref() != Some(&digest_of(&reply.body)) {
                self.wrong(&path, "a manifest's header names another digest");
            }
        } else if reply.status != 404 {
            self.unexpected("GET", &path, &reply);
            return Err(Stop::Lost);
        }
        Ok(reply)
    }

    /// Pulls everything that a manifest refers to, which was served just now.
    fn pull_parts(&mut self, repository: &str, digest: &str, all: bool) -> Step<()> {
        let Some(image) = self.shared.model().image(repository, digest) else {
            self.wrong(digest, &format!("{repository} serves a manifest that nobody pushed there"));
            return Ok(());
        };
        for blob in &image.blobs {
            if (all || self.random.one_in(2)) && !self.pull_blob(repository, blob)? {
                self.miss(repository, &image, &blob.digest, Some(blob))?;
            }
        }
        for child in &image.children {
            if !self.pull_manifest(repository, &child.digest, all)? {
                self.miss(repository, &image, &child.digest, None)?;
            }
        }
        Ok(())
    }

    fn pull_blob(&mut self, repository: &str, blob: &Content) -> Step<bool> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let reply = self.ask(&[&request("GET", &path, "")])?;
        match reply.status {
            200 => {
                if reply.body.len() != blob.size || digest_of(&reply.body) != blob.digest {
                    self.wrong(&blob.digest, &format!("{} bytes came back, and not the right ones", reply.body.len()));
                }
                self.shared.count("blobs pulled");
            }
            404 => {}
            _ => self.unexpected("GET", &path, &reply),
        }
        Ok(reply.status == 200)
    }

    /// A manifest was served and a part of it was not: that is right only if the manifest goes, too.
    fn miss(&mut self, repository: &str, parent: &Image, part: &str, blob: Option<&Content>) -> Step<()> {
        let begin = self.shared.now();
        for _ in 0..LOOKS {
            let whole = self.shared.model().is_whole(repository, &parent.digest, part);
            if !whole || !self.pull_manifest(repository, &parent.digest, false)? {
                return Ok(());
            }
            let back = match blob {
                Some(blob) => self.pull_blob(repository, blob)?,
                None => self.pull_manifest(repository, part, false)?,
            };
            if back {
                let now = self.shared.now();
                let touched =
                    self.shared.model().is_touched(repository, &parent.digest, begin.saturating_sub(10 * SECOND), now);
                if !touched {
                    self.wrong(part, &format!("{repository}: a part of {} was away for a while", parent.digest));
                }
                return Ok(());
            }
            sleep(Duration::from_millis(150));
        }
        let whole = self.shared.model().is_whole(repository, &parent.digest, part);
        if whole {
            self.wrong(part, &format!("{repository}: missing, but {} refers to it and is served", parent.digest));
        }
        Ok(())
    }

    // --- asking ---

    /// Sends a change, and tells the model what became of it.
    fn change(&mut self, ticket: &Ticket, head: &[u8], body: &[u8], done: u16) -> Step<Reply> {
        let reply = self.ask(&[head, body]);
        let at = self.shared.now();
        let outcome = match &reply {
            Ok(reply) if reply.status == done => Outcome::Done(reply.to),
            Ok(reply) if reply.status < 500 => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Lost { at, hung_up: false },
        };
        self.shared.model().settle(ticket, outcome);
        reply
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(&mut self, parts: &[&[u8]]) -> Step<Reply> {
        let line = parts[0].split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).trim_end_matches(" HTTP/1.1").to_owned();
        let generation = self.shared.generation();
        let from = self.shared.now();
        let answer = block_on(self.conn.exchange(parts, true));
        let to = self.shared.now();
        self.shared.count("requests");
        match answer {
            Ok(answer) => {
                self.note(&format!("{line} -> {}", answer.status));
                let header = |name: &str| self.conn.header(name).map(str::to_owned);
                let location = header("location").map(|url| local(&url).to_owned());
                let digest = header("docker-content-digest");
                Ok(Reply { status: answer.status, body: self.conn.body().to_vec(), location, digest, from, to })
            }
            Err(error) => {
                self.note(&format!("{line} -> no answer: {error:#}"));
                self.shared.count("requests without an answer");
                if to - from > 30 * SECOND && generation == self.shared.generation() {
                    self.wrong(&line, "no answer within half a minute");
                }
                Err(Stop::Lost)
            }
        }
    }

    fn note(&self, text: &str) {
        self.shared.note(&self.name, text);
    }

    fn unexpected(&mut self, method: &str, path: &str, reply: &Reply) {
        self.wrong(path, &format!("{method} answered {}: {}", reply.status, reply.text()));
    }

    fn wrong(&mut self, subject: &str, what: &str) {
        self.shared.violation(&self.name, subject, what);
    }

    fn repository(&mut self) -> String {
        if self.random.one_in(3) {
            return self.own.clone();
        }
        let shared = &self.shared.shared;
        shared[self.random.below(shared.len())].clone()
    }

    fn tag(&mut self) -> String {
        self.shared.tags[self.random.below(self.shared.tags.len())].clone()
    }

    /// A manifest that was pushed to a repository and may be there.
    fn some_image(&mut self, repository: &str) -> Option<Arc<Image>> {
        let images = self.shared.model().images(repository);
        self.random.pick(&images).cloned()
    }
}
