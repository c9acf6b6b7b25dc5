//! Writes pcapng: frames with their owners as comments.
//!
//! One section, an interface description at the first frame of each
//! interface, time in nanoseconds (draft-ietf-opsawg-pcapng, sections 4.1 to
//! 4.3). Comments are those of `attribution::comments_of`, so that Wireshark
//! shows them and `egret replay` finds them.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::packet::{Frame, FrameDirection, LinkType};

/// A pcapng file that grows.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// The number of an interface in the file, by what it is on the host.
    interfaces: HashMap<(u32, LinkType), u32>,
    snaplen: u32,
    written: u64,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file whose frames are at most `snaplen` bytes long.
    ///
    /// # Errors
    /// What writing gives.
    pub fn new(mut out: W, snaplen: u32) -> io::Result<Self> {
        let mut block = Vec::new();
        block.extend_from_slice(&BYTE_ORDER.to_le_bytes());
        block.extend_from_slice(&1_u16.to_le_bytes());
        block.extend_from_slice(&0_u16.to_le_bytes());
        // The section's length is not known beforehand.
        block.extend_from_slice(&u64::MAX.to_le_bytes());
        push_option(&mut block, SHB_USERAPPL, concat!("egret ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_options(&mut block);
        let mut written = 0;
        write_block(&mut out, SECTION_HEADER, &block, &mut written)?;
        Ok(Self { out, interfaces: HashMap::new(), snaplen, written, block })
    }

    /// Adds a frame. `name` tells the interface's name when it is new.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write(
        &mut self,
        frame: &Frame<'_>,
        comments: &[String],
        name: impl FnOnce(u32) -> Option<String>,
    ) -> io::Result<()> {
        let interface = match self.interfaces.get(&(frame.interface, frame.link_type)) {
            Some(number) => *number,
            None => self.describe(frame, name)?,
        };
        let bytes = frame.bytes.get(..self.snaplen as usize).unwrap_or(frame.bytes);
        let time = u64::try_from(frame.timestamp.as_nanos()).unwrap_or(0);
        let block = &mut self.block;
        block.clear();
        for word in [interface, (time >> 32) as u32, time as u32, bytes.len() as u32, frame.wire_length] {
            block.extend_from_slice(&word.to_le_bytes());
        }
        push_padded(block, bytes);
        for comment in comments {
            push_option(block, COMMENT, comment.as_bytes());
        }
        let way: Option<u32> = match frame.direction {
            Some(FrameDirection::In) => Some(1),
            Some(FrameDirection::Out) => Some(2),
            None => None,
        };
        if let Some(way) = way {
            push_option(block, EPB_FLAGS, &way.to_le_bytes());
        }
        if way.is_some() || !comments.is_empty() {
            end_options(block);
        }
        write_block(&mut self.out, ENHANCED_PACKET, block, &mut self.written)
    }

    /// How many bytes the file has.
    pub fn length(&self) -> u64 {
        self.written
    }

    /// Hands everything to the system and gives the file back.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn describe(&mut self, frame: &Frame<'_>, name: impl FnOnce(u32) -> Option<String>) -> io::Result<u32> {
        let number = self.interfaces.len() as u32;
        let block = &mut self.block;
        block.clear();
        block.extend_from_slice(&(frame.link_type.0 as u16).to_le_bytes());
        block.extend_from_slice(&0_u16.to_le_bytes());
        block.extend_from_slice(&self.snaplen.to_le_bytes());
        if let Some(name) = name(frame.interface) {
            push_option(block, IF_NAME, name.as_bytes());
        }
        push_option(block, IF_TSRESOL, &[9]);
        end_options(block);
        write_block(&mut self.out, INTERFACE_DESCRIPTION, block, &mut self.written)?;
        self.interfaces.insert((frame.interface, frame.link_type), number);
        Ok(number)
    }
}

fn write_block(out: &mut impl Write, kind: u32, body: &[u8], written: &mut u64) -> io::Result<()> {
    let length = (body.len() + 12) as u32;
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(body)?;
    out.write_all(&length.to_le_bytes())?;
    *written += u64::from(length);
    Ok(())
}

fn push_option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    block.extend_from_slice(&code.to_le_bytes());
    block.extend_from_slice(&(value.len() as u16).to_le_bytes());
    push_padded(block, value);
}

fn end_options(block: &mut Vec<u8>) {
    block.extend_from_slice(&[0; 4]);
}

/// Values are padded to four bytes.
fn push_padded(block: &mut Vec<u8>, value: &[u8]) {
    block.extend_from_slice(value);
    block.resize(block.len().next_multiple_of(4), 0);
}

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::attribution::{Executable, Process, ProcessKey, comments_of};
    use crate::capture::offline::Reader;
    use crate::time::Timestamp;

    #[test]
    fn the_reader_finds_what_was_written() {
        let process = Process {
            key: ProcessKey { pid: 7, start: 0 },
            executable: Some(Executable { path: "/bin/nc".into(), ..Executable::default() }),
            command_line: vec!["nc".into(), "-l\nPID: 1".into()],
            ..Process::default()
        };
        let frame = Frame {
            timestamp: Timestamp::from_nanos(1_777_860_669_482_113_007),
            link_type: LinkType::ETHERNET,
            wire_length: 1500,
            interface: 3,
            direction: Some(FrameDirection::Out),
            bytes: &[1, 2, 3, 4, 5],
        };
        let mut writer = Writer::new(Vec::new(), 4).unwrap();
        writer.write(&frame, &comments_of(&process), |number| Some(format!("eth{number}"))).unwrap();
        let raw = Frame { link_type: LinkType::RAW, direction: None, bytes: &[9], ..frame };
        writer.write(&raw, &[], |_| None).unwrap();
        let length = writer.length();
        let file = writer.finish().unwrap();
        assert_eq!(length, file.len() as u64);

        let mut reader = Reader::new(io::Cursor::new(file), Path::new("memory")).unwrap();
        let mut seen = 0;
        while let Some(batch) = reader.next_batch() {
            for record in batch {
                seen += 1;
                if seen == 1 {
                    assert_eq!(record.frame.timestamp, frame.timestamp);
                    assert_eq!((record.frame.wire_length, record.frame.bytes), (1500, &[1_u8, 2, 3, 4][..]));
                    assert_eq!(record.frame.direction, Some(FrameDirection::Out));
                    let owner = record.owner.unwrap();
                    assert_eq!(owner.key.pid, 7);
                    assert_eq!(owner.command_line_text(), "nc -l\\nPID: 1");
                } else {
                    assert_eq!((record.frame.link_type, record.frame.bytes), (LinkType::RAW, &[9_u8][..]));
                    assert!(record.owner.is_none());
                }
            }
        }
        assert_eq!(seen, 2);
        assert!(reader.damage().is_none());
        assert_eq!(reader.interfaces()[0].name.as_deref(), Some("eth3"));
    }
}
