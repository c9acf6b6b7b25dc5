//! From bytes to a [`Packet`]: what the outermost IP header says.
//!
//! Pure. Nothing here allocates for a packet, and no input panics.
//!
//! ```text
//! frame -> link -> network -> transport -> packet
//!       \______ fast (common shapes) ____/
//! ```

mod decode;
mod fast;
mod five_tuple;
mod fragment;
mod frame;
mod link;
mod network;
mod transport;

pub use decode::{DecodeError, DecodeErrors, Packet, decode, decode_common};
pub use five_tuple::{Address, DNS_PORT, Endpoint, FiveTuple, Protocol};
pub use fragment::{Fragment, FragmentLosses, Fragments};
pub use frame::{Frame, FrameDirection, LinkType};
pub use transport::TcpFlags;
