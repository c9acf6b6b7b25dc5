//! A whole capture file: the reader and the decoder behind it.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use egret::capture::offline::Reader;
use egret::packet::{Fragments, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(mut reader) = Reader::new(Cursor::new(file.to_vec()), Path::new("fuzz")) else { return };
    let mut fragments = Fragments::default();
    let mut frames = 0;
    while let Some(batch) = reader.next_batch() {
        for record in batch {
            frames += 1;
            let _ = decode(&record.frame, &mut fragments);
        }
    }
    assert_eq!(frames, reader.frames());
});
