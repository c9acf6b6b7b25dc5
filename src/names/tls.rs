//! Reads a ClientHello as far as it has arrived (RFC 8446, section 4.1.2).
//!
//! The server name mostly stands long before the end, so what is cut by the
//! snapshot length still gives it.

use std::borrow::Cow;

/// What a ClientHello says in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name (RFC 6066, section 3), as the client wrote it but in lower case.
    pub server_name: Option<String>,
    /// The protocols offered (RFC 7301), such as `h2`.
    pub protocols: Vec<String>,
    /// Whether the true ClientHello is encrypted within (RFC 9849).
    pub encrypted: bool,
    /// Whether all of it was there.
    pub complete: bool,
}

/// Whether a payload begins as TLS does: any record of versions 3.0 to 3.4.
pub(super) fn is_record(payload: &[u8]) -> bool {
    match payload {
        // No record is empty but for application data (RFC 8446, section 5.1).
        &[kind @ 20..=23, 3, 0..=4, high, low, ..] => {
            let length = u16::from_be_bytes([high, low]);
            length <= MAX_RECORD && (length > 0 || kind == 23)
        }
        _ => false,
    }
}

/// Whether a payload begins with a handshake record whose message is a ClientHello.
pub(super) fn begins_client_hello(payload: &[u8]) -> bool {
    is_record(payload)
        && payload.first() == Some(&RECORD_HANDSHAKE)
        && payload.get(5).is_none_or(|kind| *kind == CLIENT_HELLO)
}

/// Reads the ClientHello in the records at the start of a connection.
pub fn read_records(bytes: &[u8]) -> Option<ClientHello> {
    read_handshake(&handshake_of(bytes)?)
}

/// Reads a ClientHello without records around it, as QUIC carries it.
pub fn read_handshake(message: &[u8]) -> Option<ClientHello> {
    let [CLIENT_HELLO, a, b, c, rest @ ..] = message else { return None };
    let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    let mut hello = ClientHello::default();
    let mut body = Cursor(rest.get(..length).unwrap_or(rest));
    if read_body(&mut body, &mut hello).is_some() {
        hello.complete = rest.len() >= length;
    }
    Some(hello)
}

/// The handshake messages in the records, joined where there are several.
fn handshake_of(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut joined: Option<Cow<'_, [u8]>> = None;
    let mut rest = bytes;
    while let [RECORD_HANDSHAKE, 3, 0..=4, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let fragment = after.get(..length).unwrap_or(after);
        match &mut joined {
            None => joined = Some(Cow::Borrowed(fragment)),
            Some(joined) => joined.to_mut().extend_from_slice(fragment),
        }
        rest = after.get(length..).unwrap_or_default();
    }
    joined
}

/// `None` where it ended too early.
fn read_body(body: &mut Cursor<'_>, hello: &mut ClientHello) -> Option<()> {
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    if body.0.is_empty() {
        return Some(());
    }
    let length = usize::from(body.u16()?);
    let whole = body.0.len() >= length;
    let mut extensions = Cursor(body.0.get(..length).unwrap_or(body.0));
    while let Some(kind) = extensions.u16() {
        let length = usize::from(extensions.u16()?);
        let available = length.min(extensions.0.len());
        let cut = available < length;
        let data = extensions.take(available)?;
        match kind {
            EXTENSION_SERVER_NAME if hello.server_name.is_none() => hello.server_name = server_name(data),
            EXTENSION_PROTOCOLS if !cut => hello.protocols = protocols(data),
            EXTENSION_ENCRYPTED_HELLO => hello.encrypted = true,
            _ => {}
        }
        if cut {
            return None;
        }
    }
    whole.then_some(())
}

fn server_name(data: &[u8]) -> Option<String> {
    let mut list = Cursor(data);
    list.u16()?;
    while let [kind, rest @ ..] = list.0 {
        list.0 = rest;
        let name = list.vector16()?;
        if *kind == NAME_HOST {
            return readable(name);
        }
    }
    None
}

