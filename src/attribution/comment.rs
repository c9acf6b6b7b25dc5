//! Owners that stand in the comments of a capture's packets.
//!
//! ptcpdump writes one comment a subject, each of lines `Key: value`; RustNet
//! writes one line of `key=value`. Nothing in them is escaped: an argument
//! may contain a line end and then something that looks like another key. So
//! a comment's subject is what its first line says, `Args` takes all that
//! follows it, and a later comment of the same subject is not believed.

use std::sync::Arc;

use bstr::{BString, ByteSlice};

use crate::attribution::{Ancestor, Container, Executable, Process, ProcessKey, User};
use crate::escape::one_line;

/// The process that a packet's comments name, if they name one.
pub fn process_of_comments<'a>(comments: impl IntoIterator<Item = &'a [u8]>) -> Option<Process> {
    let mut subjects = Subjects::default();
    for comment in comments {
        subjects.read(comment);
    }
    subjects.process()
}

/// The comments that name a process, in ptcpdump's way.
///
/// Whatever would end a line or act on a terminal is escaped, so that no
/// argument can look like another line.
pub fn comments_of(process: &Process) -> Vec<String> {
    let mut comments = Vec::new();
    let mut own = format!("PID: {}", process.key.pid);
    if let Some(path) = process.executable_path() {
        push_line(&mut own, "Cmd", path);
    }
    if !process.command_line.is_empty() {
        push_line(&mut own, "Args", &process.command_line_text());
    }
    comments.push(own);
    if let Some(uid) = process.user.as_ref().and_then(|user| user.uid) {
        comments.push(format!("UserId: {uid}"));
    }
    if let Some(parent) = process.ancestors.first() {
        let mut text = format!("ParentPID: {}", parent.pid);
        if let Some(path) = &parent.executable {
            push_line(&mut text, "ParentCmd", path);
        }
        if !parent.command_line.is_empty() {
            push_line(&mut text, "ParentArgs", &bstr::join(" ", &parent.command_line));
        }
        comments.push(text);
    }
    if let Some(container) = &process.container {
        let mut text = format!("ContainerName: {}", one_line(container.name.as_deref().unwrap_or_default()));
        push_line(&mut text, "ContainerId", container.id.as_bytes());
        push_line(&mut text, "ContainerImage", container.image.as_deref().unwrap_or_default().as_bytes());
        comments.push(text);
        if let Some(pod) = &container.pod {
            let mut text = format!("PodName: {}", one_line(pod.as_bytes()));
            push_line(&mut text, "PodNamespace", container.namespace.as_deref().unwrap_or_default().as_bytes());
            comments.push(text);
        }
    }
    comments
}

fn push_line(text: &mut String, key: &str, value: &[u8]) {
    let value = one_line(value);
    let cut = value.floor_char_boundary(MAX_VALUE);
    let dots = if cut < value.len() { "..." } else { "" };
    text.push_str(&format!("\n{key}: {}{dots}", &value[..cut]));
}

/// What the comments of one packet are about.
#[derive(Default)]
struct Subjects<'a> {
    process: Option<Lines<'a>>,
    user: Option<u32>,
    parent: Option<Lines<'a>>,
    container: Option<Lines<'a>>,
    pod: Option<Lines<'a>>,
    rustnet: Option<Process>,
}

/// The lines of a comment, with `Args` standing for all that follows it.
struct Lines<'a> {
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Subjects<'a> {
    fn read(&mut self, comment: &'a [u8]) {
        if let Some(fields) = comment.strip_prefix(b"rustnet ") {
            self.rustnet = self.rustnet.take().or_else(|| rustnet(fields));
            return;
        }
        let lines = Lines::read(comment);
        let Some((subject, value)) = lines.fields.first() else { return };
        let place = match *subject {
            b"PID" => &mut self.process,
            b"ParentPID" => &mut self.parent,
            b"ContainerName" | b"ContainerId" => &mut self.container,
            b"PodName" => &mut self.pod,
            b"UserId" => {
                self.user = self.user.or(number(value));
                return;
            }
            _ => return,
        };
        place.get_or_insert(lines);
    }

    fn process(self) -> Option<Process> {
        let Some(lines) = &self.process else { return self.rustnet };
        let pid = number(lines.value(&[b"PID"])?)?;
        let uid = self.user.or_else(|| number(lines.value(&[b"UserId"])?));
        Some(Process {
            key: ProcessKey { pid, start: 0 },
            executable: lines.value(&COMMAND).map(executable),
            command_line: lines.value(&[b"Args"]).map(arguments).unwrap_or_default(),
            user: uid.map(|uid| User { uid: Some(uid), name: None }),
            ancestors: self.parent.as_ref().and_then(parent).into_iter().collect(),
            container: container(self.container.as_ref(), self.pod.as_ref()),
            ..Process::default()
        })
    }
}

