//! Encoded words in header fields (RFC 2047).
pub(super) fn decode(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
