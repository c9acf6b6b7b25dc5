//! The generator of traffic, `tests/generators/traffic.c`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program, compiled once a test run.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generators/traffic.c");
        // Named after the process, so that test runs beside each other do not overwrite a running program.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).canonicalize().expect("cargo made it");
        let program = directory.join("egret-traffic");
        let made = directory.join(format!("egret-traffic.{}", std::process::id()));
        let status =
            Command::new("cc").args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&made).arg(source).status();
        assert!(status.is_ok_and(|status| status.success()), "cc compiles the generator");
        std::fs::rename(&made, &program).expect("both are in one directory");
        program
    })
}

/// One line of its output: what one process sent and received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub pid: u32,
    pub protocol: String,
    pub out: u64,
    pub received: u64,
}

impl Said {
    pub fn parse(line: &str) -> Self {
        let fields: Vec<&str> = line.split(' ').collect();
        let [pid, protocol, out, received] = fields[..] else { panic!("the generator said {line:?}") };
        let number = |text: &str| text.parse().expect("the generator prints numbers");
        Self {
            pid: u32::try_from(number(pid)).expect("pids are small"),
            protocol: protocol.to_owned(),
            out: number(out),
            received: number(received),
        }
    }
}

/// What the process's descriptors of this kind link to.
pub fn descriptors(pid: u32, kind: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).filter(|link| link.starts_with(kind)).collect()
}