impl<'a> Lines<'a> {
    fn read(comment: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        let mut rest = comment;
        while !rest.is_empty() {
            let (line, after) = rest.split_once_str("\n").unwrap_or((rest, b""));
            if let Some((key, value)) = line.split_once_str(":") {
                let key = key.trim();
                if matches!(key, b"Args" | b"ParentArgs") {
                    let value = rest.split_once_str(":").map_or(value, |(_, value)| value);
                    fields.push((key, value.trim()));
                    break;
                }
                fields.push((key, value.trim()));
            } else if fields.is_empty() {
                // The first line tells the subject, and this one tells none.
                break;
            }
            rest = after;
        }
        Self { fields }
    }

    /// The first value of any of these keys, unless it is empty.
    fn value(&self, keys: &[&[u8]]) -> Option<&'a [u8]> {
        let found = self.fields.iter().find(|(key, _)| keys.contains(key));
        found.map(|(_, value)| *value).filter(|value| !value.is_empty())
    }

    fn text(&self, key: &[u8]) -> Option<Arc<str>> {
        self.value(&[key]).map(|value| value.to_str_lossy().into())
    }
}

fn parent(lines: &Lines<'_>) -> Option<Ancestor> {
    Some(Ancestor {
        pid: number(lines.value(&[b"ParentPID"])?)?,
        executable: lines.value(&PARENT_COMMAND).map(BString::from),
        command_line: lines.value(&[b"ParentArgs"]).map(arguments).unwrap_or_default(),
    })
}

fn container(container: Option<&Lines<'_>>, pod: Option<&Lines<'_>>) -> Option<Container> {
    let text = |lines: Option<&Lines<'_>>, key: &[u8]| lines.and_then(|lines| lines.text(key));
    let found = Container {
        id: text(container, b"ContainerId").unwrap_or_default(),
        runtime: None,
        name: text(container, b"ContainerName"),
        image: text(container, b"ContainerImage"),
        pod: text(pod, b"PodName"),
        namespace: text(pod, b"PodNamespace"),
        labels: Vec::new(),
    };
    (found != Container::default()).then_some(found)
}

/// `process=curl pid=1234 ppid=1 uid=0 attr=... direction=outgoing ...`; a name may contain blanks.
fn rustnet(fields: &[u8]) -> Option<Process> {
    let (name, rest) = fields.strip_prefix(b"process=")?.split_once_str(" pid=")?;
    let mut words = rest.split_str(" ");
    let pid = number(words.next()?)?;
    let mut process = Process {
        key: ProcessKey { pid, start: 0 },
        executable: (!name.is_empty()).then(|| executable(name)),
        ..Process::default()
    };
    for (key, value) in words.filter_map(|word| word.split_once_str("=")) {
        match (key, number(value)) {
            (b"uid", Some(uid)) => process.user = Some(User { uid: Some(uid), name: None }),
            (b"ppid", Some(pid)) => process.ancestors.push(Ancestor { pid, ..Ancestor::default() }),
            _ => {}
        }
    }
    process.ancestors.truncate(1);
    Some(process)
}

fn executable(path: &[u8]) -> Executable {
    Executable { path: path.into(), ..Executable::default() }
}

/// The arguments are joined by blanks; where they had blanks of their own is not told.
fn arguments(line: &[u8]) -> Vec<BString> {
    line.split_str(" ").map(BString::from).collect()
}

fn number(text: &[u8]) -> Option<u32> {
    text.to_str().ok()?.trim().parse().ok()
}

/// Longer values are cut, and end in dots as ptcpdump's do: each packet carries them.
const MAX_VALUE: usize = 1024;

