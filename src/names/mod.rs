//! What a remote address is called, and whose network it is in.
//!
//! Pure. Readers are lenient: a packet that lies or is cut short gives what
//! it gives, and nothing panics.

mod domains;
mod lists;
mod name;
mod networks;
mod places;

pub use domains::{DomainSet, NotADomain, normalize, registered_domain};
pub use lists::{List, ListCounts, ListError, Rejected};
pub use name::{Application, DestinationName, NameSource, Place, Trust};
pub use networks::NetworkSet;
pub use places::{PlaceDatabase, PlaceError, Places};
