//! What several tests share.

pub mod certificates;
pub mod data;
pub mod namespace;
pub mod process;
pub mod rsyslog;
pub mod smtp;
pub mod traffic;
pub mod wait;
pub mod webhook;
