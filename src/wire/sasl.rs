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

/// Whether `name` has the shape of a mechanism's name (RFC 4422 section 3.1): letters, digits, `-` and `_`, up to 20
/// octets; lower case is let pass, since the upstream decides.
pub fn is_mechanism(name: &[u8]) -> bool {
    (1..=20).contains(&name.len())
        && name.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
}

/// Whether a mechanism can work through a gateway at all. Those that end in `-PLUS` bind to the TLS channel (RFC 5801
/// section 4), which ends here; EXTERNAL means whoever the connection proves to be, and to the upstream that is the
/// gateway.
pub fn can_be_relayed(name: &[u8]) -> bool {
    let suffix = name.len().checked_sub(5).and_then(|at| name.get(at..));
    let binds = suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"-PLUS"));
    !binds && !name.eq_ignore_ascii_case(b"EXTERNAL")
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
    fn mechanisms_that_cannot_pass_are_seen_in_the_name() {
        for (name, passes) in [
            ("SCRAM-SHA-256-PLUS", false),
            ("scram-sha-1-plus", false),
            ("EXTERNAL", false),
            ("SCRAM-SHA-256", true),
            ("PLUS", true),
            ("PLAIN", true),
        ] {
            assert_eq!(can_be_relayed(name.as_bytes()), passes, "{name}");
        }
    }

    #[test]
    fn mechanisms_have_names() {
        for (name, fits) in [
            ("PLAIN", true),
            ("DIGEST-MD5", true),
            ("", false),
            ("A B", false),
            ("A.B", false),
            ("PLAIN\t", false),
        ] {
            assert_eq!(is_mechanism(name.as_bytes()), fits, "{name:?}");
        }
    }

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
