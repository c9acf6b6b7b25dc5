//! Alerts leave: who gets what, in which form, when it is tried again, and when it is given up.
//!
//! Every output has a queue and a thread of its own. The decisions
//! ([`pipeline`], [`route`], [`queue`], [`backoff`], [`encode`]) are pure; the
//! [`Dispatcher`] gives them threads, and the outputs give them wires.

pub mod backoff;
pub mod command;
pub mod email;
pub mod encode;
pub mod endpoint;
pub mod file;
pub mod http;
pub mod journald;
pub mod pipeline;
pub mod queue;
pub mod route;
pub mod secret;
pub mod settings;
pub mod signature;
pub mod status;
pub mod stdout;
pub mod syslog;
pub mod tls;
pub mod webhook;

mod dispatcher;
mod fingerprint;
mod notifier;
mod outlet;
mod output;

pub use crate::alert::{Message, Origin};
pub use dispatcher::{Clock, Context, ControlError, DispatchControl, Dispatcher, Retry, StartError};
pub use notifier::{Notifier, NotifyError};
pub use output::OutputError;
pub use settings::{DispatchSettings, OutputSettings, RoutingSettings};
pub use status::Status;
