//! What tells whether an output is still the same when the configuration is read again.
//!
//! Its settings as they are written, and what the files, variables and
//! credentials hold that they name: a secret that was changed makes another
//! output of it, which must begin anew.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::dispatch::settings::{OutputSettings, Transport};

/// The same for the same output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(blake3::Hash);

impl Fingerprint {
    /// Of an output; `commands` are the programs that may be run.
    pub(super) fn of(output: &OutputSettings, commands: &[PathBuf]) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(Json::Object(output.written.clone()).to_string().as_bytes());
        add_named(&Json::Object(output.written.clone()), &mut hash);
        if matches!(output.transport, Transport::Command(_)) {
            hash.update(format!("{commands:?}").as_bytes());
        }
        Self(hash.finalize())
    }
}

/// Adds what stands where the keys of the settings point.
fn add_named(written: &Json, hash: &mut blake3::Hasher) {
    for (key, value) in written.as_object().into_iter().flatten() {
        let Some(name) = value.as_str() else {
            add_named(value, hash);
            continue;
        };
        let content = if key.ends_with("_file") {
            content(Path::new(name))
        } else if key.ends_with("_env") {
            std::env::var(name).unwrap_or_default().into_bytes()
        } else if key.ends_with("_credential") {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").unwrap_or_default();
            content(&Path::new(&folder).join(name))
        } else {
            continue;
        };
        hash.update(&(content.len() as u64).to_le_bytes());
        hash.update(&content);
    }
}

/// What cannot be read is said when the output is set up.
fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_what_a_file_holds_makes_another_output() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "one").unwrap();
        let output = |more: &str| -> OutputSettings {
            let path = secret.display();
            serde_yaml::from_str(&format!("{{type: webhook, url: 'https://x.example/', secret_file: {path}{more}}}"))
                .unwrap()
        };
        let print = |more: &str| Fingerprint::of(&output(more), &[]);
        let before = print("");
        assert_eq!(before, print(""));
        assert_ne!(before, print(", rate: {per_second: 2}"));
        std::fs::write(&secret, "two").unwrap();
        assert_ne!(before, print(""));
    }
}
