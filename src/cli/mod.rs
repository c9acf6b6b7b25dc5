//! The command line: what people type, and what they get.

pub mod args;
pub mod exit;
pub mod terminal;

mod check;
mod completions;
mod entry;
mod explain;
mod fields;
mod flows;
mod geo;
mod input;
mod lists;
mod logging;
mod man;
mod record;
mod replay;
mod rules;
mod run;
mod schema;
mod test;

pub use entry::main;
