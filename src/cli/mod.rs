//! The command line: what people type, and what they get.

pub mod args;
pub mod exit;
pub mod terminal;

mod completions;
mod entry;
mod flows;
mod geo;
mod input;
mod lists;
mod man;
mod replay;
mod run;

pub use entry::main;
