//! From flows to owners: who sent this, and how we know.
//!
//! Pure. Unknown is a value, never a made-up process.

mod cgroup;
mod comment;
mod declared;
mod evidence;
mod lookup;
mod process;
mod table;
mod unexplained;
mod update;

pub use cgroup::Cgroup;
pub use comment::{comments_of, process_of_comments};
pub use declared::{DeclarationError, DeclaredOwner, DeclaredOwners};
pub use evidence::{Attribution, Certainty, Evidence, Suspects, UnknownReason};
pub use lookup::Lookup;
pub use process::{Ancestor, Container, Executable, ExecutableKind, Process, ProcessKey, User};
pub use table::{OwnerTable, PENDING};
pub use unexplained::Unexplained;
pub use update::FlowUpdate;
