//! What the receiver sees: the untouched original with a header block put into it.
//!
//! A [`Rendition`] is a rope of added octets and spans of the original, and the only place where offsets are
//! computed. The same message and [`Stamp`] render to the same octets for ever. No I/O but through [`Source`].

mod rendition;
mod stamp;

pub use rendition::{Rendition, Segment, Source};
pub use stamp::{Claim, Key, STAMP_MAX, Seal, Stamp, StampFacts};
