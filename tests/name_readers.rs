//! The readers of names against another DNS library, and against octets that nobody meant.

use egret::capture::offline::Reader;
use egret::names::{dns, http, quic, tls};
use egret::packet::{Address, Fragments, Protocol, decode};
use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, HTTPS, OPT, RData, SVCB, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use crate::support::data;

proptest! {
    #[test]
    fn messages_that_another_library_writes_are_read(
        id in any::<u16>(),
        question in name(),
        records in proptest::collection::vec((name(), 0u8..6, any::<u128>(), 0u32..100_000, name()), 0..12),
        sections in any::<u64>(),
        compressed in any::<bool>(),
    ) {
        let mut written = Packet::new_reply(id);
        written.set_flags(PacketFlag::RESPONSE);
        written.questions.push(Question::new(
            Name::new_unchecked(&question), QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false,
        ));
        for (index, (owner, kind, number, ttl, other)) in records.iter().enumerate() {
            let record = ResourceRecord::new(Name::new_unchecked(owner), CLASS::IN, *ttl, rdata(*kind, *number, other));
            match sections >> (2 * index) & 3 {
                0 => written.name_servers.push(record),
                1 => written.additional_records.push(record),
                _ => written.answers.push(record),
            }
        }
        *written.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: 1232, version: 0 });
        let bytes = match compressed {
            true => written.build_bytes_vec_compressed().unwrap(),
            false => written.build_bytes_vec().unwrap(),
        };
        let read = dns::Message::read(&bytes).unwrap();
        prop_assert!(read.is_response && !read.cut);
        prop_assert_eq!(read.id, id);
        prop_assert_eq!(&read.question.as_ref().unwrap().name, &question.to_ascii_lowercase());
        prop_assert_eq!(ours(&read), theirs(&written));
    }

    #[test]
    fn no_octets_break_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600), first in 0usize..6) {
        // Random octets rarely get past a magic number, so give them one.
        let start: &[u8] = [
            b"".as_slice(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x01\x00\x01\xfc\x03\x03",
            b"\xc3\0\0\0\x01\x08", b"GET / HTTP/1.1\r\nHost:", b"\0\x01\x81\x80\0\x01\0\x05\0\x05\0\x05\x01a\0\0\x01\0\x01",
        ][first];
        read_all(&[start, &bytes].concat());
    }
}

#[test]
fn messages_of_captures_are_read_as_another_library_reads_them() {
    let mut compared = 0;
    for payload in payloads_of_captures() {
        // It refuses what is odd, so only what it takes is compared.
        let (Ok(theirs_read), Some(ours_read)) = (Packet::parse(&payload), dns::Message::read(&payload)) else {
            continue;
        };
        if theirs_read.questions.len() != 1 {
            continue;
        }
        assert_eq!(ours_read.id, theirs_read.id());
        assert_eq!(ours(&ours_read), theirs(&theirs_read));
        compared += 1;
    }
    assert!(compared > 300 || data::path("captures").is_none(), "{compared}");
}

#[test]
fn damaged_payloads_of_captures_break_no_reader() {
    let mut random = fastrand::Rng::with_seed(7);
    for mut payload in payloads_of_captures() {
        for _ in 0..20 {
            if !payload.is_empty() {
                let at = random.usize(..payload.len());
                payload[at] = random.u8(..);
            }
            read_all(&payload[..random.usize(..=payload.len())]);
        }
    }
}

fn read_all(bytes: &[u8]) {
    if let Some(message) = dns::Message::read(bytes) {
        assert!(message.bound_addresses().len() <= message.records.len());
        assert!(message.records.iter().all(|record| record.name.len() <= 4 * 255));
    }
    if let Some(hello) = tls::read_records(bytes).or_else(|| tls::read_handshake(bytes)) {
        assert!(hello.server_name.is_none_or(|name| !name.is_empty() && name.is_ascii()));
    }
    if let Some(request) = http::read_request(bytes) {
        assert!(request.host.is_none_or(|host| !host.is_empty() && host.is_ascii()));
    }
    let mut opener = quic::Opener::default();
    opener.read(bytes);
}

