//! The command line: what people type, and what they get.

pub mod args;
pub mod exit;
pub mod terminal;

mod completions;
mod entry;
mod geo;
mod lists;
mod man;

pub use entry::main;
