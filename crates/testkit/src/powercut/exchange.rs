//! Requests and answers of a server, found in what it read from and wrote to sockets.
//!
//! For clients that use a connection for one request, as [`crate::client`] does.

use std::collections::HashMap;

use super::trace::{Call, Moment};

/// A request, and the answer if one was sent.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Its method.
    pub method: String,
    /// Its path, with the query.
    pub path: String,
    /// When the server had read its first bytes.
    pub asked: Moment,
    /// When the server began to answer, and what.
    pub answered: Option<(Moment, u16)>,
    /// The answer's head.
    head: String,
    /// When it was asked, in seconds since 1970.
    pub time: f64,
}

impl Exchange {
    /// A header of the answer, in any case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}

/// All exchanges, in the order of their requests.
pub fn exchanges(calls: &[Call]) -> Vec<Exchange> {
    let mut all: Vec<Exchange> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    for call in calls {
        let Some(socket) = call.target(0).filter(|target| target.starts_with("socket:") || target.starts_with("TCP"))
        else {
            continue;
        };
        let bytes = match call.name.as_str() {
            "read" | "recvfrom" | "write" | "sendto" | "writev" => call.bytes(1),
            _ => continue,
        };
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8192)]).into_owned();
        if matches!(call.name.as_str(), "read" | "recvfrom") {
            let mut words = text.lines().next().unwrap_or_default().split(' ');
            if let (Some(method), Some(path), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) {
                open.insert(socket, all.len());
                let (method, path) = (method.to_owned(), path.to_owned());
                let head = String::new();
                all.push(Exchange { method, path, asked: call.end, answered: None, head, time: call.time });
            }
        } else if let Some(status) = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok())
            && status >= 200
            && let Some(index) = open.remove(&socket)
        {
            all[index].answered = Some((call.start, status));
            all[index].head = text.split("\r\n\r\n").next().unwrap_or_default().to_owned();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::trace::parse;
    use super::*;

    #[test]
    fn an_answer_belongs_to_the_request_on_its_socket() {
        let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let (one, two) = (hex("socket:[1]"), hex("socket:[2]"));
        let lines = [
            format!(
                "7 1 recvfrom(5<{one}>, \"{}\", 99, 0, NULL, NULL) = 9",
                hex("PUT /v2/a?b HTTP/1.1\r\nHost: x\r\n")
            ),
            format!("7 2 recvfrom(6<{two}>, \"{}\", 99, 0, NULL, NULL) = 9", hex("GET /v2/ HTTP/1.1\r\n\r\n")),
            format!("7 3 recvfrom(5<{one}>, \"{}\", 99, 0, NULL, NULL) = 9", hex("a body")),
            format!("7 4 sendto(5<{one}>, \"{}\", 25, 0, NULL, 0) = 25", hex("HTTP/1.1 100 Continue\r\n\r\n")),
            format!(
                "7 5 writev(5<{one}>, [{{iov_base=\"{}\", iov_len=9}}], 1) = 9",
                hex("HTTP/1.1 201 Created\r\nA: b\r\n\r\nx")
            ),
        ];
        let seen = exchanges(&parse(&lines.join("\n")));
        let seen: Vec<_> =
            seen.iter().map(|one| (one.path.as_str(), one.asked, one.answered, one.header("a"))).collect();
        assert_eq!(seen, [("/v2/a?b", 0, Some((4, 201)), "b"), ("/v2/", 1, None, "")]);
    }
}
