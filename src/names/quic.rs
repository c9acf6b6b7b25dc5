//! Opens the Initial packets with which a QUIC connection begins (RFC 9001,
//! section 5.2; RFC 9369 for version 2): their keys follow from the packet
//! itself, and the ClientHello is in their CRYPTO frames.
//!
//! It costs two key derivations and a decryption a packet, so a flow has a
//! small allowance of them.

use ring::aead::quic::{AES_128 as HEADER_AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use smallvec::SmallVec;

use crate::names::stream::Stream;
use crate::names::tls::{self, ClientHello};

/// What the Initial packets of one connection have said so far.
#[derive(Debug)]
pub struct Opener {
    keys: Option<(SmallVec<[u8; 20]>, Keys)>,
    crypto: Stream,
    allowance: u8,
}

impl Default for Opener {
    fn default() -> Self {
        Self { keys: None, crypto: Stream::default(), allowance: MAX_ATTEMPTS }
    }
}

impl Opener {
    /// Reads the Initial packets in a datagram that the client sent, and gives what its ClientHello says so far.
    pub fn read(&mut self, datagram: &[u8]) -> Option<ClientHello> {
        let mut rest = datagram;
        while let Some(packet) = LongPacket::read(rest) {
            if packet.is_initial {
                self.open(&packet);
            }
            rest = rest.get(packet.bytes.len()..).unwrap_or_default();
        }
        tls::read_handshake(self.crypto.start())
    }

    /// Whether another datagram would be read.
    pub fn is_exhausted(&self) -> bool {
        self.allowance == 0 || self.crypto.is_full()
    }

    /// After a server's answer the client addresses what the server chose, but the keys stay
    /// those of its first packet; after a Retry they change (RFC 9001, section 5.2).
    fn open(&mut self, packet: &LongPacket<'_>) {
        if self.is_exhausted() {
            return;
        }
        self.allowance -= 1;
        if let Some((_, keys)) = &self.keys
            && let Some(frames) = keys.open(packet)
        {
            read_frames(&frames, &mut self.crypto);
            return;
        }
        if self.keys.as_ref().is_some_and(|(id, _)| id.as_slice() == packet.destination_id) {
            return;
        }
        let Some(keys) = Keys::of_client(packet.version, packet.destination_id) else { return };
        if let Some(frames) = keys.open(packet) {
            if self.keys.is_some() {
                self.crypto = Stream::default();
            }
            read_frames(&frames, &mut self.crypto);
            self.keys = Some((packet.destination_id.into(), keys));
        }
    }
}

/// Whether a datagram begins as a QUIC connection does: a long header of a version that is in use.
pub(super) fn begins(datagram: &[u8]) -> bool {
    match datagram {
        &[first, a, b, c, d, id_length, ..] => {
            let version = u32::from_be_bytes([a, b, c, d]);
            // The last drafts (29 to 34) are still spoken; 0 is a version negotiation.
            let known = Version::of(version).is_some() || matches!(version, 0 | 0xff00_001d..=0xff00_0022);
            first & 0x80 != 0 && known && usize::from(id_length) <= MAX_ID && datagram.len() >= MIN_DATAGRAM
        }
        _ => false,
    }
}

/// A packet with a long header (RFC 9000, section 17.2).
struct LongPacket<'a> {
    version: Version,
    is_initial: bool,
    destination_id: &'a [u8],
    /// Where the protected packet number begins.
    number_at: usize,
    /// The packet without those that follow it in the datagram.
    bytes: &'a [u8],
}

impl<'a> LongPacket<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let first = reader.u8()?;
        let version = Version::of(u32::from_be_bytes(*reader.take(4)?.first_chunk()?))?;
        if first & 0xc0 != 0xc0 {
            return None;
        }
        let destination_id = reader.id()?;
        reader.id()?;
        let kind = first >> 4 & 3;
        // A Retry has no length and nothing after it.
        if kind == version.retry_kind() {
            return None;
        }
        let is_initial = kind == version.initial_kind();
        if is_initial {
            let token = reader.varint()?;
            reader.take(usize::try_from(token).ok()?)?;
        }
        let length = usize::try_from(reader.varint()?).ok()?;
        let end = reader.at.checked_add(length)?;
        Some(Self { version, is_initial, destination_id, number_at: reader.at, bytes: bytes.get(..end)? })
    }
}

/// The versions whose Initial packets can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::One),
            0x6b33_43cf => Some(Self::Two),
            _ => None,
        }
    }

    fn initial_kind(self) -> u8 {
        match self {
            Self::One => 0,
            Self::Two => 1,
        }
    }

    fn retry_kind(self) -> u8 {
        match self {
            Self::One => 3,
            Self::Two => 0,
        }
    }

    fn salt(self) -> &'static [u8; 20] {
        match self {
            Self::One => &[
                0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc,
                0xbb, 0x7f, 0x0a,
            ],
            Self::Two => &[
                0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9,
                0xbd, 0x2e, 0xd9,
            ],
        }
    }

    /// The labels of key, initialisation vector and header protection.
    fn labels(self) -> [&'static str; 3] {
        match self {
            Self::One => ["quic key", "quic iv", "quic hp"],
            Self::Two => ["quicv2 key", "quicv2 iv", "quicv2 hp"],
        }
    }
}

