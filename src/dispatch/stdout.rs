//! Alerts on standard output: coloured for people at a terminal, plain in a pipe.

use std::io::{ErrorKind, Write};

use crate::alert::Delivery;
use crate::dispatch::notifier::{Notifier, NotifyError};
use crate::time::Timestamp;

/// Writes each delivery and a line end.
///
/// Colours are taken out where standard output is no terminal or `NO_COLOR` is set.
#[derive(Debug, Default)]
pub struct Stdout;

impl Notifier for Stdout {
    fn send(&mut self, delivery: &Delivery, _now: Timestamp) -> Result<(), NotifyError> {
        let mut stdout = anstream::stdout().lock();
        let written = stdout.write_all(&delivery.payload).and_then(|()| stdout.write_all(b"\n"));
        written.and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            // Whoever read it has left for good.
            ErrorKind::BrokenPipe => NotifyError::Gone { reason: "standard output was closed".to_owned() },
            _ => NotifyError::transient(format!("cannot write to standard output: {error}")),
        })
    }
}
