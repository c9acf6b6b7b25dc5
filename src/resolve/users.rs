//! Names of users and groups, remembered: a name service may ask a server for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attribution::User;

/// The users and groups that were asked for.
#[derive(Debug, Default)]
pub(super) struct Users {
    users: Names,
    groups: Names,
}

#[derive(Debug, Default)]
struct Names {
    known: HashMap<u32, (Option<Arc<str>>, Instant)>,
}

impl Users {
    /// The user of a number, with the name where there is one.
    pub(super) fn user(&mut self, uid: u32) -> User {
        User { uid: Some(uid), name: self.users.of(uid, name_of) }
    }

    /// The name of a group, where it has one.
    pub(super) fn group(&mut self, gid: u32) -> Option<Arc<str>> {
        self.groups.of(gid, name_of_group)
    }
}

impl Names {
    fn of(&mut self, id: u32, ask: fn(u32) -> Option<Arc<str>>) -> Option<Arc<str>> {
        if self.known.len() >= MAX_NAMES {
            self.known.clear();
        }
        let (name, asked) = self.known.entry(id).or_insert_with(|| (ask(id), Instant::now()));
        if asked.elapsed() > TTL {
            (*name, *asked) = (ask(id), Instant::now());
        }
        name.clone()
    }
}

fn name_of(uid: u32) -> Option<Arc<str>> {
    let user = uzers::get_user_by_uid(uid)?;
    Some(user.name().to_string_lossy().into())
}

fn name_of_group(gid: u32) -> Option<Arc<str>> {
    let group = uzers::get_group_by_gid(gid)?;
    Some(group.name().to_string_lossy().into())
}

/// Names of a kind remembered at once; further ones start the memory anew.
const MAX_NAMES: usize = 4_096;

/// For how long a name is believed.
const TTL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_a_stranger_none() {
        let mut users = Users::default();
        assert_eq!(users.user(0).name.as_deref(), Some("root"));
        assert_eq!(users.user(4_000_000_001), User { uid: Some(4_000_000_001), name: None });
        assert_eq!(users.group(0).as_deref(), Some("root"));
        assert_eq!(users.group(4_000_000_001), None);
    }
}
