//! From a message to the bytes that a receiver reads, one file a format.
//!
//! Pure. Text that comes from traffic or processes is escaped here.

pub mod cef;
pub mod chat;
pub mod ecs_json;
pub mod email;
pub mod intake;
pub mod json;
pub mod leef;
mod network_activity;
pub mod ocsf;
pub mod paging;
pub mod rfc5424;
pub mod template;
pub mod text;

#[cfg(test)]
pub mod example;

mod encoder;

pub use encoder::Encoder;
