//! A lean HTTP/1.1 client: one connection, one request at a time, few system calls and no parsing beyond need.
//!
//! The same code serves two ways. A *blocking* connection completes each call in one poll of its future, which
//! is cheapest for a single worker; a *polled* connection returns `Pending` until its edge-triggered epoll event
//! arrives, so that one thread can drive many workers. It knows nothing about registries, TLS or redirects.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use memchr::{memchr, memmem};
use rustix::event::epoll::{self, EventData, EventFlags};

/// Bytes read at once: large enough to make large bodies cheap, small enough to stay in a core's cache.
const BUFFER: usize = 256 * 1024;
/// Longest time a peer may be silent, the same as the executor's limit for polled connections.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Slices handed to one vectored write.
const SLICES: usize = 64;

/// What came back, without the parts that a caller asks for by name ([`Conn::header`], [`Conn::body`]).
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of the body, or for HEAD its announced `Content-Length`.
    pub(crate) length: u64,
}

/// One keep-alive connection; it reconnects by itself after an error or a `Connection: close`.
pub(crate) struct Conn {
    addr: SocketAddr,
    /// A header line, `Name: value\r\n`, that every request gets; empty for none.
    line: Rc<str>,
    stream: Option<TcpStream>,
    /// The epoll instance and this connection's key in it; a blocking connection has none.
    poller: Option<(Rc<OwnedFd>, u64)>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    head: Vec<u8>,
    body: Vec<u8>,
}

enum Framing {
    Length(u64),
    Chunked,
}

struct Head {
    size: usize,
    status: u16,
    framing: Framing,
    close: bool,
}

impl Conn {
    pub(crate) fn blocking(addr: SocketAddr) -> Self {
        Self::new(addr, None)
    }

    pub(crate) fn polled(addr: SocketAddr, epoll: Rc<OwnedFd>, key: u64) -> Self {
        Self::new(addr, Some((epoll, key)))
    }

    fn new(addr: SocketAddr, poller: Option<(Rc<OwnedFd>, u64)>) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self {
            addr,
            line: Rc::from(""),
            stream: None,
            poller,
            buffer,
            start: 0,
            end: 0,
            head: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header line, `Name: value\r\n`, to every request.
    pub(crate) fn with_line(self, line: Rc<str>) -> Self {
        Self { line, ..self }
    }

    /// Sends a request (its parts in order, the first holding at least the request line) and reads the whole
    /// answer. The body is kept for [`Conn::body`] if `keep`, or if the status is 400 or more.
    pub(crate) async fn exchange(&mut self, parts: &[&[u8]], keep: bool) -> Result<Answer> {
        let result = self.try_exchange(parts, keep).await;
        if result.is_err() {
            self.stream = None;
        }
        result.with_context(|| format!("exchange `{}`", request_line(parts)))
    }

    /// Like [`Conn::exchange`], and fails unless the status is `status`.
    pub(crate) async fn expect(&mut self, parts: &[&[u8]], keep: bool, status: u16) -> Result<Answer> {
        let answer = self.exchange(parts, keep).await?;
        if answer.status != status {
            let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
            bail!("`{}` answered {}, expected {status}: {}", request_line(parts), answer.status, body.trim());
        }
        Ok(answer)
    }

    /// A header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).ok()?;
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The kept body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    async fn try_exchange(&mut self, parts: &[&[u8]], keep: bool) -> Result<Answer> {
        if self.stream.is_none() {
            self.connect()?;
        }
        let at_once = match self.line.clone() {
            line if line.is_empty() => self.send(parts).await?,
            line => {
                let (first, rest) = parts[0].split_at(memchr(b'\n', parts[0]).context("no request line")? + 1);
                let mut whole = vec![first, line.as_bytes(), rest];
                whole.extend(&parts[1..]);
                self.send(&whole).await?
            }
        };
        if at_once && self.poller.is_some() {
            // The answer's edge is still to come: waiting for it saves a read that would find nothing.
            let mut waited = false;
            poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
        self.receive(parts[0].starts_with(b"HEAD "), keep).await
    }

    fn connect(&mut self) -> Result<()> {
        let stream = TcpStream::connect(self.addr).with_context(|| format!("connect to {}", self.addr))?;
        stream.set_nodelay(true)?;
        if let Some((poller, key)) = &self.poller {
            stream.set_nonblocking(true)?;
            epoll::add(
                poller,
                &stream,
                EventData::new_u64(*key),
                EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
            )?;
        } else {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        (self.start, self.end) = (0, 0);
        self.stream = Some(stream);
        Ok(())
    }

    /// Writes all parts; true if one system call took them.
    async fn send(&mut self, parts: &[&[u8]]) -> Result<bool> {
        let mut stream = self.stream.as_ref().context("not connected")?;
        let (mut index, mut offset, mut calls) = (0, 0, 0);
        loop {
            while index < parts.len() && offset == parts[index].len() {
                (index, offset) = (index + 1, 0);
            }
            if index == parts.len() {
                return Ok(calls == 1);
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slot, part) in slices.iter_mut().zip(&parts[index..]) {
                *slot = IoSlice::new(if count == 0 { &part[offset..] } else { part });
                count += 1;
            }
            let mut written = poll_fn(|_| match stream.write_vectored(&slices[..count]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.poller.is_some() => {
                    calls += 1;
                    Poll::Pending
                }
                other => Poll::Ready(other),
            })
            .await
            .context("send")?;
            calls += 1;
            while written > 0 {
                let step = written.min(parts[index].len() - offset);
                (written, offset) = (written - step, offset + step);
                if offset == parts[index].len() {
                    (index, offset) = (index + 1, 0);
                }
            }
        }
    }

    async fn receive(&mut self, bodiless: bool, keep: bool) -> Result<Answer> {
        let head = loop {
            if let Some(head) = parse_head(&self.buffer[self.start..self.end])? {
                self.head.clear();
                self.head.extend_from_slice(&self.buffer[self.start..self.start + head.size]);
                self.start += head.size;
                if head.status >= 200 {
                    break head;
                }
                continue; // an interim 1xx answer
            }
            self.fill().await?;
        };
        self.body.clear();
        let keep = keep || head.status >= 400;
        let length = match head.framing {
            Framing::Length(length) if bodiless => length,
            Framing::Chunked if bodiless => 0,
            _ if head.status == 204 || head.status == 304 => 0,
            Framing::Length(length) => {
                self.take(length, keep).await?;
                length
            }
            Framing::Chunked => self.take_chunks(keep).await?,
        };
        if head.close {
            self.stream = None;
        }
        Ok(Answer { status: head.status, length })
    }

    async fn take(&mut self, length: u64, keep: bool) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.fill().await?;
            }
            let step = left.min((self.end - self.start) as u64) as usize;
            if keep {
                self.body.extend_from_slice(&self.buffer[self.start..self.start + step]);
            }
            self.start += step;
            left -= step as u64;
        }
        Ok(())
    }

