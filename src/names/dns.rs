//! Reads DNS messages as they pass (RFC 1035), without believing them.
//!
//! A resolver refuses a message with one odd octet; a watcher must not, or one
//! odd octet hides a look-up. Counts that are wrong, types that nobody knows,
//! a message that is cut by the snapshot length: what can be read is given.

use smallvec::SmallVec;

use crate::packet::Address;

/// One message, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What joins an answer to its question.
    pub id: u16,
    /// Whether this is an answer.
    pub is_response: bool,
    /// The sender had more than the transport could carry.
    pub truncated: bool,
    /// The response code; 0 is success, 3 is "no such name".
    pub response_code: u8,
    /// The first question.
    pub question: Option<Question>,
    /// Records that say something about a name's addresses.
    pub records: SmallVec<[Record; 4]>,
    /// Whether reading stopped before the counts in the header said so.
    pub cut: bool,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name, lower case, without a trailing dot; odd octets as `\255`.
    pub name: String,
    /// The octets of the name, dots included, however they are shown.
    pub name_bytes: u16,
    /// The record type asked for.
    pub record_type: u16,
}

/// A record about addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose record this is, spelt as a question's name is.
    pub name: String,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    /// In which part of the message it stood.
    pub section: Section,
    /// What it says.
    pub data: Data,
}

/// The part of a message in which a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who could be asked.
    Authority,
    /// What may be of use, such as addresses of name servers.
    Additional,
}

/// What a record says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Its address (A, AAAA), or one that a service record hints at.
    Address(Address),
    /// Its other name (CNAME, or SVCB and HTTPS with a target).
    Alias(String),
}

impl Message {
    /// Reads a message; `None` for what cannot be one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; 12] = bytes.first_chunk()?;
        let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = field(2);
        // Only queries have names of hosts in these places (RFC 1035, section 4.1.1).
        if flags & 0x7800 != 0 {
            return None;
        }
        let counts = [field(6), field(8), field(10)];
        let mut reader = Reader { message: bytes, at: header.len() };
        let mut made = Self {
            id: field(0),
            is_response: flags & 0x8000 != 0,
            truncated: flags & 0x0200 != 0,
            response_code: (flags & 0x000f) as u8,
            question: None,
            records: SmallVec::new(),
            cut: false,
        };
        if made.read_body(&mut reader, field(4), counts).is_none() {
            made.cut = true;
        }
        // A first question that makes no sense means that this was no DNS message.
        (made.question.is_some() || field(4) == 0 && made.is_response && !made.records.is_empty()).then_some(made)
    }

    /// `None` where the message ended too early.
    fn read_body(&mut self, reader: &mut Reader<'_>, questions: u16, counts: [u16; 3]) -> Option<()> {
        for index in 0..questions {
            let start = reader.at;
            let name = reader.name()?;
            // Each label has an octet before it, where the text has a dot between two, and the root has one.
            let name_bytes = u16::try_from((reader.at - start).saturating_sub(2)).unwrap_or(u16::MAX);
            let record_type = reader.u16()?;
            if index == 0 {
                self.question = Some(Question { name, name_bytes, record_type });
            }
            reader.u16()?;
        }
        for (section, count) in [Section::Answer, Section::Authority, Section::Additional].into_iter().zip(counts) {
            for _ in 0..count {
                self.read_record(reader, section)?;
            }
        }
        Some(())
    }

    fn read_record(&mut self, reader: &mut Reader<'_>, section: Section) -> Option<()> {
        let name_at = reader.at;
        reader.skip_name()?;
        let record_type = reader.u16()?;
        reader.u16()?;
        let ttl = reader.u32()?;
        let length = usize::from(reader.u16()?);
        let data_at = reader.at;
        let data = reader.message.get(data_at..data_at.checked_add(length)?)?;
        reader.at = data_at + length;
        let wanted = matches!(record_type, TYPE_A | TYPE_AAAA | TYPE_CNAME | TYPE_SVCB | TYPE_HTTPS);
        if !wanted || self.records.len() >= MAX_RECORDS {
            return Some(());
        }
        let name = Reader { message: reader.message, at: name_at }.name()?;
        let mut add = |data| {
            if self.records.len() < MAX_RECORDS {
                self.records.push(Record { name: name.clone(), ttl, section, data });
            }
        };
        match (record_type, data) {
            (TYPE_A, &[a, b, c, d]) => add(Data::Address(Address::from_v4([a, b, c, d]))),
            (TYPE_AAAA, data) => {
                if let Ok(octets) = <[u8; 16]>::try_from(data) {
                    add(Data::Address(Address::from_v6(octets)));
                }
            }
            (TYPE_CNAME, _) => {
                if let Some(target) = (Reader { message: reader.message, at: data_at }).name() {
                    add(Data::Alias(target));
                }
            }
            (TYPE_SVCB | TYPE_HTTPS, data) => service(data, add),
            _ => {}
        }
        Some(())
    }

    /// The addresses that the answers bind to the name asked for, through aliases, each with its time to live.
    pub fn bound_addresses(&self) -> SmallVec<[(Address, u32); 4]> {
        let mut bound = SmallVec::new();
        let Some(question) = self.question.as_ref().filter(|_| self.is_response) else { return bound };
        let answers = || self.records.iter().filter(|record| record.section == Section::Answer);
        let mut names: SmallVec<[&str; 4]> = SmallVec::from_slice(&[question.name.as_str()]);
        // Aliases mostly stand in order; a second look finds those that do not.
        for _ in 0..MAX_ALIASES {
            let known = names.len();
            for record in answers() {
                if let Data::Alias(target) = &record.data
                    && names.len() < MAX_ALIASES
                    && names.contains(&record.name.as_str())
                    && !names.contains(&target.as_str())
                {
                    names.push(target);
                }
            }
            if names.len() == known {
                break;
            }
        }
        for record in answers() {
            if let Data::Address(address) = record.data
                && names.contains(&record.name.as_str())
                && !bound.iter().any(|(known, _)| *known == address)
            {
                bound.push((address, record.ttl));
            }
        }
        bound
    }
}

