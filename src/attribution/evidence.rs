//! How an owner is known, or why it is not.

use std::sync::Arc;

use bstr::BString;

use crate::attribution::{Process, ProcessKey};
use crate::time::Timestamp;

/// Whose flow it is.
#[derive(Debug, Clone)]
pub enum Attribution {
    /// A look-up is under way.
    Pending {
        /// Since when.
        since: Timestamp,
    },
    /// The owner is known.
    Known {
        /// The owner.
        process: Arc<Process>,
        /// How it is known.
        evidence: Evidence,
    },
    /// It could not be told.
    Unknown(UnknownReason),
    /// It was on the wire and no socket sent it; these could have.
    Suspected(Arc<Suspects>),
}

/// Who could have made what no socket sent: the holders of packet sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspects {
    /// Why no owner is known.
    pub reason: UnknownReason,
    /// The processes.
    pub processes: Vec<Arc<Process>>,
    /// The paths of their executables, each once.
    executables: Vec<BString>,
}

/// How an owner is known, the strongest first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Counted by the kernel in the owner's own context.
    Kernel,
    /// The socket with exactly this five-tuple.
    Exact,
    /// The socket bound to this local port.
    Wildcard,
    /// A socket that several processes hold; these are the others.
    Inherited(Arc<[ProcessKey]>),
    /// The listener that accepted the connection.
    Listener,
    /// The client behind a proxy such as a local resolver.
    Carrier,
    /// The capture's own comments.
    Capture,
    /// The `--owners` file.
    Declared,
}

/// How far an attribution can be trusted: the rule field `attribution`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Named by the kernel, by the exact socket or by the data itself.
    Exact,
    /// Concluded from a port, a listener, a shared socket or a proxy.
    Inferred,
    /// Not known.
    Unknown,
}

/// Why an owner is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownReason {
    /// The process was gone before it could be looked up.
    Gone,
    /// The process may not be looked at.
    Permission,
    /// The packet passed through this host.
    Forwarded,
    /// The kernel itself sent it.
    Kernel,
    /// No socket table has it: packet injection, or no socket any more.
    NoSocket,
    /// Several processes could have sent it.
    Ambiguous,
    /// Nothing can tell: a capture without owners.
    NoSource,
}

impl Attribution {
    /// The owner, where it is known.
    pub fn process(&self) -> Option<&Arc<Process>> {
        match self {
            Self::Known { process, .. } => Some(process),
            Self::Pending { .. } | Self::Unknown(_) | Self::Suspected(_) => None,
        }
    }

    /// Why the owner is not known, where it is not.
    pub fn unknown_reason(&self) -> Option<UnknownReason> {
        match self {
            Self::Known { .. } | Self::Pending { .. } => None,
            Self::Unknown(reason) => Some(*reason),
            Self::Suspected(suspects) => Some(suspects.reason),
        }
    }

    /// Who could have sent what no socket did.
    pub fn suspects(&self) -> Option<&Arc<Suspects>> {
        match self {
            Self::Suspected(suspects) => Some(suspects),
            Self::Known { .. } | Self::Pending { .. } | Self::Unknown(_) => None,
        }
    }

    /// The evidence, where the owner is known.
    pub fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Known { evidence, .. } => Some(evidence),
            Self::Pending { .. } | Self::Unknown(_) | Self::Suspected(_) => None,
        }
    }

    /// How far it can be trusted.
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::Known { evidence, .. } => evidence.certainty(),
            Self::Pending { .. } | Self::Unknown(_) | Self::Suspected(_) => Certainty::Unknown,
        }
    }

    /// Whether a look-up is under way.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending { .. })
    }
}

impl Suspects {
    /// These processes, in the order of their keys.
    pub fn new(reason: UnknownReason, mut processes: Vec<Arc<Process>>) -> Self {
        processes.sort_by_key(|process| process.key);
        let mut executables: Vec<BString> =
            processes.iter().filter_map(|process| process.executable_path()).map(BString::from).collect();
        executables.sort_unstable();
        executables.dedup();
        Self { reason, processes, executables }
    }

    /// The paths of their executables, each once.
    pub fn executables(&self) -> &[BString] {
        &self.executables
    }
}

impl Evidence {
    /// The word for it in rules, alerts and flows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Exact => "exact",
            Self::Wildcard => "wildcard",
            Self::Inherited(_) => "inherited",
            Self::Listener => "listener",
            Self::Carrier => "carrier",
            Self::Capture => "capture",
            Self::Declared => "declared",
        }
    }

    /// How far it can be trusted.
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::Kernel | Self::Exact | Self::Capture | Self::Declared => Certainty::Exact,
            Self::Wildcard | Self::Inherited(_) | Self::Listener | Self::Carrier => Certainty::Inferred,
        }
    }
}

impl Certainty {
    /// The word for it in rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

impl UnknownReason {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Gone, Self::Permission, Self::Forwarded, Self::Kernel, Self::NoSocket, Self::Ambiguous, Self::NoSource];

    /// The word for it in alerts and flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Permission => "permission",
            Self::Forwarded => "forwarded",
            Self::Kernel => "kernel",
            Self::NoSocket => "no_socket",
            Self::Ambiguous => "ambiguous",
            Self::NoSource => "no_source",
        }
    }
}
