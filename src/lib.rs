//! Egret: which program is sending how much to where, is that more than
//! policy allows, and who must know now?
//!
//! ```text
//! capture -> packet -> flow -> attribution -> window -> rule -> alert -> dispatch
//!  (edge)   |------------------- pure, wired by engine -------------|    (edge)
//! ```

pub mod escape;
pub mod memory;
pub mod time;
pub mod units;

pub mod packet;

pub mod flow;

pub mod attribution;

pub mod names;

pub mod window;

pub mod rule;

pub mod alert;

pub mod engine;

pub mod view;

pub mod capture;

pub mod resolve;

pub mod dispatch;

pub mod store;

pub mod config;

pub mod runtime;

pub mod cli;
