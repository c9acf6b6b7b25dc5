//! Notices that rule files and the files of lists changed.
//!
//! Folders are watched, not files: a file that is replaced by a rename, as
//! editors and Kubernetes do, gives no event on a watch of the file itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::runtime::control::{Control, Reload};

/// A watch on files and folders. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

/// How long the files must be still before they are read again: a copy of
/// many files is one change.
const SETTLE: Duration = Duration::from_millis(250);

impl Watch {
    /// Sends [`Control::Reload`] when something below `paths` was written, made, moved or removed.
    pub fn start(paths: &[PathBuf], control: Sender<Control>) -> notify::Result<Self> {
        let (changed, changes) = bounded(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| changes_content(event.kind)) {
                // One waiting notice is as good as many.
                let _ = changed.try_send(());
            }
        })?;
        let folders = folders_of(paths);
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::Recursive)?;
        }
        std::thread::Builder::new()
            .name("egret-watch".into())
            .spawn(move || settle(&changes, &control))
            .map_err(notify::Error::io)?;
        Ok(Self { watcher, folders })
    }

    /// Watches these files as well: those that lie in none of the folders that are watched already.
    ///
    /// # Errors
    /// Where the system cannot watch a folder.
    pub fn follow<'a>(&mut self, files: impl IntoIterator<Item = &'a PathBuf>) -> notify::Result<()> {
        for folder in files.into_iter().map(|file| folder_of(file)) {
            if self.folders.iter().any(|watched| folder.starts_with(watched)) {
                continue;
            }
            self.watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            self.folders.insert(folder);
        }
        Ok(())
    }
}

/// Reading the files makes events too, and must not lead to reading them again.
fn changes_content(kind: EventKind) -> bool {
    matches!(kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_))
}

fn folders_of(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    paths.iter().map(|path| folder_of(path)).collect()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        _ if path.is_dir() => path.to_path_buf(),
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn settle(changes: &Receiver<()>, control: &Sender<Control>) {
    while changes.recv().is_ok() {
        loop {
            match changes.recv_timeout(SETTLE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if control.send(Control::Reload(Reload::Files)).is_err() {
            return;
        }
    }
}
