//! What only the running program does: files, threads, signals, the clock.

pub mod clock;
pub mod control;
pub mod counts;
pub mod coverage;
pub mod fetch;
pub mod live;
pub mod load;
pub mod offline;
pub mod packets;
pub mod privilege;
pub mod record;
pub mod recording;
pub mod rehearsal;
pub mod resume;
pub mod socket;
pub mod source;
pub mod tap;
pub mod tuning;
pub mod watch;
pub mod watching;
