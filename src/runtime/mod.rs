//! What only the running program does: files, threads, signals, the clock.

pub mod load;
