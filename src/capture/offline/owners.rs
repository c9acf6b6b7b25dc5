//! The owners that a capture's comments name, each made once.

use std::sync::Arc;

use hashbrown::HashMap;
use pcap_parser::{OptionCode, PcapNGOption};

use crate::attribution::{Process, process_of_comments};

/// Comments seen so far and whom they name. Nearly all packets of a process
/// have the same comments, so they share one value.
#[derive(Default)]
pub(super) struct Owners {
    known: HashMap<Vec<u8>, Option<Arc<Process>>>,
    joined: Vec<u8>,
}

impl Owners {
    /// Whom the comments among a packet's options name.
    pub(super) fn of_comments(&mut self, options: &[PcapNGOption<'_>]) -> Option<Arc<Process>> {
        let comments = options
            .iter()
            .filter(|option| option.code == OptionCode::Comment)
            // A comment that is shorter than it says is as good as absent.
            .filter_map(|option| option.as_bytes().ok());
        self.joined.clear();
        for comment in comments.clone() {
            self.joined.extend_from_slice(&(comment.len() as u64).to_ne_bytes());
            self.joined.extend_from_slice(comment);
        }
        if self.joined.is_empty() {
            return None;
        }
        if let Some(owner) = self.known.get(&self.joined) {
            return owner.clone();
        }
        let owner = process_of_comments(comments).map(Arc::new);
        if self.joined.len() <= MAX_KEY {
            if self.known.len() >= MAX_KNOWN {
                self.known.clear();
            }
            self.known.insert(self.joined.clone(), owner.clone());
        }
        owner
    }
}

/// Comments remembered at once. When there are more, all are forgotten and
/// read anew, which costs time but nothing else.
const MAX_KNOWN: usize = 4096;
/// Longer comments are read anew each time.
const MAX_KEY: usize = 16 * 1024;
