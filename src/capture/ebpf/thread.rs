//! The thread that reads the kernel source and hands over its batches.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::{error, warn};

use super::Source;
use crate::attribution::ProcessKey;
use crate::capture::CountBatch;
use crate::time::Timestamp;

/// A source at work on a thread of its own. Dropping it ends the thread and
/// takes the programs out of the kernel.
pub struct Reader {
    batches: Receiver<CountBatch>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    own: ProcessKey,
}

impl Reader {
    /// Starts reading. `now` tells event time.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(source: Source, now: impl Fn() -> Timestamp + Send + 'static) -> io::Result<Self> {
        let (sender, batches) = bounded(MAX_BATCHES);
        let stop = Arc::new(AtomicBool::new(false));
        let own = source.own_process();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("egret-kernel".into())
            .spawn(move || read_all(source, &sender, &stopped, &now))?;
        Ok(Self { batches, stop, thread: Some(thread), own })
    }

    /// Where the batches arrive, one a tick. It is closed after the last one.
    pub fn batches(&self) -> &Receiver<CountBatch> {
        &self.batches
    }

    /// Egret itself, as the kernel names it.
    pub fn own_process(&self) -> ProcessKey {
        self.own
    }

    /// Asks for a last reading, after which the channel closes: what was
    /// counted since the last tick is not lost.
    pub fn finish(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.finish();
        // The thread may wait for room: nobody will read these any more.
        self.batches = crossbeam_channel::never();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that read the kernel source panicked");
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("own", &self.own).finish_non_exhaustive()
    }
}

fn read_all(mut source: Source, sender: &Sender<CountBatch>, stop: &AtomicBool, now: &dyn Fn() -> Timestamp) {
    let mut next = Instant::now() + source.interval();
    let mut complained = false;
    loop {
        let last = stop.load(Ordering::Acquire);
        // While nobody takes the batches the counts stay in the kernel, where they grow no larger.
        if last || (Instant::now() >= next && !sender.is_full()) {
            match source.poll(now()) {
                Ok(batch) => {
                    if sender.send_timeout(batch, GIVE_UP).is_err() {
                        return;
                    }
                }
                Err(error) if !complained => {
                    complained = true;
                    warn!(%error, "the kernel's counters cannot be read at this moment");
                }
                // Said once: it would be said each second.
                Err(_) => {}
            }
            next = Instant::now() + source.interval();
        }
        if last {
            return;
        }
        let left = next.saturating_duration_since(Instant::now());
        if let Err(error) = source.wait(left.clamp(SHORTEST_WAIT, LONGEST_WAIT)) {
            error!(%error, "the kernel source cannot be waited for");
            return;
        }
    }
}

/// Batches that wait for the engine at once.
const MAX_BATCHES: usize = 8;

/// An engine that takes nothing for so long has ended.
const GIVE_UP: Duration = Duration::from_secs(30);

/// So that a full channel does not make the thread spin.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// So that the thread notices soon that it shall end.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
