//! Secrets in command lines, made unreadable before anything else sees them.
//!
//! What follows a word such as `--password` or `Authorization:`, the password
//! in an URL, and keys that are known by their form become `***`. On by
//! default: in alerts, and in what is kept on disk.

use std::borrow::Cow;
use std::sync::Arc;

use bstr::{BString, ByteSlice};
use regex::bytes::Regex;

use crate::alert::Notification;
use crate::attribution::Process;
use crate::rule::Value;

/// Finds and covers secrets.
#[derive(Debug, Clone)]
pub struct Redactor {
    patterns: Vec<Regex>,
}

impl Redactor {
    /// The patterns for what everybody uses, and further ones: the group named `secret`, or else the
    /// whole match, is covered.
    pub fn new(further: &[String]) -> Result<Self, regex::Error> {
        let all = PATTERNS.iter().copied().chain(further.iter().map(String::as_str));
        Ok(Self { patterns: all.map(Regex::new).collect::<Result<_, _>>()? })
    }

    /// The notification without secrets; the same one where it has none.
    pub fn redact(&self, notification: Arc<Notification>) -> Arc<Notification> {
        let Some(alert) = &notification.alert else { return notification };
        let mut covered = (**alert).clone();
        let mut changed = false;
        let mut cover = |value: &mut Value| changed |= self.cover(value);
        if let Some(process) = &mut covered.process {
            cover(&mut process.cmdline);
            cover(&mut process.args);
        }
        if let Some(parent) = &mut covered.parent {
            cover(&mut parent.cmdline);
        }
        for process in covered.processes.iter_mut().map(|(process, _)| process).chain(&mut covered.suspects) {
            cover(&mut process.cmdline);
            cover(&mut process.args);
        }
        for flow in &mut covered.flows {
            let mut seen = (**flow).clone();
            let parts = [
                seen.process.as_mut().is_some_and(|process| self.cover(&mut process.cmdline)),
                seen.process.as_mut().is_some_and(|process| self.cover(&mut process.args)),
                seen.parent.as_mut().is_some_and(|parent| self.cover(&mut parent.cmdline)),
            ];
            if parts.contains(&true) {
                (*flow, changed) = (Arc::new(seen), true);
            }
        }
        let mut cover = |value: &mut Value| changed |= self.cover(value);
        covered.group.iter_mut().for_each(|(_, value)| cover(value));
        covered.top.values_mut().flatten().for_each(|(value, _)| cover(value));
        if let Cow::Owned(summary) = self.text(covered.summary.as_bytes()) {
            covered.summary = summary.to_str_lossy().into_owned();
            changed = true;
        }
        if !changed {
            return notification;
        }
        Arc::new(Notification { alert: Some(Arc::new(covered)), ..(*notification).clone() })
    }

    /// The process without secrets in its command line and in those of its parents.
    pub fn process<'a>(&self, process: &'a Process) -> Cow<'a, Process> {
        let mut covered = process.clone();
        let mut changed = self.list(&mut covered.command_line);
        for ancestor in &mut covered.ancestors {
            changed |= self.list(&mut ancestor.command_line);
        }
        if changed { Cow::Owned(covered) } else { Cow::Borrowed(process) }
    }

    /// A text without secrets.
    pub fn text<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut text = Cow::Borrowed(text);
        for pattern in &self.patterns {
            if let Some(covered) = cover_matches(pattern, &text) {
                text = Cow::Owned(covered);
            }
        }
        text
    }

    fn cover(&self, value: &mut Value) -> bool {
        match value {
            Value::Text(text) => match self.text(text) {
                Cow::Owned(covered) => {
                    *text = BString::from(covered);
                    true
                }
                Cow::Borrowed(_) => false,
            },
            Value::List(list) => self.list(list),
            Value::Missing | Value::Number(_) | Value::Ip(_) => false,
        }
    }

    fn list(&self, list: &mut [BString]) -> bool {
        // A secret may be an argument of its own, after the one that announces it.
        let joined = bstr::join("\u{1f}", &*list).replace("\u{1f}", " ");
        let Cow::Owned(_) = self.text(&joined) else { return false };
        let mut announced = false;
        for item in list.iter_mut() {
            let announces = self.announces(item);
            if announced {
                *item = BString::from("***");
            } else if let Cow::Owned(covered) = self.text(item) {
                *item = BString::from(covered);
            }
            announced = announces;
        }
        true
    }

    fn announces(&self, item: &[u8]) -> bool {
        matches!(self.text(&[item, b" x"].concat()), Cow::Owned(covered) if covered.ends_with(b" ***"))
    }
}

fn cover_matches(pattern: &Regex, text: &[u8]) -> Option<Vec<u8>> {
    let mut covered = Vec::new();
    let mut end = 0;
    for captures in pattern.captures_iter(text) {
        let Some(secret) = captures.name("secret").or_else(|| captures.get(0)) else { continue };
        if secret.as_bytes() == b"***" {
            continue;
        }
        covered.extend_from_slice(text.get(end..secret.start()).unwrap_or_default());
        covered.extend_from_slice(b"***");
        end = secret.end();
    }
    if end == 0 {
        return None;
    }
    covered.extend_from_slice(text.get(end..).unwrap_or_default());
    Some(covered)
}

