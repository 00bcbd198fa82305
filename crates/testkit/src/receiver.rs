//! A web server that notes what it is sent, and answers with the status it is told to.
//!
//! Receives notifications and health checks. One request per connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::acceptor::Acceptor;

const MAX_REQUEST: u64 = 8 << 20;

/// A request that was received, refused ones included.
#[derive(Debug, Clone)]
pub struct Received {
    /// The request line and headers.
    pub head: String,
    /// The body as JSON; `null` when it is not.
    pub json: Value,
    /// What it was answered with.
    pub status: u16,
}

/// A running receiver; dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    acceptor: Acceptor,
}

#[derive(Debug)]
struct Shared {
    status: AtomicU16,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Starts one that answers with `status`.
    pub fn start(status: u16) -> Self {
        let shared = Arc::new(Shared { status: AtomicU16::new(status), received: Mutex::default() });
        let worker = Arc::clone(&shared);
        let acceptor = Acceptor::start(move |stream| worker.answer(stream));
        Self { shared, acceptor }
    }

    /// Where it listens, `<host>:<port>`.
    pub fn address(&self) -> String {
        self.acceptor.addr().to_string()
    }

    /// Answers with `status` from now on.
    pub fn set_status(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// Everything received so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().expect("the receiver does not panic").clone()
    }

    /// The events of all envelopes that were answered with 200, in order.
    pub fn events(&self) -> Vec<Value> {
        let accepted = self.received().into_iter().filter(|request| request.status == 200);
        accepted.flat_map(|request| request.json["events"].as_array().cloned().unwrap_or_default()).collect()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut raw = Vec::new();
        let (mut input, mut wanted) = ((&stream).take(MAX_REQUEST), None);
        while wanted.is_none_or(|wanted| raw.len() < wanted) {
            let mut part = [0; 4096];
            let count = input.read(&mut part)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            raw.extend_from_slice(&part[..count]);
            wanted = wanted.or_else(|| whole_length(&raw));
        }
        let head = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
        let status = self.status.load(Ordering::Relaxed);
        self.received.lock().expect("no holder panics").push(Received {
            head: String::from_utf8_lossy(&raw[..head]).into_owned(),
            json: serde_json::from_slice(&raw[head + 4..]).unwrap_or_default(),
            status,
        });
        stream.write_all(format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
    }
}

fn whole_length(raw: &[u8]) -> Option<usize> {
    let head = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&raw[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(head + 4 + length.unwrap_or(0))
}
