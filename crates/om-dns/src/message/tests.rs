//! What is answered to queries, and that no bytes make it stumble.

use std::collections::BTreeMap;

use hickory_proto::op::Metadata;
use om_core::{view::View, zone::Ground};
use proptest::prelude::*;
use std::time::Duration;

use super::*;

/// The zone of a cluster with so many servers, each with an address, and no services.
pub(crate) fn zone_of(cluster: &str, servers: u8) -> Zone {
    let view = View {
        me: "a".parse().unwrap(),
        members: Vec::new(),
        now: Duration::ZERO,
        wall: 0,
        renewed: None,
        soft_stop: Duration::ZERO,
        nodes: BTreeMap::new(),
        objects: BTreeMap::new(),
    };
    let servers = (1..=servers).map(|last| IpAddr::from([169, 254, 53, last])).collect();
    let networks = vec!["10.22.0.0/16".parse().unwrap()];
    Zone::of(&view, &Ground { cluster: cluster.into(), servers, networks, ..Ground::default() }, 7)
}

fn zone(servers: u8) -> Zone {
    zone_of("homepool2", servers)
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut query = Message::new(9, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query.edns = payload.map(|payload| {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        edns
    });
    query
}

fn reply(step: Step) -> Option<Message> {
    match step {
        Step::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap()),
        Step::Forward | Step::Ignore => None,
    }
}

#[test]
fn the_zone_answers() {
    let check = |name: &str, kind: RecordType, expected: &str| {
        let query = query(name, kind, None);
        let step = step(&query.to_vec().unwrap(), &zone(1), Transport::Datagram);
        let shown = match reply(step.clone()) {
            None => format!("{step:?}"),
            Some(reply) => {
                let Metadata { id, authoritative, recursion_desired, recursion_available, .. } = reply.metadata;
                assert!((id, authoritative, recursion_desired, recursion_available) == (9, true, true, true), "{name}");
                assert_eq!(reply.queries, query.queries);
                let all = |records: &[Record]| {
                    records.iter().map(|r| format!("{} {} {}", r.name, r.ttl, r.data)).collect::<Vec<_>>().join(", ")
                };
                let code = reply.metadata.response_code;
                format!("{code:?}: {}; {}; {}", all(&reply.answers), all(&reply.authorities), all(&reply.additionals))
            }
        };
        assert_eq!(shown, expected, "{name} {kind}");
    };
    let no = "homepool2. 5 ns1.homepool2. hostmaster.homepool2. 7 7200 3600 432000 5";
    check("ns1.homepool2.", RecordType::A, "NoError: ns1.homepool2. 5 169.254.53.1; ; ");
    // The spelling of the client comes back.
    check("NS1.HomePool2.", RecordType::A, "NoError: NS1.HomePool2. 5 169.254.53.1; ; ");
    check("ns1.homepool2.", RecordType::AAAA, &format!("NoError: ; {no}; "));
    check("absent.test.svc.homepool2.", RecordType::A, &format!("NXDomain: ; {no}; "));
    check("homepool2.", RecordType::NS, "NoError: homepool2. 3600 ns1.homepool2.; ; ns1.homepool2. 5 169.254.53.1");
    check("homepool2.", RecordType::SOA, &format!("NoError: {no}; ; "));
    check("2.0.22.10.in-addr.arpa.", RecordType::PTR, "NXDomain: ; ; ");
    check("example.org.", RecordType::A, "Forward");
    check(".", RecordType::NS, "Forward");
}

