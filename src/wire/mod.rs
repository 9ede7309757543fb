//! Where does an item begin and end, and what does it say?
//!
//! Codecs only: bytes in, items out, and back. Nothing here waits, allocates without a bound given by the caller, or
//! knows that there is a network. What cannot be understood keeps its bytes, so that it can still be forwarded.

pub mod dot;
pub mod imap;
pub mod line;
pub mod pop3;
pub mod sasl;
pub mod secret;
pub mod smtp;

#[cfg(test)]
pub(crate) mod testing;
