//! From verdicts to alerts: their life, and what is said of them.
//!
//! Pure.

mod companion;
mod compose;
mod delivery;
mod document;
mod evidence;
mod group;
mod inhibit;
mod label;
mod ledger;
mod lifecycle;
mod message;
mod packets;
mod recall;
mod redact;
mod sentence;
mod silence;

pub use companion::{CompanionFlow, Companions};
pub use compose::{Facts, compose};
pub use delivery::Delivery;
pub use document::{
    Alert, AlertState, Analysis, Condition, Destination, DocumentKind, ExecutableFacts, Network, Notification, Parent,
    Problem, ProcessFacts, Reason, RuleFacts, Source, UserFacts, Window,
};
pub use evidence::{Evidence, Seen, Sighting};
pub use group::{Due, Groups, Labels, Waits, Words};
pub use inhibit::Inhibition;
pub use label::{LABELS, Matcher, PatternError, label_values};
pub use ledger::{AlertRecord, Change, DeliveryState, GivenUp, Ledger, LedgerError, Standing};
pub use lifecycle::{Findings, Lifecycle, Stage, Step, alert_key, episode_uid, group_digest};
pub use message::{Message, Origin, message_id};
pub use packets::{PacketFile, PacketsWanted, RecentFlows};
pub use recall::recall;
pub use redact::Redactor;
pub use silence::{Silence, SilenceError, Silences};