/// What protects a client's Initial packets.
struct Keys {
    key: LessSafeKey,
    vector: [u8; 12],
    header: HeaderProtectionKey,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    fn of_client(version: Version, destination_id: &[u8]) -> Option<Self> {
        let initial = Salt::new(HKDF_SHA256, version.salt()).extract(destination_id);
        let client = Prk::new_less_safe(HKDF_SHA256, &expand::<32>(&initial, "client in")?);
        let [key, vector, header] = version.labels();
        Some(Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &expand::<16>(&client, key)?).ok()?),
            vector: expand(&client, vector)?,
            header: HeaderProtectionKey::new(&HEADER_AES_128, &expand::<16>(&client, header)?).ok()?,
        })
    }

    /// The frames of a packet, if these are its keys (RFC 9001, sections 5.3 and 5.4).
    fn open(&self, packet: &LongPacket<'_>) -> Option<Vec<u8>> {
        let sample = packet.bytes.get(packet.number_at + 4..)?.get(..HEADER_AES_128.sample_len())?;
        let mask = self.header.new_mask(sample).ok()?;
        let mut plain = packet.bytes.to_vec();
        let first = plain.first_mut()?;
        *first ^= mask[0] & 0x0f;
        let number_length = usize::from(*first & 3) + 1;
        let mut number = 0u64;
        for (at, mask) in (packet.number_at..packet.number_at + number_length).zip(mask.get(1..)?) {
            let octet = plain.get_mut(at)?;
            *octet ^= mask;
            number = number << 8 | u64::from(*octet);
        }
        let mut nonce = self.vector;
        for (octet, number) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *octet ^= number;
        }
        let (header, body) = plain.split_at_mut_checked(packet.number_at + number_length)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, Aad::from(&*header), body).ok().map(|frames| frames.to_vec())
    }
}

/// HKDF-Expand-Label of TLS 1.3 with an empty context (RFC 8446, section 7.1).
fn expand<const N: usize>(secret: &Prk, label: &str) -> Option<[u8; N]> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let label_length = [u8::try_from(LABEL_PREFIX.len() + label.len()).ok()?];
    let mut octets = [0; N];
    secret
        .expand(&[&length, &label_length, LABEL_PREFIX, label.as_bytes(), &[0]], Length(N))
        .and_then(|okm| okm.fill(&mut octets))
        .ok()?;
    Some(octets)
}

/// Adds the data of CRYPTO frames (RFC 9000, section 12.4; an Initial packet has few kinds of frames).
fn read_frames(frames: &[u8], crypto: &mut Stream) -> Option<()> {
    let mut reader = Reader { bytes: frames, at: 0 };
    while reader.at < frames.len() {
        match reader.varint()? {
            FRAME_PADDING | FRAME_PING => {}
            kind @ (FRAME_ACK | FRAME_ACK_ECN) => {
                reader.varint()?;
                reader.varint()?;
                let ranges = reader.varint()?;
                reader.varint()?;
                let counts = if kind == FRAME_ACK_ECN { 3 } else { 0 };
                for _ in 0..ranges.saturating_mul(2).saturating_add(counts) {
                    reader.varint()?;
                }
            }
            FRAME_CRYPTO => {
                let offset = usize::try_from(reader.varint()?).ok()?;
                let length = usize::try_from(reader.varint()?).ok()?;
                crypto.add(offset, reader.take(length)?);
            }
            _ => return None,
        }
    }
    Some(())
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A connection id (RFC 9000, section 17.2).
    fn id(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u8()?);
        if length > MAX_ID { None } else { self.take(length) }
    }

    /// A number of one, two, four or eight octets (RFC 9000, section 16).
    fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        let more = self.take((1 << (first >> 6)) - 1)?;
        Some(more.iter().fold(u64::from(first & 0x3f), |value, octet| value << 8 | u64::from(*octet)))
    }
}

const LABEL_PREFIX: &[u8] = b"tls13 ";

const FRAME_PADDING: u64 = 0;
const FRAME_PING: u64 = 1;
const FRAME_ACK: u64 = 2;
const FRAME_ACK_ECN: u64 = 3;
const FRAME_CRYPTO: u64 = 6;

/// The longest connection id (RFC 9000, section 17.2).
const MAX_ID: usize = 20;

/// Packets that are opened for one connection: a ClientHello over four, twice after a Retry.
const MAX_ATTEMPTS: u8 = 8;

