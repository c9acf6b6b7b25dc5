//! Where the shared captures, lists and databases are.

use std::path::PathBuf;

/// A file or folder of the shared data, or `None` with a printed reason where the data is absent.
pub fn path(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("EGRET_DATA") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
    };
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}