/// A name that could be shown: what else stands there is no name.
fn readable(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let plain = !name.is_empty() && name.len() <= MAX_NAME && name.iter().all(u8::is_ascii_graphic);
    plain.then(|| name.iter().map(|octet| char::from(octet.to_ascii_lowercase())).collect())
}

fn protocols(data: &[u8]) -> Vec<String> {
    let mut list = Cursor(data);
    let mut protocols = Vec::new();
    if list.u16().is_some() {
        while let Some(protocol) = list.vector8()
            && protocols.len() < MAX_PROTOCOLS
        {
            protocols.push(protocol.escape_ascii().to_string());
        }
    }
    protocols
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let (octets, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*octets))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take(usize::from(*length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const NAME_HOST: u8 = 0;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_PROTOCOLS: u16 = 16;
const EXTENSION_ENCRYPTED_HELLO: u16 = 0xfe0d;

/// The largest record, with what encryption may add (RFC 8446, section 5.2).
const MAX_RECORD: u16 = 16_384 + 256;

/// The longest domain name, with room for the ports and brackets that some clients leave in.
const MAX_NAME: usize = 255;

/// Protocols kept of one offer.
const MAX_PROTOCOLS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello with these extensions, without a record around it.
    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, data) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            list.extend(data);
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
        body.extend(list);
        let mut message = vec![1, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn record(fragment: &[u8]) -> Vec<u8> {
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(fragment.len()).unwrap().to_be_bytes());
        record.extend(fragment);
        record
    }

    fn name(text: &str) -> (u16, Vec<u8>) {
        let length = u16::try_from(text.len()).unwrap();
        let list = [(length + 3).to_be_bytes().as_slice(), &[0], &length.to_be_bytes(), text.as_bytes()].concat();
        (0, list)
    }

    #[test]
    fn the_name_and_the_protocols_are_read() {
        let message = hello(&[name("Up.Example.NET."), (16, b"\0\x0c\x02h2\x08http/1.1".to_vec())]);
        let read = read_records(&record(&message)).unwrap();
        assert_eq!(read.server_name.as_deref(), Some("up.example.net"));
        assert_eq!(read.protocols, ["h2", "http/1.1"]);
        assert!(read.complete && !read.encrypted);
        assert_eq!(read_handshake(&message).unwrap(), read);
    }

    #[test]
    fn a_name_survives_every_way_of_cutting() {
        let large = (51, vec![0; 1200]);
        let message = hello(&[large, name("pq.example"), (0xfe0d, vec![0; 8])]);
        let whole = record(&message);
        let name_end = whole.len() - 12;
        for end in 0..whole.len() {
            let read = read_records(&whole[..end]);
            let found = read.as_ref().and_then(|hello| hello.server_name.as_deref());
            assert_eq!(found, (end >= name_end).then_some("pq.example"), "{end}");
            assert!(!read.is_some_and(|hello| hello.complete));
        }
        let two_records = [record(&message[..100]), record(&message[100..])].concat();
        let read = read_records(&two_records).unwrap();
        assert!(read.complete && read.encrypted);
        assert_eq!(read.server_name.as_deref(), Some("pq.example"));
    }

    #[test]
    fn what_is_no_name_is_not_shown() {
        let read = read_handshake(&hello(&[name("a\u{1b}[2Jb")])).unwrap();
        assert_eq!(read.server_name, None);
        assert!(read.complete);
        assert_eq!(read_records(b"\x16\x03\x01\0\x04\x02\0\0\0"), None);
        assert_eq!(read_records(b"GET / HTTP/1.1\r\n"), None);
        assert!(
            is_record(b"\x17\x03\x03\0\0") && !is_record(b"\x16\x03\x01\0\0\0") && !is_record(b"\x16\x03\x01\xff\xff")
        );
    }
}