impl Question {
    /// The host name that the question is about: without the labels that name a service (`_443._https`).
    pub fn host(&self) -> &str {
        let mut host = self.name.as_str();
        while let Some((label, rest)) = host.split_once('.')
            && label.starts_with('_')
        {
            host = rest;
        }
        host
    }
}

/// Reads the hints and the target of a service record (RFC 9460, section 2.2).
fn service(data: &[u8], mut add: impl FnMut(Data)) {
    let mut reader = Reader { message: data, at: 2 };
    // The target is never compressed, and the root stands for the owner itself.
    let Some(target) = reader.name() else { return };
    if !target.is_empty() {
        add(Data::Alias(target));
    }
    while let (Some(key), Some(length)) = (reader.u16(), reader.u16()) {
        let end = reader.at + usize::from(length);
        let Some(value) = data.get(reader.at..end) else { return };
        reader.at = end;
        match key {
            SVCB_IPV4_HINT => {
                let (addresses, _) = value.as_chunks::<4>();
                addresses.iter().for_each(|octets| add(Data::Address(Address::from_v4(*octets))));
            }
            SVCB_IPV6_HINT => {
                let (addresses, _) = value.as_chunks::<16>();
                addresses.iter().for_each(|octets| add(Data::Address(Address::from_v6(*octets))));
            }
            _ => {}
        }
    }
}

/// A place in a message.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u16(&mut self) -> Option<u16> {
        let octets = self.message.get(self.at..)?.first_chunk::<2>()?;
        self.at += 2;
        Some(u16::from_be_bytes(*octets))
    }

    fn u32(&mut self) -> Option<u32> {
        let octets = self.message.get(self.at..)?.first_chunk::<4>()?;
        self.at += 4;
        Some(u32::from_be_bytes(*octets))
    }

    fn skip_name(&mut self) -> Option<()> {
        loop {
            let length = *self.message.get(self.at)?;
            match length {
                0 => {
                    self.at += 1;
                    return Some(());
                }
                0xc0.. => {
                    self.at += 2;
                    return (self.at <= self.message.len()).then_some(());
                }
                1..=63 => self.at += 1 + usize::from(length),
                _ => return None,
            }
        }
    }

    /// Reads a name, following pointers, which only ever lead back (RFC 1035, section 4.1.4).
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut octets, mut followed) = (self.at, 0usize, false);
        loop {
            let length = *self.message.get(at)?;
            match length {
                0 => {
                    if !followed {
                        self.at = at + 1;
                    }
                    return Some(name);
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1)?;
                    if !followed {
                        self.at = at + 2;
                    }
                    followed = true;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if target >= at {
                        return None;
                    }
                    at = target;
                    // Each pointer counts, so that a ladder of them ends, too.
                    octets += 1;
                }
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    push_label(&mut name, label);
                    at += 1 + label.len();
                    octets += 1 + label.len();
                }
                _ => return None,
            }
            if octets > MAX_NAME_OCTETS {
                return None;
            }
        }
    }
}

