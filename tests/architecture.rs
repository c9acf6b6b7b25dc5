//! The direction of the tree: which module may use which, and what the pure
//! ones may not touch.
//!
//! It reads the source, not the compiler's view of it, so it also covers code
//! that a feature or a platform leaves out. Test modules at the bottom of a
//! file and comments do not count.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The pure modules in the order data flows. A module may use itself and those before it.
const PURE: [&str; 12] = [
    "escape",
    "memory",
    "units",
    "time",
    "packet",
    "flow",
    "attribution",
    "names",
    "window",
    "rule",
    "alert",
    "engine",
];

/// The edges: each may use every pure module and no other edge.
const EDGES: [&str; 6] = ["capture", "resolve", "dispatch", "store", "view", "fleet"];

/// The modules that wire the others together.
const WIRING: [&str; 3] = ["config", "runtime", "cli"];

/// What would make a pure module depend on something other than its arguments.
const IMPURE: [&str; 17] = [
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::io::stdin",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "tokio",
    "crossbeam_channel",
    "rusqlite",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
    "fastrand",
    "Ulid::new(",
];

/// Names that say nothing about what a file holds.
const FORBIDDEN_NAMES: [&str; 7] = ["utils", "util", "helpers", "common", "types", "manager", "misc"];

/// The files that may hold `unsafe`: each at an edge, or a word to the machine; each block with its reason.
const UNSAFE: [&str; 8] = [
    "src/memory.rs",
    "src/capture/ebpf",
    "src/capture/offline",
    "src/capture/live",
    "src/resolve/ebpf",
    "src/resolve/sock_diag",
    "src/resolve/proc_connector",
    "src/resolve/priority",
];

#[test]
fn modules_only_use_what_stands_before_them() {
    let mut steps_back = String::new();
    for file in source_files() {
        let Some(module) = file.module() else { continue };
        for used in file.used_modules() {
            if !may_use(&module, &used) {
                let _ = writeln!(steps_back, "  {} uses crate::{used}", file.path.display());
            }
        }
    }
    assert!(steps_back.is_empty(), "steps back in the tree:\n{steps_back}");
}

#[test]
fn every_module_has_its_place() {
    for file in source_files() {
        let Some(module) = file.module() else { continue };
        let known = PURE.iter().chain(&EDGES).chain(&WIRING).any(|name| *name == module);
        assert!(known, "{}: `{module}` is neither pure, an edge nor wiring", file.path.display());
    }
}

#[test]
fn pure_modules_touch_no_clock_file_or_thread() {
    let mut found = String::new();
    for file in source_files() {
        let Some(module) = file.module() else { continue };
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        for (number, line) in file.code.lines().enumerate() {
            for word in IMPURE.iter().filter(|word| contains_path(line, word)) {
                let _ = writeln!(found, "  {}:{}: {word}", file.path.display(), number + 1);
            }
        }
    }
    assert!(found.is_empty(), "impure code in pure modules:\n{found}");
}

#[test]
fn every_file_says_what_it_is_for() {
    for directory in ["src", "tests", "examples"] {
        for path in rust_files(&root().join(directory)) {
            let text = read(&path);
            assert!(text.starts_with("//!"), "{}: opens without a `//!`", path.display());
        }
    }
}

#[test]
fn no_file_or_function_has_an_empty_name() {
    for path in rust_files(&root().join("src")) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        assert!(!FORBIDDEN_NAMES.contains(&stem.as_str()), "{}: say what it holds", path.display());
    }
    for file in source_files() {
        for line in file.code.lines() {
            assert!(!contains_path(line, "fn get_"), "{}: a getter needs no `get_`: {line}", file.path.display());
        }
    }
}

#[test]
fn unsafe_code_stays_in_few_named_files() {
    for file in source_files() {
        let path = file.path.strip_prefix(root()).unwrap_or(&file.path).to_string_lossy().into_owned();
        if UNSAFE.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        for line in file.code.lines() {
            let is_unsafe = ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| contains_path(line, word));
            assert!(!is_unsafe, "{path}: `unsafe` outside the files named for it: {line}");
        }
    }
}

/// Whether code of `module` may name something of `used`.
fn may_use(module: &str, used: &str) -> bool {
    if module == used || WIRING.contains(&module) {
        return true;
    }
    let Some(place) = PURE.iter().position(|name| *name == used) else {
        return false;
    };
    match PURE.iter().position(|name| *name == module) {
        Some(own) => place <= own,
        None => true,
    }
}

/// A source file without its comments and its tests.
struct SourceFile {
    path: PathBuf,
    code: String,
}

impl SourceFile {
    fn read(path: PathBuf) -> Self {
        let code = without_tests(&without_comments(&read(&path)));
        Self { path, code }
    }

    /// The top-level module that this file belongs to; none for the crate's roots.
    fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix(root().join("src")).ok()?;
        let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
        let name = first.strip_suffix(".rs").unwrap_or(&first);
        (name != "lib" && name != "main").then(|| name.to_owned())
    }

    /// The top-level modules of this crate that the code names.
    fn used_modules(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for (at, _) in self.code.match_indices("crate::") {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                continue;
            }
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => used.extend(names_of_group(group)),
                None => used.extend(leading_name(rest)),
            }
        }
        // Macros that the crate exports at its root are not modules.
        used.retain(|name| PURE.iter().chain(&EDGES).chain(&WIRING).any(|module| module == name));
        used
    }
}

/// The first names inside `a, b::{c, d}, e}`: a, b and e.
fn names_of_group(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut start = true;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            letter if start && letter.is_alphabetic() => {
                names.extend(leading_name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Whether `line` holds `word` and not merely a longer name that ends in it.
fn contains_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let part_of_name = |letter: Option<char>| letter.is_some_and(|l| l.is_alphanumeric() || l == '_');
        let open_end = word.ends_with(['_', '(', '{']);
        !part_of_name(before) && (open_end || !part_of_name(after))
    })
}

/// The text with line comments emptied; strings that hold `//` lose their end, which costs nothing here.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The text up to its test module, which stands last in a file.
fn without_tests(text: &str) -> String {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

fn source_files() -> Vec<SourceFile> {
    rust_files(&root().join("src")).into_iter().map(SourceFile::read).collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else { return files };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reader_finds_what_it_looks_for() {
    let file = SourceFile {
        path: root().join("src/flow/key.rs"),
        code: without_tests(&without_comments(
            "use crate::{units, packet::{Packet, Frame}, cli};\n// crate::dispatch\nlet x = crate::engine::run();\n\
             #[cfg(test)]\nmod tests { use crate::store; }",
        )),
    };
    let used: Vec<String> = file.used_modules().into_iter().collect();
    assert_eq!(used, ["cli", "engine", "packet", "units"]);
    assert_eq!(file.module().as_deref(), Some("flow"));
    assert!(may_use("flow", "packet") && !may_use("flow", "engine") && !may_use("rule", "capture"));
    assert!(may_use("dispatch", "alert") && !may_use("dispatch", "store") && may_use("runtime", "store"));
    assert!(contains_path("let now = Instant::now();", "Instant") && !contains_path("InstantReplay", "Instant"));
}
