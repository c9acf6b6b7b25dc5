//! What package managers and container runtimes wrote: records, answers, headers, lists.
#![no_main]

use std::fs;

use egret::resolve::foreign;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    foreign::read_container_record(bytes);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let _ = foreign::read_runtime_answers(bytes, second, "0a1b2c");
    let index = first.first().copied().unwrap_or_default();
    let _ = foreign::read_rpm_header(bytes, index.into(), "/usr/bin");
    // Files cost more than all the rest.
    if index % 16 == 0 {
        let root = tempfile::tempdir().expect("room for a folder");
        let dpkg = root.path().join("var/lib/dpkg");
        fs::create_dir_all(dpkg.join("info")).expect("room for a folder");
        fs::write(dpkg.join("info/curl.list"), first).expect("room for a file");
        fs::write(dpkg.join("diversions"), second).expect("room for a file");
        let path = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
        foreign::read_package_lists(root.path(), path).expect("the folder is there");
    }
});
