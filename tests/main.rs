//! One test binary; the files beside this one are its modules.

#![allow(clippy::print_stderr, reason = "tests say why they are skipped")]

#[cfg(feature = "ebpf")]
mod accuracy;
mod architecture;
mod captures;
mod companions;
mod control;
mod delivery;
mod descriptions;
mod first_contact;
mod flood;
mod formats;
mod held_back;
mod language;
mod list_update;
mod lists;
mod live_attacks;
mod live_containers;
mod live_evidence;
#[cfg(feature = "ebpf")]
mod live_kernel;
mod live_names;
mod live_receivers;
mod live_resolve;
mod live_restart;
mod live_run;
#[cfg(feature = "ebpf")]
mod live_tap;
mod live_tools;
mod look_ups;
mod mistakes;
mod name_readers;
mod names;
mod oracle;
mod pack;
mod places;
mod property;
mod readme;
mod receivers;
mod recording;
mod reload;
mod reports;
mod rule_tools;
mod scenario;
mod schema;
mod services;
mod sigma;

mod support;
mod torture;
mod windows;
mod yaml_suite;
