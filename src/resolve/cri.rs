//! Asks a container runtime about a container by the Kubernetes Container Runtime Interface.
//!
//! gRPC over a Unix socket, as much of it as two questions need: one HTTP/2
//! stream a connection, headers that are sent and never read (HPACK needs no
//! state then), protocol buffers by field number (`runtime.v1`, `api.proto`).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::resolve::local_http::{MAX_ANSWER, connect};

/// What a runtime says of a container and its pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CriContainer {
    /// The container's name in its pod.
    pub name: Option<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// Labels of the container and its pod.
    pub labels: BTreeMap<String, String>,
}

/// Asks for a container; `None` where the runtime does not have it.
pub(super) fn container(socket: &Path, id: &str) -> io::Result<Option<CriContainer>> {
    // ListContainersRequest { filter: ContainerFilter { id } }
    let request = field(1, &field(1, id.as_bytes()));
    let answer = call(socket, "/runtime.v1.RuntimeService/ListContainers", None, &request)?;
    let Some((mut found, sandbox)) = listed(&answer, id) else { return Ok(None) };
    if let Some(sandbox) = sandbox {
        let request = field(1, sandbox.as_bytes());
        let answer = call(socket, "/runtime.v1.RuntimeService/PodSandboxStatus", None, &request)?;
        learn_pod(&mut found, &answer);
    }
    Ok(Some(found))
}

/// The container in a ListContainersResponse, and the id of its pod's sandbox.
pub(super) fn listed(answer: &[u8], id: &str) -> Option<(CriContainer, Option<String>)> {
    let listed = Message(answer).parts(1).map(Message).find(|item| item.text(1).as_deref() == Some(id))?;
    let found = CriContainer {
        name: listed.part(3).and_then(|metadata| metadata.text(1)),
        image: listed.part(4).and_then(|image| image.text(1)),
        labels: listed.map(8),
        ..CriContainer::default()
    };
    Some((found, listed.text(2)))
}

/// Takes what a PodSandboxStatusResponse says.
pub(super) fn learn_pod(found: &mut CriContainer, answer: &[u8]) {
    let Some(status) = Message(answer).part(1) else { return };
    let metadata = status.part(2);
    found.pod = metadata.and_then(|metadata| metadata.text(1));
    found.namespace = metadata.and_then(|metadata| metadata.text(3));
    found.labels.extend(status.map(7));
}

/// Asks containerd itself, in one of its namespaces, for a container that no kubelet started.
pub(super) fn of_containerd(socket: &Path, namespace: &str, id: &str) -> io::Result<Option<CriContainer>> {
    let request = field(1, id.as_bytes());
    let answer = call(socket, "/containerd.services.containers.v1.Containers/Get", Some(namespace), &request)?;
    Ok(Message(&answer).part(1).map(|container| CriContainer {
        image: container.text(3),
        labels: container.map(2),
        ..CriContainer::default()
    }))
}

/// One call (gRPC over HTTP/2): the request's message out, the answer's message in.
fn call(socket: &Path, method: &str, namespace: Option<&str>, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(socket)?;
    let mut out = PREFACE.to_vec();
    out.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0x40, 0, 0])); // SETTINGS_INITIAL_WINDOW_SIZE: 4 MiB
    out.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0x40, 0, 0]));
    out.extend(frame(HEADERS, END_HEADERS, STREAM, &request_headers(method, namespace)));
    let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let message = [[0].as_slice(), &length.to_be_bytes(), request].concat();
    out.extend(frame(DATA, END_STREAM, STREAM, &message));
    stream.write_all(&out)?;
    let mut data = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, ref of @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        if u64::from(length) > MAX_ANSWER || data.len() as u64 > MAX_ANSWER {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload)?;
        let of_stream = *of == STREAM.to_be_bytes();
        match kind {
            DATA if of_stream => data.extend_from_slice(unpadded(&payload, flags)),
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
            PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload))?,
            RST_STREAM | GO_AWAY => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        if of_stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            break;
        }
    }
    // Without a message the trailers hold an error, such as for a method that is not there.
    let (head, rest) = data.split_first_chunk::<5>().ok_or(io::ErrorKind::NotFound)?;
    let [0, length @ ..] = head else { return Err(io::ErrorKind::InvalidData.into()) };
    rest.get(..u32::from_be_bytes(*length) as usize)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// HPACK (RFC 7541): by index where the static table has it, else literal and not to be remembered.
fn request_headers(method: &str, namespace: Option<&str>) -> Vec<u8> {
    let literal = |text: &str| [&[u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat();
    let mut block = vec![0x83, 0x86, 0x04]; // :method POST, :scheme http, :path
    block.extend(literal(method));
    block.push(0x01); // :authority
    block.extend(literal("localhost"));
    block.extend([0x0f, 0x10]); // content-type, number 31
    block.extend(literal("application/grpc"));
    block.push(0x00);
    block.extend(literal("te"));
    block.extend(literal("trailers"));
    if let Some(namespace) = namespace.filter(|namespace| namespace.len() < 127) {
        block.push(0x00);
        block.extend(literal("containerd-namespace"));
        block.extend(literal(namespace));
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    [length.get(1..).unwrap_or_default(), &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn unpadded(payload: &[u8], flags: u8) -> &[u8] {
    match payload.split_first() {
        Some((padding, rest)) if flags & PADDED != 0 => {
            rest.get(..rest.len().saturating_sub(usize::from(*padding))).unwrap_or_default()
        }
        _ => payload,
    }
}

/// A field of a protocol buffer that holds octets.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

/// A message of protocol buffers, read leniently: what is damaged ends it.
#[derive(Clone, Copy)]
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// The fields of a number that hold octets.
    fn parts(self, number: u64) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                let key = varint(&mut rest)?;
                let content = match key & 7 {
                    0 => varint(&mut rest).map(|_| None)?,
                    1 => take(&mut rest, 8).map(|_| None)?,
                    2 => {
                        let length = usize::try_from(varint(&mut rest)?).ok()?;
                        Some(take(&mut rest, length)?)
                    }
                    5 => take(&mut rest, 4).map(|_| None)?,
                    _ => return None,
                };
                if let Some(content) = content.filter(|_| key >> 3 == number) {
                    return Some(content);
                }
            }
        })
    }

    fn part(self, number: u64) -> Option<Self> {
        self.parts(number).next().map(Self)
    }

    fn text(self, number: u64) -> Option<String> {
        self.parts(number).next().map(|text| String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty())
    }

    /// A map of text to text: repeated entries of key and value.
    fn map(self, number: u64) -> BTreeMap<String, String> {
        let entries = self.parts(number).map(Message);
        entries.filter_map(|entry| Some((entry.text(1)?, entry.text(2).unwrap_or_default()))).collect()
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (octet, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// The client's first octets (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The only stream.
const STREAM: u32 = 1;

// Frames and flags of RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_read_by_number() {
        let entry = [field(1, b"app"), field(2, b"shop")].concat();
        let message =
            [vec![0x28, 0x96, 0x01], field(1, &vec![b'x'; 300]), field(8, &entry), vec![0x3d, 0, 0, 0, 0]].concat();
        let message = Message(&message);
        assert_eq!(message.text(1).unwrap().len(), 300);
        assert_eq!(message.map(8), BTreeMap::from([("app".to_owned(), "shop".to_owned())]));
        assert_eq!(message.text(2), None);
    }

    proptest! {
        #[test]
        fn a_damaged_message_ends(bytes: Vec<u8>, number in 0u64..9) {
            let _ = (Message(&bytes).parts(number).count(), Message(&bytes).map(number), unpadded(&bytes, PADDED));
        }
    }
}
