//! POP3 (RFC 1939), its extension mechanism (RFC 2449), STLS (RFC 2595), AUTH (RFC 5034), UTF8 and LANG (RFC 6856).
//!
//! Commands and responses keep their bytes verbatim; what is understood stands beside them. The dot-stuffing of
//! multi-line responses is [`crate::wire::dot`]'s.

pub mod capability;
pub mod command;
pub mod response;
pub mod top;
