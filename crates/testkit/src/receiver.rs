//! A web server that notes what it is sent, and answers with the status it is told to.
//!
//! Receives notifications and health checks. One request per connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const MAX_REQUEST: u64 = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

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
    addr: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    status: AtomicU16,
    ended: AtomicBool,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Starts one that answers with `status`.
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            status: AtomicU16::new(status),
            ended: AtomicBool::new(false),
            received: Mutex::default(),
        });
        let worker = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if worker.ended.load(Ordering::Relaxed) {
                    return;
                }
                // A sender that hangs up is its own trouble.
                let _ = stream.and_then(|stream| worker.answer(stream));
            }
        });
        Self { shared, addr, thread: Some(thread) }
    }

    /// Where it listens, `<host>:<port>`.
    pub fn address(&self) -> String {
        self.addr.to_string()
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

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
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
