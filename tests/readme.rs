//! What the README shows is what the program prints.
//!
//! Every `console` block is run: its lines that begin with `$ egret` are
//! commands, given from the top of the repository, and what follows must be
//! printed. `...` alone on a line stands for any lines. With
//! `EGRET_UPDATE_README=1` the test writes what was printed into the README,
//! blocks with `...` excepted.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_command_prints_what_the_readme_says() {
    let path = root().join("README.md");
    let text = fs::read_to_string(&path).expect("there is a README");
    let mut updated = text.clone();
    let mut commands = 0;
    let mut wrong = String::new();
    for step in steps(&text) {
        commands += 1;
        let printed = run(&step.command);
        if matches(&step.expected, &printed) {
            continue;
        }
        let _ = writeln!(wrong, "$ {}\n--- the README says\n{}--- it prints\n{printed}", step.command, step.expected);
        if !step.expected.contains("...\n") {
            let shown = format!("$ {}\n{}", step.command, step.expected);
            updated = updated.replace(&shown, &format!("$ {}\n{printed}", step.command));
        }
    }
    if std::env::var_os("EGRET_UPDATE_README").is_some() {
        fs::write(&path, updated).expect("the README is writable");
    }
    assert!(commands >= 3, "the README shows no commands");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_file_that_the_readme_names_exists() {
    let text = fs::read_to_string(root().join("README.md")).expect("there is a README");
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let file = link.split('#').next().unwrap_or_default();
        if !file.is_empty() && !file.contains("://") {
            assert!(root().join(file).exists(), "the README links to {link}");
        }
    }
}

/// One command and what it must print.
struct Step {
    command: String,
    expected: String,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for block in text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let mut step: Option<Step> = None;
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.extend(step.take());
                if command.starts_with("egret ") {
                    step = Some(Step { command: command.to_owned(), expected: String::new() });
                }
            } else if let Some(step) = &mut step {
                let _ = writeln!(step.expected, "{line}");
            }
        }
        steps.extend(step);
    }
    steps
}

/// What a command prints, errors after the rest.
fn run(command: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_egret"));
    let folder = binary.parent().expect("a binary lies in a folder").display().to_string();
    let output = Command::new("bash")
        .args(["-c", command])
        .current_dir(root())
        .env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap_or_default()))
        .env("NO_COLOR", "1")
        .env("TZ", "UTC")
        .env("COLUMNS", "100")
        .output()
        .expect("bash is essential");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether `printed` is what is expected, `...` standing for any lines.
fn matches(expected: &str, printed: &str) -> bool {
    let mut rest = printed;
    let parts: Vec<&str> = expected.split("...\n").collect();
    let last = parts.len() - 1;
    for (index, part) in parts.iter().enumerate() {
        let found = if index == 0 {
            rest.starts_with(part).then_some(0)
        } else if index == last {
            rest.len().checked_sub(part.len()).filter(|at| rest.get(*at..) == Some(part))
        } else {
            rest.find(part)
        };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn dots_stand_for_any_lines() {
    assert!(matches("a\n...\nd\n", "a\nb\nc\nd\n"));
    assert!(matches("a\nb\n", "a\nb\n"));
    assert!(!matches("a\nb\n", "a\nb\nc\n"));
    assert!(!matches("a\n...\nd\n", "a\nb\n"));
    assert!(matches("...\n", ""));
}
