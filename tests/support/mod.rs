//! What several tests share.

pub mod alerts;
pub mod attack;
pub mod certificates;
pub mod data;
pub mod egret;
pub mod mmdb;
pub mod namespace;
pub mod process;
pub mod rsyslog;
pub mod schemas;
pub mod scripted;
pub mod sinks;
pub mod smtp;
pub mod traffic;
pub mod turns;
pub mod wait;
pub mod webhook;
