//! Alerts to the systemd journal, in its own protocol, each fact a field.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::alert::{Delivery, Notification};
use crate::dispatch::encode::rfc5424;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::dispatch::settings::JournaldSettings;
use crate::escape::one_line;
use crate::time::Timestamp;

/// Sends each delivery as one entry.
#[derive(Debug)]
pub struct JournaldOutput {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl JournaldOutput {
    /// An output that opens its socket with the first delivery.
    pub fn new(settings: &JournaldSettings) -> Self {
        let path = settings.socket.clone().unwrap_or_else(|| "/run/systemd/journal/socket".into());
        Self { path, socket: None }
    }

    fn send_bytes(&mut self, entry: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket
            }
        };
        socket.send(entry)?;
        self.socket = Some(socket);
        Ok(())
    }
}

impl Notifier for JournaldOutput {
    fn send(&mut self, delivery: &Delivery, _now: Timestamp) -> Result<(), NotifyError> {
        self.send_bytes(&delivery.payload).map_err(|error| {
            let reason = format!("journal at `{}`: {error}", self.path.display());
            match error.raw_os_error() {
                Some(libc::EMSGSIZE) => NotifyError::TooLarge { reason },
                _ => NotifyError::transient(reason),
            }
        })
    }
}

/// The entry of one notification: `NAME=value` and a line end, or for values with
/// line ends the name, a line end, the length, and the bytes.
pub fn encode(notification: &Notification) -> Vec<u8> {
    let mut entry = Vec::new();
    let mut field = |name: &str, value: &str| {
        entry.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    };
    field("MESSAGE", &one_line(notification.summary()));
    field("PRIORITY", &rfc5424::severity(notification).to_string());
    field("SYSLOG_IDENTIFIER", "egret");
    field("SYSLOG_FACILITY", "10");
    field("EGRET_TYPE", notification.kind.name());
    for (name, value) in rfc5424::parameters(notification) {
        let name: String = name
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' })
            .collect();
        field(&format!("EGRET_{name}"), value.get(..value.floor_char_boundary(32_768)).unwrap_or_default());
    }
    entry
}

/// The same entry with no long field.
pub fn shrink(entry: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(entry);
    let short = |line: &str| line.get(..line.floor_char_boundary(LONGEST_SMALL)).unwrap_or_default().to_owned();
    text.lines().map(|line| short(line) + "\n").collect::<String>().into_bytes()
}

const LONGEST_SMALL: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::encode::example;
    use std::collections::BTreeMap;

    #[test]
    fn the_journal_reads_each_fact_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut output = JournaldOutput::new(&JournaldSettings { socket: Some(path) });
        output.send_bytes(&encode(&example::with_command_line(b"a\nb=c\xff"))).unwrap();
        let mut bytes = [0; 65_536];
        let length = journal.recv(&mut bytes).unwrap();
        let fields: BTreeMap<String, String> = String::from_utf8(bytes[..length].to_vec())
            .unwrap()
            .lines()
            .map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
            .collect();
        assert_eq!(fields["EGRET_CMDLINE"], "a\\nb=c\\xff");
        assert_eq!((fields["PRIORITY"].as_str(), fields["EGRET_DST"].as_str()), ("3", "203.0.113.7"));
        assert_eq!(fields["EGRET_DST_REGISTERED_DOMAIN"], "example.net");
    }
}