fn push_label(name: &mut String, label: &[u8]) {
    for &octet in label {
        match octet {
            b'.' | b'\\' => name.extend(['\\', char::from(octet)]),
            b'!'..=b'~' => name.push(char::from(octet.to_ascii_lowercase())),
            _ => name.extend(['\\', digit(octet / 100), digit(octet / 10 % 10), digit(octet % 10)]),
        }
    }
}

fn digit(value: u8) -> char {
    char::from(b'0' + value)
}

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;

/// RFC 9460, section 14.3.2.
const SVCB_IPV4_HINT: u16 = 4;
const SVCB_IPV6_HINT: u16 = 6;

/// Records kept of one message; the largest honest answers have a few dozen.
const MAX_RECORDS: usize = 128;

/// Aliases followed in one message.
const MAX_ALIASES: usize = 16;

/// RFC 1035, section 2.3.4.
const MAX_NAME_OCTETS: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    /// A response with id 7, one question for `www.example.com` and `answers` records after it.
    fn response(answers: u16, records: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 7, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        message[6..8].copy_from_slice(&answers.to_be_bytes());
        message.extend(b"\x03WWW\x07example\x03com\0\0\x01\0\x01");
        message.extend(records);
        message
    }

    fn record(name: &[u8], record_type: u16, data: &[u8]) -> Vec<u8> {
        let mut record = name.to_vec();
        record.extend(record_type.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        record.extend(data);
        record
    }

    const QUESTION: &[u8] = b"\xc0\x0c";

    fn bound(message: &[u8]) -> Vec<String> {
        Message::read(message).unwrap().bound_addresses().iter().map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn aliases_lead_to_the_name_asked_for_in_any_order() {
        let records = [
            record(b"\x01b\x03net\0", 1, &[192, 0, 2, 1]),
            record(b"\x01a\x03net\0", 5, b"\x01b\x03net\0"),
            record(QUESTION, 5, b"\x01a\x03net\0"),
            record(b"\x05other\x03net\0", 1, &[192, 0, 2, 9]),
        ];
        let message = response(4, &records.concat());
        assert_eq!(bound(&message), ["192.0.2.1"]);
        assert_eq!(Message::read(&message).unwrap().question.unwrap().name, "www.example.com");
    }

    #[test]
    fn service_hints_are_addresses_of_the_name() {
        let data = b"\0\x01\0\0\x01\0\x03\x02h3\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02\0\x06\0\x10 \x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        assert_eq!(bound(&response(1, &record(QUESTION, 65, data))), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let question = Question { name: "_8443._https.api.example".into(), name_bytes: 0, record_type: 65 };
        assert_eq!(question.host(), "api.example");
    }

    #[test]
    fn an_odd_message_gives_what_it_has() {
        let two = [record(QUESTION, 1, &[192, 0, 2, 1]), record(QUESTION, 1, &[192, 0, 2, 2])].concat();
        // The count promises more than there is.
        let message = response(9, &two);
        assert_eq!(bound(&message), ["192.0.2.1", "192.0.2.2"]);
        assert!(Message::read(&message).unwrap().cut);
        // The snapshot length cuts the second record.
        assert_eq!(bound(&message[..message.len() - 3]), ["192.0.2.1"]);
        // A question of a type that nobody knows, with octets that are no text.
        let odd = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03\xff.\x01\x02io\0\x99\x99\0\x01";
        let question = Message::read(odd).unwrap().question.unwrap();
        assert_eq!(question, Question { name: "\\255\\.\\001.io".into(), name_bytes: 6, record_type: 0x9999 });
    }

    #[test]
    fn pointers_cannot_go_round() {
        for name in [b"\xc0\x0c".as_slice(), b"\x01a\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\xff\xff", b"\x40a"] {
            let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.extend(name);
            message.extend([0, 1, 0, 1]);
            assert_eq!(Message::read(&message), None);
        }
        assert_eq!(Message::read(b"\0\x01\x81\x80\0\0\0\0\0\0\0\0"), None);
    }
}