    async fn take_chunks(&mut self, keep: bool) -> Result<u64> {
        let mut total = 0;
        loop {
            let line = self.take_line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).with_context(|| format!("chunk size `{line}`"))?;
            if size == 0 {
                while !self.take_line().await?.is_empty() {}
                return Ok(total);
            }
            self.take(size, keep).await?;
            self.take_line().await?;
            total += size;
        }
    }

    async fn take_line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer[self.start..self.end]) {
                let line = String::from_utf8_lossy(&self.buffer[self.start..self.start + end]);
                let line = line.trim_end().to_owned();
                self.start += end + 1;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    /// Reads once; moves what is left to the front first, so that a head or a chunk line stays in one piece.
    async fn fill(&mut self) -> Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            bail!("answer head longer than {BUFFER} bytes");
        }
        let mut stream = self.stream.as_ref().context("not connected")?;
        let (polled, space) = (self.poller.is_some(), &mut self.buffer[self.end..]);
        let read = poll_fn(|_| match stream.read(space) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && polled => Poll::Pending,
            other => Poll::Ready(other),
        })
        .await
        .context("receive")?;
        if read == 0 {
            bail!("connection closed by the server");
        }
        self.end += read;
        Ok(())
    }
}

fn request_line(parts: &[&[u8]]) -> String {
    let line = parts[0].split(|&byte| byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).trim_end_matches(" HTTP/1.1").to_owned()
}

/// The head of an answer, or `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(size) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut lines = bytes[..size].split(|&byte| byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| std::str::from_utf8(line.get(9..12)?).ok()?.parse().ok())
        .ok_or_else(|| anyhow!("not an HTTP answer"))?;
    let (mut framing, mut close) = (Framing::Length(0), false);
    for line in lines {
        // Names are told apart by length first: most lines are none of these three.
        let Some(colon) = memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = std::str::from_utf8(value)?;
                framing = Framing::Length(value.parse().with_context(|| format!("content-length `{value}`"))?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => framing = Framing::Chunked,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                close = value.eq_ignore_ascii_case(b"close");
            }
            _ => {}
        }
    }
    Ok(Some(Head { size: size + 4, status, framing, close }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "incomplete");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 length 5 keep");
        check("HTTP/1.1 202 Accepted\r\ncontent-length:0\r\nConnection: close\r\n\r\n", "202 length 0 close");
        check("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", "404 chunked keep");
        check("HTTP/1.1 204 No Content\r\n\r\n", "204 length 0 keep");
        check("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "error");
        check("SSH-2.0\r\n\r\n", "error");
    }

    fn check(input: &str, expected: &str) {
        let seen = match parse_head(input.as_bytes()) {
            Err(_) => "error".to_owned(),
            Ok(None) => "incomplete".to_owned(),
            Ok(Some(head)) => {
                let framing = match head.framing {
                    Framing::Length(length) => format!("length {length}"),
                    Framing::Chunked => "chunked".to_owned(),
                };
                format!("{} {framing} {}", head.status, if head.close { "close" } else { "keep" })
            }
        };
        assert_eq!(seen, expected, "{input:?}");
    }
}