/// Shorter datagrams hold no long header with a packet behind it.
const MIN_DATAGRAM: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

    /// The CRYPTO frame of RFC 9001, appendix A.2: a ClientHello for `example.com`.
    const FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c0000041301\
        1302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e0005\
        00050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304\
        000d0010000e0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000\
        ffff0801100104800075300901100f088394c8f03e51570806048000ffff";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
    }

    /// An Initial packet with these frames, protected as a client does it.
    fn seal(version: Version, id: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
        let (first, version_number) = match version {
            Version::One => (0xc3, 1u32),
            Version::Two => (0xd3, 0x6b33_43cf),
        };
        let mut packet = vec![first];
        packet.extend(version_number.to_be_bytes());
        packet.push(u8::try_from(id.len()).unwrap());
        packet.extend(id);
        packet.extend([0, 0]);
        packet.extend((0x4000 | u16::try_from(frames.len() + 4 + 16).unwrap()).to_be_bytes());
        let number_at = packet.len();
        packet.extend(number.to_be_bytes());
        let keys = Keys::of_client(version, id).unwrap();
        let mut nonce = keys.vector;
        for (octet, number) in nonce.iter_mut().rev().zip(number.to_le_bytes()) {
            *octet ^= number;
        }
        let mut body = frames.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        keys.key.seal_in_place_append_tag(nonce, Aad::from(&packet), &mut body).unwrap();
        packet.extend(body);
        let mask = keys.header.new_mask(&packet[number_at + 4..number_at + 20]).unwrap();
        packet[0] ^= mask[0] & 0x0f;
        for (octet, mask) in packet[number_at..number_at + 4].iter_mut().zip(&mask[1..]) {
            *octet ^= mask;
        }
        packet
    }

    fn crypto(offset: u16, data: &[u8]) -> Vec<u8> {
        let mut frame = vec![6];
        frame.extend((0x4000 | offset).to_be_bytes());
        frame.extend((0x4000 | u16::try_from(data.len()).unwrap()).to_be_bytes());
        frame.extend(data);
        frame
    }

    #[test]
    fn the_packets_of_the_standards_are_opened() {
        let mut frames = bytes(FRAME);
        frames.resize(1162, 0);
        // The last sixteen octets authenticate all of the packet.
        let expected = [
            (Version::One, "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98d", "e221af44860018ab0856972e194cd934"),
            (Version::Two, "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6a", "a18b2faa745b6fe189cf772a9f84cbfc"),
        ];
        for (version, start, end) in expected {
            let packet = seal(version, &ID, 2, &frames);
            assert_eq!(packet.len(), 1200);
            assert!(packet.starts_with(&bytes(start)) && packet.ends_with(&bytes(end)), "{version:?}");
            assert!(begins(&packet));
            let hello = Opener::default().read(&packet).unwrap();
            assert_eq!(hello.server_name.as_deref(), Some("example.com"));
            assert_eq!(hello.protocols, ["alpn"]);
            assert!(hello.complete);
        }
    }

    #[test]
    fn pieces_in_any_order_over_coalesced_packets_give_the_name() {
        let hello = &bytes(FRAME)[4..];
        let late = [crypto(200, &hello[200..]), vec![0, 1], crypto(20, &hello[20..90])].concat();
        let early = [vec![2, 0, 0, 0, 0], crypto(90, &hello[90..200]), crypto(0, &hello[..20])].concat();
        let mut opener = Opener::default();
        let first = seal(Version::One, &ID, 0, &late);
        assert_eq!(opener.read(&first), None);
        // A Handshake packet stands before the other Initial packet in the datagram.
        let keys = seal(Version::One, &ID, 7, &early);
        let coalesced = [b"\xe0\0\0\0\x01\0\0\x02\xaa\xbb".to_vec(), keys].concat();
        let read = opener.read(&coalesced).unwrap();
        assert_eq!(read.server_name.as_deref(), Some("example.com"));
        assert!(read.complete);
    }

    #[test]
    fn a_retry_begins_anew_with_new_keys() {
        let hello = &bytes(FRAME)[4..];
        let mut opener = Opener::default();
        assert_eq!(opener.read(&seal(Version::One, &ID, 0, &crypto(100, &hello[100..]))), None);
        let read = opener.read(&seal(Version::One, b"retried", 1, &crypto(0, hello))).unwrap();
        assert!(read.complete);
    }

    #[test]
    fn an_attacker_cannot_make_it_work_for_long() {
        let mut opener = Opener::default();
        let mut packet = seal(Version::One, &ID, 0, &crypto(0, &[0; 64]));
        *packet.last_mut().unwrap() ^= 1;
        for _ in 0..100 {
            assert_eq!(opener.read(&packet), None);
        }
        assert!(opener.is_exhausted());
        for end in 0..packet.len() {
            assert_eq!(Opener::default().read(&packet[..end]), None);
        }
    }
}
