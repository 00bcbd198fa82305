//! A blocking HTTP/1.1 exchange, small enough to know exactly what was sent and acknowledged.
//!
//! One connection per request, plain text, no redirects and no retries: a test must see the first
//! answer. A body that ends early is an error, never a short success.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE: u64 = 256 << 20;

/// An answer, complete.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body, decoded from chunks if it came so.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of header `name` (any case), or an empty text.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// Every header as `name: value`, in the order of the answer.
    pub fn headers(&self) -> Vec<String> {
        self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    /// The body as JSON; `null` when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of the first entry in an OCI error body (`BLOB_UNKNOWN`, …), else an empty text.
    pub fn error_code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request to `url` (`http://<host>:<port>/…`) and reads the whole answer.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
    let rest = url.strip_prefix("http://").ok_or_else(|| bad(&format!("not http: {url}")))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;

    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&method) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    // A server may answer and hang up before it has read all: the answer still counts.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut raw = Vec::new();
    let received = stream.take(MAX_RESPONSE).read_to_end(&mut raw);
    parse(method, &raw).map_err(|error| sent.err().or(received.err()).unwrap_or(error))
}

/// Parses the final answer to a `method` request, interim ones skipped.
fn parse(method: &str, mut raw: &[u8]) -> io::Result<Response> {
    while raw.starts_with(b"HTTP/1.1 1") {
        let end = raw.windows(4).position(|window| window == b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
        raw = &raw[end..];
    }
    parse_one(method, raw)
}

/// Parses one answer to a `method` request, of whatever status.
pub(crate) fn parse_one(method: &str, raw: &[u8]) -> io::Result<Response> {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| bad("the connection closed before the end of the headers"))?;
    let head = std::str::from_utf8(&raw[..end]).map_err(|_| bad("headers are not UTF-8"))?;
    let mut body = &raw[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| bad("no status line"))?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let mut response = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || matches!(status, 100..200 | 204 | 304) {
        return Ok(response);
    }
    if response.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        response.body = dechunk(body)?;
        return Ok(response);
    }
    if let Ok(length) = response.header("content-length").parse::<usize>() {
        body = body.get(..length).ok_or_else(|| bad("the connection closed inside the body"))?;
    }
    response.body = body.to_vec();
    Ok(response)
}

fn dechunk(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n");
        let line = line.ok_or_else(|| bad("the connection closed between chunks"))?;
        let size = std::str::from_utf8(&rest[..line]).ok();
        let size = size.and_then(|text| usize::from_str_radix(text.split(';').next()?, 16).ok());
        let size = size.ok_or_else(|| bad("chunk without a size"))?;
        if size == 0 {
            return Ok(body);
        }
        rest = &rest[line + 2..];
        body.extend_from_slice(rest.get(..size).ok_or_else(|| bad("chunk cut short"))?);
        rest = rest.get(size + 2..).ok_or_else(|| bad("chunk cut short"))?;
    }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn answers_are_complete_or_an_error() {
        let check = |method: &str, raw: &str, expected: &str| {
            let got = match parse(method, raw.as_bytes()) {
                Ok(response) => format!("{} {}", response.status, response.text()),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected, "{raw:?}");
        };
        check("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "200 ab");
        check("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "200 ");
        check("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n\r\n", "201 ");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check("GET", &format!("{chunked}2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"), "200 abc");
        check("GET", &format!("{chunked}5\r\nab"), "chunk cut short");
        check("GET", &format!("{chunked}2\r\nab\r\n"), "the connection closed between chunks");
        let short = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        check("GET", short, "the connection closed inside the body");
        check("GET", "HTTP/1.1 200", "the connection closed before the end of the headers");
    }
}
