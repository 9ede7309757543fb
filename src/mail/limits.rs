//! The limits of the message model. Past a limit parsing goes on with what was seen so far, and a defect says so.

/// Nested parts and messages. Real mail rarely passes 8; beyond this depth the rest is read as one text.
pub const DEPTH_MAX: usize = 32;
/// Parts of a message, all levels together.
pub const PARTS_MAX: usize = 1_000;
/// Header fields kept of one header. A longer header is still passed on whole.
pub const HEADERS_MAX: usize = 10_000;
/// Header fields of all nested parts and messages together.
pub const PART_HEADERS_MAX: usize = 40_000;
/// Octets of a header field's value that are decoded.
pub const HEADER_VALUE_MAX: usize = 64 * 1024;
/// Parameters read of one Content-Type or Content-Disposition.
pub const PARAMETERS_MAX: usize = 64;
/// Octets of encoded messages and parts that are decoded for the sake of the parts within.
pub const NESTED_DECODED_MAX: usize = 4 * 1024 * 1024;
/// Octets of text, of all parts together, that are shown to rules.
pub const TEXT_MAX: usize = 1024 * 1024;
/// Octets of HTML, of one part, that are rendered.
pub const HTML_MAX: usize = 512 * 1024;
/// Octets of the untouched message that are shown to rules that ask for all of it.
pub const FULL_MAX: usize = 2 * 1024 * 1024;
/// Links that are read, of one part and of the whole message.
pub const URLS_MAX: usize = 1_000;