#[test]
fn what_is_no_question_to_us_is_refused() {
    let check = |what: &str, bytes: &[u8], expected: Option<ResponseCode>| {
        let step = step(bytes, &zone(1), Transport::Datagram);
        // 16 has two names, of which either is read.
        let number = |code: ResponseCode| u16::from(code);
        assert_eq!(reply(step).map(|reply| number(reply.metadata.response_code)), expected.map(number), "{what}");
    };
    let of = |change: &dyn Fn(&mut Message)| {
        let mut message = query("ns1.homepool2.", RecordType::A, Some(1232));
        change(&mut message);
        message.to_vec().unwrap()
    };
    check("a transfer", &query("homepool2.", RecordType::AXFR, None).to_vec().unwrap(), Some(ResponseCode::Refused));
    check("another class", &of(&|m| m.queries[0].query_class = DNSClass::CH), Some(ResponseCode::Refused));
    check("an update", &of(&|m| m.metadata.op_code = OpCode::Update), Some(ResponseCode::NotImp));
    check("no question", &of(&|m| m.queries.clear()), Some(ResponseCode::FormErr));
    check("two questions", &of(&|m| m.queries.push(m.queries[0].clone())), Some(ResponseCode::FormErr));
    let newer = of(&|m| {
        m.edns.as_mut().unwrap().set_version(1);
    });
    check("a newer EDNS", &newer, Some(ResponseCode::BADVERS));
    check("cut", &of(&|_| {})[..20], Some(ResponseCode::FormErr));
    check("half a header", &[0; 11], None);
    check("nothing", &[], None);
    check("an answer", &of(&|m| m.metadata.message_type = MessageType::Response), None);
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_for_again() {
    let check = |servers: u8, payload: Option<u16>, transport: Transport, cut: bool| {
        let bytes = query("homepool2.", RecordType::NS, payload).to_vec().unwrap();
        let Step::Reply(answer) = step(&bytes, &zone(servers), transport) else { panic!("no reply") };
        let reply = Message::from_vec(&answer).unwrap();
        assert_eq!(reply.metadata.truncation, cut, "{servers} {payload:?} {transport:?}");
        assert_eq!(reply.edns.is_some(), payload.is_some());
        if transport == Transport::Datagram {
            let limit = payload.map_or(512, |payload| payload.clamp(512, 1232));
            assert!(answer.len() <= usize::from(limit), "{} bytes", answer.len());
        }
    };
    check(10, None, Transport::Datagram, false);
    check(40, None, Transport::Datagram, true);
    check(20, Some(1232), Transport::Datagram, false);
    check(20, Some(100), Transport::Datagram, true);
    check(200, Some(65535), Transport::Datagram, true);
    check(200, None, Transport::Stream, false);
}

#[test]
fn only_the_answer_to_what_was_asked_is_taken() {
    let asked = query("example.org.", RecordType::A, None).to_vec().unwrap();
    let reply = |id: u16, name: &str, kind: RecordType| {
        let mut reply = Message::response(id, OpCode::Query);
        reply.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        reply.to_vec().unwrap()
    };
    assert!(is_reply(&asked, 3, &reply(3, "example.org.", RecordType::A)));
    assert!(!is_reply(&asked, 3, &reply(4, "example.org.", RecordType::A)));
    assert!(!is_reply(&asked, 3, &reply(3, "example.com.", RecordType::A)));
    assert!(!is_reply(&asked, 3, &reply(3, "example.org.", RecordType::AAAA)));
    assert!(!is_reply(&asked, 9, &asked));
    assert!(!is_reply(&asked, 3, &[]));
}

proptest! {
    #[test]
    fn no_bytes_make_it_stumble(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec((0_usize..60, any::<u8>()), 0..6),
    ) {
        let zone = zone(3);
        let mut changed = query("ns1.homepool2.", RecordType::ANY, Some(1232)).to_vec().unwrap();
        for (at, value) in cuts {
            if let Some(byte) = changed.get_mut(at) {
                *byte = value;
            }
        }
        for query in [bytes, changed] {
            for transport in [Transport::Datagram, Transport::Stream] {
                if let Step::Reply(answer) = step(&query, &zone, transport) {
                    prop_assert_eq!(&answer[..2], &query[..2]);
                    prop_assert!(Message::from_vec(&answer).unwrap().metadata.message_type == MessageType::Response);
                    prop_assert!(transport == Transport::Stream || answer.len() <= 1232);
                }
            }
            is_reply(&query, 9, &query);
        }
    }
}
