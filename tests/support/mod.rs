//! What several tests share.

pub mod alerts;
pub mod certificates;
pub mod data;
pub mod namespace;
pub mod process;
pub mod rsyslog;
pub mod scripted;
pub mod smtp;
pub mod traffic;
pub mod wait;
pub mod webhook;
