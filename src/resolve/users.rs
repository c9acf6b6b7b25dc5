//! Names of users, remembered: a name service may ask a server for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::attribution::User;

/// The users that were asked for.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: HashMap<u32, (Option<Arc<str>>, Instant)>,
}

impl Users {
    /// The user of a number, with the name where there is one.
    pub(super) fn user(&mut self, uid: u32) -> User {
        if self.names.len() >= MAX_USERS {
            self.names.clear();
        }
        let (name, asked) = self.names.entry(uid).or_insert_with(|| (name_of(uid), Instant::now()));
        if asked.elapsed() > TTL {
            (*name, *asked) = (name_of(uid), Instant::now());
        }
        User { uid: Some(uid), name: name.clone() }
    }
}

fn name_of(uid: u32) -> Option<Arc<str>> {
    let user = uzers::get_user_by_uid(uid)?;
    Some(user.name().to_string_lossy().into())
}

/// Users remembered at once; further ones start the memory anew.
const MAX_USERS: usize = 4_096;

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
    }
}
