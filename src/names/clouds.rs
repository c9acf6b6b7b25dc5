//! The networks of large clouds, as their owners publish them, inside the program.
//!
//! The files are made from published lists by the test that compares them
//! (`EGRET_GENERATE=1 cargo test cloud_ranges`), and each names its source and date.

/// The ranges that a built-in list names as its file.
pub fn ranges(file: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

const FILES: [(&str, &str); 3] = [
    ("clouds/aws.txt", include_str!("clouds/aws.txt")),
    ("clouds/google.txt", include_str!("clouds/google.txt")),
    ("clouds/cloudflare.txt", include_str!("clouds/cloudflare.txt")),
];
