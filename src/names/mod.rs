//! What a remote address is called, and whose network it is in.
//!
//! Pure. Readers are lenient: a packet that lies or is cut short gives what
//! it gives, and nothing panics.

mod name;

pub use name::{Application, DestinationName, NameSource, Place, Trust};
