//! The resolver's place before other threads.
//!
//! A process that lives for milliseconds does not wait until a busy machine
//! finds time to look at it: with a load of five to a processor a thread of
//! ordinary priority starts 4 ms late at the median and 30 ms at worst, one of
//! real-time priority 0.1 ms. The place is for little work: a thread that uses
//! more than half of a processor steps back until that is over.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::resolve::procfs::processor_time;

/// The calling thread's place, reviewed as it works.
#[derive(Debug)]
pub(super) struct Priority {
    is_first: bool,
    since: Instant,
    busy: Duration,
}

impl Priority {
    /// Moves the calling thread before others, as far as it may.
    pub(super) fn claim() -> Self {
        // Needs CAP_SYS_NICE or the resource limits for it; without, the thread waits its turn.
        let _ = rustix::process::setpriority_process(None, NICE);
        Self { is_first: go_first(), since: Instant::now(), busy: processor_time() }
    }

    /// Steps back where the thread has worked much, and forward again where it has not.
    pub(super) fn review(&mut self) {
        let passed = self.since.elapsed();
        if passed < PERIOD {
            return;
        }
        let busy = processor_time();
        let works_much = busy.saturating_sub(self.busy) > passed / 2;
        (self.since, self.busy) = (Instant::now(), busy);
        match (works_much, self.is_first) {
            (true, true) => self.is_first = !schedule(libc::SCHED_OTHER, 0),
            (false, false) => self.is_first = go_first(),
            _ => {}
        }
    }
}

fn go_first() -> bool {
    schedule(libc::SCHED_FIFO, LOWEST_REAL_TIME)
}

fn schedule(policy: i32, priority: i32) -> bool {
    // SAFETY: a `sched_param` is plain numbers, for which zero is a value, whichever fields the C library has.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the pointer is to a live value; 0 is the calling thread, and nothing but its scheduling changes.
    let changed = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0;
    if !changed {
        let error = std::io::Error::last_os_error();
        debug!(%error, "the resolver runs with ordinary priority: owners may be missed while the machine is busy");
    }
    changed
}

/// Before every ordinary thread, after everything else that is real-time.
const LOWEST_REAL_TIME: i32 = 1;

/// Among the ordinary threads (nice(2)).
const NICE: i32 = -10;

/// How often the place is reviewed.
const PERIOD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: 0 is the calling thread, and nothing is changed.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test says why it is skipped")]
    fn who_works_much_steps_back_and_who_rests_comes_forward() {
        let mut priority = Priority::claim();
        if !priority.is_first {
            // Only the privileged may.
            return;
        }
        assert_eq!(policy(), libc::SCHED_FIFO);
        let until = Instant::now() + PERIOD * 2;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        priority.review();
        assert_eq!(policy(), libc::SCHED_OTHER);
        std::thread::sleep(PERIOD * 2);
        priority.review();
        assert_eq!(policy(), libc::SCHED_FIFO);
    }
}
