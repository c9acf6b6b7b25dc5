//! What a remote address is called, and whose network it is in.
//!
//! Pure. Readers are lenient: a packet that lies or is cut short gives what
//! it gives, and nothing panics.

mod application;
pub mod clouds;
pub mod dns;
mod domains;
pub mod http;
mod lists;
mod name;
mod networks;
mod observe;
mod places;
pub mod quic;
mod record;
mod stream;
mod table;
pub mod tls;

pub use domains::{DomainSet, NotADomain, normalize, registered_domain};
pub use lists::{List, ListCounts, ListError, Rejected};
pub use name::{Application, DestinationName, NameSource, Place, Trust};
pub use networks::NetworkSet;
pub use observe::{DnsQuery, FlowNames, Found, NameLosses, NameStatistics, Names, Payload, Segment};
pub use places::{PlaceDatabase, PlaceError, Places};
pub use record::FlowRecord;
pub use table::{Binding, NameCounts, NameTable};
