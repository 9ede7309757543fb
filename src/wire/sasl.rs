//! The lines of a SASL exchange as SMTP (RFC 4954), POP3 (RFC 5034) and IMAP (RFC 9051 section 6.2.2) carry them.
//!
//! The exchange itself is opaque to the gate: it only holds a client's lines to their form, so that nothing else
//! can be smuggled to the upstream in their place.

/// What a client's line in an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLine {
    /// A response in base64; an empty line is an empty response.
    Response,
    /// `*`: the client gives up.
    Cancel,
    /// Neither.
    Malformed,
}

impl ClientLine {
    /// Reads a line without its line end.
    pub fn read(text: &[u8]) -> Self {
        match text {
            b"*" => Self::Cancel,
            text if is_base64(text) => Self::Response,
            _ => Self::Malformed,
        }
    }
}

/// Whether `text` can stand as an initial response: base64, or `=` for an empty one.
pub fn is_initial_response(text: &[u8]) -> bool {
    text == b"=" || (!text.is_empty() && is_base64(text))
}

/// Whether `text` is base64 with its padding (RFC 4648 section 4). Bits behind the end are not looked at.
fn is_base64(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|&&octet| octet == b'=').count();
    let digits = &text[..text.len() - padding];
    text.len().is_multiple_of(4)
        && padding <= 2
        && digits.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_lines() {
        use ClientLine::*;
        for (text, want) in [
            ("", Response),
            ("AGEAYg==", Response),
            ("dXNlcg==", Response),
            ("YWJj", Response),
            ("*", Cancel),
            ("AGEAYg=", Malformed),
            ("AGEAYg===", Malformed),
            ("====", Malformed),
            ("AGE AYg=", Malformed),
            ("AGE=AYg=", Malformed),
            ("RCPT TO:<a@b>", Malformed),
            ("**", Malformed),
        ] {
            assert_eq!(ClientLine::read(text.as_bytes()), want, "{text:?}");
        }
        assert!(is_initial_response(b"=") && is_initial_response(b"AGEAYg==") && !is_initial_response(b""));
    }
}