/// The payloads of all packets to or from a port of names, and the first of other flows.
fn payloads_of_captures() -> Vec<Vec<u8>> {
    let Some(root) = data::path("captures") else { return Vec::new() };
    let mut payloads = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let Ok(mut reader) = Reader::open(&file.unwrap().path()) else { continue };
            let mut fragments = Fragments::default();
            let mut others = 0;
            while let Some(batch) = reader.next_batch() {
                for record in batch {
                    let Ok(packet) = decode(&record.frame, &mut fragments) else { continue };
                    let tuple = packet.five_tuple;
                    let is_dns =
                        tuple.protocol == Protocol::UDP && (tuple.source.port == 53 || tuple.destination.port == 53);
                    others += u32::from(!is_dns);
                    if is_dns || others < 50 {
                        payloads.push(packet.payload.to_vec());
                    }
                }
            }
        }
    }
    payloads
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec("[a-zA-Z0-9_-]{1,12}", 1..5).prop_map(|labels| labels.join("."))
}

fn rdata(kind: u8, number: u128, other: &str) -> RData<'_> {
    match kind {
        0 => RData::A(A { address: number as u32 }),
        1 => RData::AAAA(AAAA { address: number }),
        2 => RData::CNAME(CNAME(Name::new_unchecked(other))),
        3 => RData::TXT(TXT::new().with_string("v=spf1 -all").unwrap()),
        kind => {
            let target = if kind == 4 { Name::new_unchecked("") } else { Name::new_unchecked(other) };
            let mut service = SVCB::new(1, target);
            service.set_port(443);
            service.set_ipv4hint(&[number as u32, 7]);
            service.set_ipv6hint(&[number]);
            RData::HTTPS(HTTPS(service))
        }
    }
}

type Rows = Vec<(String, u32, dns::Section, String)>;

fn ours(message: &dns::Message) -> Rows {
    let row = |record: &dns::Record| {
        let text = match &record.data {
            dns::Data::Address(address) => address.to_string(),
            dns::Data::Alias(name) => name.clone(),
        };
        (record.name.clone(), record.ttl, record.section, text)
    };
    message.records.iter().map(row).collect()
}

fn theirs(packet: &Packet<'_>) -> Rows {
    let sections = [
        (&packet.answers, dns::Section::Answer),
        (&packet.name_servers, dns::Section::Authority),
        (&packet.additional_records, dns::Section::Additional),
    ];
    let mut rows = Vec::new();
    for (records, section) in sections {
        for record in records {
            for text in texts(&record.rdata) {
                rows.push((record.name.to_string().to_ascii_lowercase(), record.ttl, section, text));
            }
        }
    }
    rows
}

fn texts(data: &RData<'_>) -> Vec<String> {
    let v4 = |address: u32| Address::from_v4(address.to_be_bytes()).to_string();
    let v6 = |address: u128| Address::from_v6(address.to_be_bytes()).to_string();
    match data {
        RData::A(data) => vec![v4(data.address)],
        RData::AAAA(data) => vec![v6(data.address)],
        RData::CNAME(data) => vec![data.0.to_string().to_ascii_lowercase()],
        RData::HTTPS(HTTPS(data)) | RData::SVCB(data) => {
            let target = data.target.to_string().to_ascii_lowercase();
            let mut texts: Vec<String> = Some(target).filter(|target| !target.is_empty()).into_iter().collect();
            for param in data.iter_params() {
                match param {
                    simple_dns::rdata::SVCParam::Ipv4Hint(hints) => texts.extend(hints.iter().map(|hint| v4(*hint))),
                    simple_dns::rdata::SVCParam::Ipv6Hint(hints) => texts.extend(hints.iter().map(|hint| v6(*hint))),
                    _ => {}
                }
            }
            texts
        }
        _ => Vec::new(),
    }
}