const PATTERNS: &[&str] = &[
    // --password=x, --api-key x, PGPASSWORD=x, "token": "x"
    r#"(?i-u)(?:^|[\s"'&?;,{-])[a-z0-9_-]*(?:password|passwd|passphrase|passwort|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|sas[_-]?key)["']?(?:\s*[=:]\s*|\s+)["']?(?P<secret>[^\s"'&;,]+)"#,
    // Authorization: Bearer x, X-Auth-Token: x
    r#"(?i-u)(?:authorization|x-[a-z-]*(?:key|token|auth)|cookie)["']?\s*[:=]\s*(?:(?:bearer|basic|token|negotiate|digest|apikey)\s+)?["']?(?P<secret>[^\s"']+)"#,
    r#"(?i-u)\bbearer\s+(?P<secret>[a-z0-9._~+/=-]{8,})"#,
    // https://user:x@host
    r#"(?i-u)\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<secret>[^\s@/]+)@"#,
    // curl -u user:x, wget --user x:y, mysql -px
    r#"(?-u)(?:^|\s)(?:-u|--user|--proxy-user)[\s=]*["']?[^\s:"']+:(?P<secret>[^\s"']+)"#,
    r#"(?-u)(?:^|/|\s)(?:mysql|mysqldump|mariadb)\S*\s(?:.*\s)?-p(?P<secret>[^\s]+)"#,
    r#"(?-u)(?:^|\s)sshpass\s+-p\s*(?P<secret>\S+)"#,
    // Keys that are known by their form.
    r"(?-u)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"(?-u)\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|xox[abeprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,}|whsec_[A-Za-z0-9+/=]{16,}|SG\.[A-Za-z0-9_.-]{20,}|AIza[A-Za-z0-9_-]{30,})",
    r"(?-u)\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, DocumentKind, ProcessFacts};
    use crate::time::Timestamp;

    #[test]
    fn secrets_are_covered_and_nothing_else() {
        let redactor = Redactor::new(&[r"corp-(?P<secret>\d+)".to_owned()]).unwrap();
        for (line, expected) in [
            ("tool --password=hunter2 --user bob", "tool --password=*** --user bob"),
            ("tool --password hunter2 -v", "tool --password *** -v"),
            ("PGPASSWORD=x psql", "PGPASSWORD=*** psql"),
            ("env AWS_SECRET_ACCESS_KEY=abc/def+ghi aws s3 cp", "env AWS_SECRET_ACCESS_KEY=*** aws s3 cp"),
            ("aws AKIAIOSFODNN7EXAMPLE", "aws ***"),
            ("curl -H Authorization: Bearer abc.def https://x", "curl -H Authorization: Bearer *** https://x"),
            ("curl -H 'X-Api-Key: abc'", "curl -H 'X-Api-Key: ***'"),
            ("curl -u alice:pw https://x", "curl -u alice:*** https://x"),
            ("git clone https://bob:pw@git.example.org/r", "git clone https://bob:***@git.example.org/r"),
            ("mysql -h db -pS3cret app", "mysql -h db -p*** app"),
            ("curl -d {\"token\": \"abc\"} x", "curl -d {\"token\": \"***\"} x"),
            ("x ghp_0123456789012345678901234567890123456", "x ***"),
            ("vendor corp-12345", "vendor corp-***"),
            ("rclone copy /srv/tokens remote:bkt", "rclone copy /srv/tokens remote:bkt"),
            ("ssh -p 2222 host", "ssh -p 2222 host"),
            ("curl https://example.org:8443/a@b", "curl https://example.org:8443/a@b"),
            ("vim password.txt", "vim password.txt"),
        ] {
            assert_eq!(redactor.text(line.as_bytes()).to_str_lossy(), expected);
        }
    }

    #[test]
    fn arguments_are_covered_one_by_one() {
        let redactor = Redactor::new(&[]).unwrap();
        let mut value = Value::List(vec!["tool".into(), "--password".into(), "hunter2".into(), "-v".into()]);
        assert!(redactor.cover(&mut value));
        assert_eq!(value.to_string(), "tool --password *** -v");
    }

    #[test]
    fn a_notification_without_secrets_is_the_same_one() {
        let redactor = Redactor::new(&[]).unwrap();
        let with = |line: &str| {
            let args = Value::List(line.split(' ').map(Into::into).collect());
            let process = ProcessFacts { cmdline: Value::Text(line.into()), args, ..ProcessFacts::default() };
            let alert = Alert { process: Some(process), ..Alert::default() };
            Arc::new(Notification::of_alert(DocumentKind::Firing, Timestamp::EPOCH, alert))
        };
        let clean = with("rclone copy");
        assert!(Arc::ptr_eq(&clean, &redactor.redact(Arc::clone(&clean))));
        let covered = redactor.redact(with("x --token=abc"));
        let process = covered.alert.as_ref().unwrap().process.as_ref().unwrap();
        assert_eq!(process.cmdline.to_string(), "x --token=***");
        assert_eq!(process.args.to_string(), "x --token=***");
    }
}
