//! The command line: what people type, and what they get.

pub mod args;
pub mod exit;
pub mod terminal;

mod alerts;
mod check;
mod client;
mod completions;
mod entry;
mod explain;
mod fields;
mod flows;
mod geo;
mod import;
mod input;
mod lists;
mod logging;
mod man;
mod outbox;
mod output;
mod record;
mod replay;
mod routes;
mod rules;
mod run;
mod schema;
mod silence;
mod status;
mod test;
mod webhook;

pub use entry::main;
