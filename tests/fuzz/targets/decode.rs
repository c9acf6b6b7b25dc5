//! Frames of every link type: the first two octets choose it.
#![no_main]

use egret::packet::{Fragments, Frame, LinkType, decode};
use egret::time::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((link, bytes)) = input.split_first_chunk::<2>() else { return };
    let mut fragments = Fragments::default();
    for half in bytes.chunks(bytes.len() / 2 + 1) {
        let frame = Frame {
            timestamp: Timestamp::EPOCH,
            link_type: LinkType(u32::from(u16::from_be_bytes(*link))),
            wire_length: u32::try_from(half.len()).unwrap_or(u32::MAX),
            interface: 0,
            direction: None,
            bytes: half,
        };
        if let Ok(packet) = decode(&frame, &mut fragments) {
            assert!(packet.payload.len() <= half.len());
        }
    }
});