const COMMAND: [&[u8]; 2] = [b"Cmd", b"Command"];
const PARENT_COMMAND: [&[u8]; 2] = [b"ParentCmd", b"ParentCommand"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptcpdump_names_process_user_parent_container_and_pod() {
        let process = read(&[
            "PID: 122868\nCmd: /usr/bin/curl\nArgs: curl kernel.com",
            "ThreadId: 122869\nThreadName: curl",
            "UserId: 1000",
            "ParentPID: 53229\nParentCmd: /usr/bin/bash\nParentArgs: -bash",
            "ContainerName: web\nContainerId: 0123abcd\nContainerImage: nginx:1\nContainerLabels: {\"a\":\"b\"}",
            "PodName: web-0\nPodNamespace: shop\nPodUID: 7",
        ])
        .unwrap();
        assert_eq!(process.key, ProcessKey { pid: 122_868, start: 0 });
        assert_eq!(process.executable_path(), Some(&b"/usr/bin/curl"[..]));
        assert_eq!(process.command_line, ["curl", "kernel.com"]);
        assert_eq!(process.user.unwrap().uid, Some(1000));
        let [parent] = &process.ancestors[..] else { panic!("one parent") };
        assert_eq!((parent.pid, parent.executable.as_ref().unwrap().as_bstr()), (53_229, b"/usr/bin/bash".as_bstr()));
        let container = process.container.unwrap();
        assert_eq!((&*container.id, container.name.as_deref()), ("0123abcd", Some("web")));
        assert_eq!((container.pod.as_deref(), container.namespace.as_deref()), (Some("web-0"), Some("shop")));
    }

    #[test]
    fn older_files_say_command() {
        let process = read(&["PID: 7\nTID: 9\nCommand: /bin/nc\nArgs: nc -l"]).unwrap();
        assert_eq!(process.executable_path(), Some(&b"/bin/nc"[..]));
        assert_eq!(process.command_line_text(), "nc -l");
    }

    #[test]
    fn an_argument_cannot_forge_another_process() {
        let process = read(&["PID: 7\nCmd: /bin/nc\nArgs: nc\nPID: 1\nCmd: /sbin/init\nUserId: 0"]).unwrap();
        assert_eq!(process.key.pid, 7);
        assert_eq!(process.executable_path(), Some(&b"/bin/nc"[..]));
        assert_eq!(process.command_line_text(), "nc\nPID: 1\nCmd: /sbin/init\nUserId: 0");
        assert_eq!(process.user, None);
    }

    #[test]
    fn a_second_comment_of_a_subject_is_not_believed() {
        let process = read(&["PID: 7\nCmd: /bin/nc", "PID: 1\nCmd: /sbin/init"]).unwrap();
        assert_eq!(process.key.pid, 7);
    }

    #[test]
    fn other_comments_name_nobody() {
        assert_eq!(read(&["retransmission?", "Note: PID: 7", "PID: many\nCmd: /bin/nc", ""]), None);
        assert_eq!(read(&["ThreadId: 1\nPID: 7", "seen at noon\nPID: 7"]), None);
    }

    #[test]
    fn rustnet_names_a_process() {
        let process =
            read(&["rustnet process=Web Content pid=1234 ppid=1 uid=0 attr=ebpf direction=outgoing"]).unwrap();
        assert_eq!(process.key.pid, 1234);
        assert_eq!(process.executable_name(), Some(&b"Web Content"[..]));
        assert_eq!(process.user.unwrap().uid, Some(0));
        assert_eq!(process.ancestors[0].pid, 1);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let process = Process {
            key: ProcessKey { pid: 4121, start: 0 },
            executable: Some(Executable { path: "/usr/bin/rclone".into(), ..Executable::default() }),
            command_line: vec!["rclone".into(), "copy".into()],
            user: Some(User { uid: Some(1000), name: None }),
            ancestors: vec![Ancestor { pid: 7, executable: Some("/bin/sh".into()), command_line: vec!["sh".into()] }],
            container: Some(Container { id: "0123abcd".into(), name: Some("web".into()), ..Container::default() }),
            ..Process::default()
        };
        let comments = comments_of(&process);
        let again = process_of_comments(comments.iter().map(|comment| comment.as_bytes())).unwrap();
        assert_eq!(again, process);
    }

    #[test]
    fn an_argument_with_a_line_end_stays_one_line() {
        let forged = "x\nPID: 1\nCmd: /sbin/init\r\u{2028}";
        let process = Process {
            key: ProcessKey { pid: 7, start: 0 },
            executable: Some(Executable { path: forged.into(), ..Executable::default() }),
            command_line: vec![forged.into()],
            ancestors: vec![Ancestor { pid: 3, executable: Some(forged.into()), command_line: vec![forged.into()] }],
            ..Process::default()
        };
        for comment in comments_of(&process) {
            assert!(comment.lines().count() <= 3, "{comment:?}");
            assert!(comment.lines().skip(1).all(|line| !line.starts_with("PID")), "{comment:?}");
        }
        // A reader that believes every line, as ptcpdump's own does, is not fooled either.
        let all = comments_of(&process).join("\n");
        assert_eq!(all.lines().filter(|line| line.starts_with("PID:")).count(), 1);
    }

    fn read(comments: &[&str]) -> Option<Process> {
        process_of_comments(comments.iter().map(|comment| comment.as_bytes()))
    }
}
