//! An owner as JSON, with the names that `--owners` files use.

use bstr::{BStr, ByteSlice};
use serde::Serialize;
use std::borrow::Cow;

use crate::attribution::{Ancestor, Container, Process};
use crate::time::Timestamp;

/// The owner of a flow, ready to be printed. Bytes that are not UTF-8 appear as `\xHH`.
#[derive(Debug, Serialize)]
pub struct OwnerView<'a> {
    /// Process id; absent where only a program is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Path of the executable.
    pub exe: Option<Cow<'a, str>>,
    /// File, deleted, memfd, kernel or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe_kind: Option<&'static str>,
    /// SHA-256 of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<&'a str>,
    /// Package that installed the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<&'a str>,
    /// Arguments.
    pub cmdline: Vec<Cow<'a, str>>,
    /// The script, where the executable is an interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Cow<'a, str>>,
    /// User id.
    pub uid: Option<u32>,
    /// User name.
    pub user: Option<&'a str>,
    /// Name of the user who logged in, or the number where there is no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_user: Option<Cow<'a, str>>,
    /// Parents, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ParentView<'a>>,
    /// Control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<&'a str>,
    /// systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'a str>,
    /// Container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<&'a Container>,
    /// Network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u32>,
    /// Start of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// A parent of an owner.
#[derive(Debug, Serialize)]
pub struct ParentView<'a> {
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub exe: Option<Cow<'a, str>>,
    /// Arguments.
    pub cmdline: Vec<Cow<'a, str>>,
}

impl<'a> OwnerView<'a> {
    /// The view of a process.
    pub fn of(process: &'a Process) -> Self {
        let executable = process.executable.as_ref();
        let user = process.user.as_ref();
        Self {
            pid: (process.key.pid != 0).then_some(process.key.pid),
            exe: executable.map(|executable| printable(executable.path.as_bstr())),
            exe_kind: executable.map(|executable| executable.kind.name()),
            sha256: executable.and_then(|executable| executable.sha256.as_deref()),
            package: executable.and_then(|executable| executable.package.as_deref()),
            cmdline: arguments(&process.command_line),
            script: process.script().map(|path| printable(path.as_bstr()).into_owned()),
            cwd: process.working_directory.as_ref().map(|path| printable(path.as_bstr())),
            uid: user.and_then(|user| user.uid),
            user: user.and_then(|user| user.name.as_deref()),
            login_user: process.login_user.as_ref().and_then(|user| match (&user.name, user.uid) {
                (Some(name), _) => Some(Cow::Borrowed(&**name)),
                (None, uid) => uid.map(|uid| Cow::Owned(uid.to_string())),
            }),
            parents: process.ancestors.iter().map(ParentView::of).collect(),
            cgroup: process.cgroup.as_deref(),
            unit: process.unit.as_deref(),
            container: process.container.as_ref(),
            netns: process.network_namespace,
            started_at: process.started_at,
        }
    }
}

impl<'a> ParentView<'a> {
    fn of(ancestor: &'a Ancestor) -> Self {
        Self {
            pid: ancestor.pid,
            exe: ancestor.executable.as_ref().map(|path| printable(path.as_bstr())),
            cmdline: arguments(&ancestor.command_line),
        }
    }
}

fn arguments(list: &[bstr::BString]) -> Vec<Cow<'_, str>> {
    list.iter().map(|argument| printable(argument.as_bstr())).collect()
}

/// The text itself where it is UTF-8, else with `\xHH` for the bytes that are not.
pub(crate) fn printable(bytes: &BStr) -> Cow<'_, str> {
    match bytes.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.escape_bytes().to_string()),
    }
}
