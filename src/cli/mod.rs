//! The command line: what people type, and what they get.

pub mod args;
pub mod exit;
pub mod terminal;

mod alerts;
mod backtest;
mod check;
mod client;
mod completions;
mod entry;
mod exceptions;
mod explain;
mod explain_match;
mod export;
mod fields;
mod flows;
mod geo;
mod import;
mod input;
mod lists;
mod logging;
mod man;
mod metrics;
mod outbox;
mod output;
mod record;
mod reload;
mod replay;
mod routes;
mod rules;
mod run;
mod schema;
mod silence;
mod status;
mod suggest;
mod test;
mod webhook;
mod why;
mod windows;

pub use entry::main;
