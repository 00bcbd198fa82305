//! Owns what becomes of a query: an answer from the zone, a refusal, or the decision that others are asked. Pure: bytes
//! and a zone in, bytes out. Does not own sockets.

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, PTR, SOA, SRV},
    },
    serialize::binary::{BinDecodable as _, BinDecoder},
};
use om_core::zone::{Data, Found, TIMES, TTL, Zone};
use std::net::IpAddr;

/// The largest query that is read, in bytes. Queries are a name and some options.
pub const QUERY_LIMIT: usize = 4096;
/// The largest datagram that is sent, in bytes: it crosses every network in one piece (DNS flag day 2020).
const DATAGRAM: u16 = 1232;
/// The largest datagram for a client that says nothing of itself (RFC 1035 section 4.2.1).
const SMALL: u16 = 512;
/// The bytes of a header.
const HEADER: usize = 12;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the answer must fit in one.
    Datagram,
    /// In a stream: the answer may be as long as it is.
    Stream,
}

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This is the answer.
    Reply(Vec<u8>),
    /// Others are asked.
    Forward,
    /// It is no query; whoever sent it gets nothing, so that two servers never answer each other.
    Ignore,
}

/// Decides what becomes of a query.
pub fn step(query: &[u8], zone: &Zone, transport: Transport) -> Step {
    let Some(metadata) = header(query).filter(|header| header.metadata.message_type == MessageType::Query) else {
        return Step::Ignore;
    };
    let reply = |code| fail(query, code).map_or(Step::Ignore, Step::Reply);
    if metadata.metadata.op_code != OpCode::Query {
        return reply(ResponseCode::NotImp);
    }
    let Ok(message) = Message::from_vec(query) else { return reply(ResponseCode::FormErr) };
    let [question] = &message.queries[..] else { return reply(ResponseCode::FormErr) };
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return reply(ResponseCode::BADVERS);
    }
    let name = plain(&question.name);
    let found = zone.find(&name);
    if found == Found::Elsewhere {
        return Step::Forward;
    }
    if question.query_class != DNSClass::IN || matches!(question.query_type, RecordType::AXFR | RecordType::IXFR) {
        return reply(ResponseCode::Refused);
    }
    let mut answer = answer(&message, question, &name, found, zone);
    if message.edns.is_some() {
        answer.edns = Some(edns());
    }
    let Ok(bytes) = answer.to_vec() else { return reply(ResponseCode::ServFail) };
    let limit = match (&message.edns, transport) {
        (_, Transport::Stream) => u16::MAX,
        (None, Transport::Datagram) => SMALL,
        (Some(edns), Transport::Datagram) => edns.max_payload().clamp(SMALL, DATAGRAM),
    };
    if bytes.len() <= usize::from(limit) {
        return Step::Reply(bytes);
    }
    // The client comes again over a stream.
    answer.truncate().to_vec().map_or(Step::Ignore, Step::Reply)
}

/// A refusal of a query; none if it has no header.
pub fn fail(query: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let header = header(query)?;
    let mut reply = Message::error_msg(header.metadata.id, header.metadata.op_code, code);
    reply.metadata.recursion_desired = header.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    if let Ok(message) = Message::from_vec(query) {
        reply.edns = message.edns.is_some().then(edns);
        reply.add_queries(message.queries);
    }
    reply.to_vec().ok()
}

/// Whether a reply is one to a query that was sent with this id: same id, same question.
pub fn is_reply(query: &[u8], id: u16, reply: &[u8]) -> bool {
    let questions = |bytes| {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        let queries = Message::read_queries(&mut decoder, usize::from(header.counts.queries.min(1))).ok()?;
        Some((header, queries))
    };
    let (Some((_, asked)), Some((header, answered))) = (questions(query), questions(reply)) else { return false };
    header.metadata.id == id && header.metadata.message_type == MessageType::Response && asked == answered
}

fn header(bytes: &[u8]) -> Option<Header> {
    Header::read(&mut BinDecoder::new(bytes.get(..HEADER)?)).ok()
}

fn edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    edns
}

/// A name as the zone writes it.
fn plain(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn answer(message: &Message, question: &Query, name: &str, found: Found<'_>, zone: &Zone) -> Message {
    let mut reply = Message::response(message.metadata.id, OpCode::Query);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    let known = match found {
        Found::Records(known) => known,
        Found::Nothing | Found::Elsewhere => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            &[]
        }
    };
    let asked = |data: &&Data| match question.query_type {
        RecordType::ANY => true,
        kind => kind_of(data) == kind,
    };
    let given: Vec<&Data> = known.iter().filter(asked).collect();
    // The client's own spelling of the name comes back.
    reply.add_answers(given.iter().filter_map(|data| record(question.name.clone(), data)));
    for target in given.iter().filter_map(|data| target(data)) {
        let Found::Records(of_target) = zone.find(target) else { continue };
        let Some(owner) = absolute(target) else { continue };
        let addresses = of_target.iter().filter(|data| matches!(data, Data::Address(_)));
        reply.add_additionals(addresses.filter_map(|data| record(owner.clone(), data)));
    }
    let origin = zone.origin();
    let is_below = name.strip_suffix(origin).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    // What an address's name is not has no record that could say so.
    if given.is_empty() && is_below {
        reply.add_authorities(absolute(origin).and_then(|owner| record(owner, zone.authority()?)));
    }
    reply
}

/// The name that a record leads to, whose addresses the client wants next.
fn target(data: &Data) -> Option<&str> {
    match data {
        Data::Server(name) | Data::Service { target: name, .. } => Some(name),
        _ => None,
    }
}

fn kind_of(data: &Data) -> RecordType {
    match data {
        Data::Authority { .. } => RecordType::SOA,
        Data::Server(_) => RecordType::NS,
        Data::Address(IpAddr::V4(_)) => RecordType::A,
        Data::Address(IpAddr::V6(_)) => RecordType::AAAA,
        Data::Service { .. } => RecordType::SRV,
        Data::Pointer(_) => RecordType::PTR,
    }
}

/// A name of the zone; none if it is too long to be one.
fn absolute(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.")).ok()
}

fn record(owner: Name, data: &Data) -> Option<Record> {
    let value = match data {
        Data::Authority { server, contact, serial } => {
            let [refresh, retry, expire] = TIMES;
            RData::SOA(SOA::new(absolute(server)?, absolute(contact)?, *serial, refresh, retry, expire, TTL))
        }
        Data::Server(name) => RData::NS(NS(absolute(name)?)),
        Data::Address(IpAddr::V4(address)) => RData::A(A(*address)),
        Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
        Data::Service { weight, port, target } => RData::SRV(SRV::new(0, *weight, *port, absolute(target)?)),
        Data::Pointer(name) => RData::PTR(PTR(absolute(name)?)),
    };
    Some(Record::from_rdata(owner, data.ttl(), value))
}

#[cfg(test)]
pub(crate) mod tests;
