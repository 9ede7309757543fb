//! How IMAP is spelled (RFC 3501, RFC 9051): fragments first, then the little grammar the gate needs.
//!
//! [`fragment`] finds where a line or a literal begins and ends, and nothing else does: message boundaries stay
//! certain even where a message is malformed. Above it [`command`] and [`response`] read single lines and name what
//! they know; whatever they do not know is still a whole line that can be passed on. Nothing here is ever
//! re-encoded: the only bytes that change are words taken out of capability lists ([`capability`]).
//! Nothing waits, and nothing is kept beyond a limit it was given.

pub mod capability;
pub mod command;
pub mod fragment;
pub mod response;
mod token;
