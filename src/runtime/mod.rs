//! What only the running program does: files, threads, signals, the clock.

pub mod clock;
pub mod load;
pub mod lookups;
pub mod privilege;
