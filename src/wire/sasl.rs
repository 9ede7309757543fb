//! The lines of a SASL exchange (RFC 4422), as SMTP, POP3 and IMAP carry them.
//!
//! Gatepost relays such an exchange without understanding it; this says only whether a client's line has the shape of
//! one, so that nothing else can travel in its place, and which mechanisms cannot be relayed at all.

/// Whether `line`, without its line end, may be a client's response: base64 (RFC 4648 section 4), also of nothing.
pub fn is_response(line: &[u8]) -> bool {
    let unpadded = match line {
        [front @ .., b'=', b'='] | [front @ .., b'='] => front,
        all => all,
    };
    line.len().is_multiple_of(4)
        && unpadded.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/'))
}

/// Whether `line`, without its line end, may be an initial response on the command's own line: base64, or `=` for an
/// empty one (RFC 4954 section 4, RFC 5034 section 4).
pub fn is_initial_response(line: &[u8]) -> bool {
    line == b"=" || (!line.is_empty() && is_response(line))
}

/// Whether `line` cancels the exchange.
pub fn is_cancel(line: &[u8]) -> bool {
    line == b"*"
}

/// Whether a mechanism binds to the TLS channel (RFC 5801 section 4): its proof covers a channel that ends at the
/// gateway, so that it can never succeed through one.
pub fn binds_channel(mechanism: &[u8]) -> bool {
    let suffix = mechanism.len().checked_sub(5).and_then(|at| mechanism.get(at..));
    suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"-PLUS"))
}

/// Whether `mechanism` is a mechanism's name: letters, digits, `-` and `_`, up to 20 octets (RFC 4422 section 3.1);
/// lower case is let pass, since the upstream decides.
pub fn is_mechanism(mechanism: &[u8]) -> bool {
    (1..=20).contains(&mechanism.len())
        && mechanism.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_base64() {
        for (line, fits) in [
            ("", true),
            ("dGVzdA==", true),
            ("AHVzZXIAcGFzcw==", true),
            ("ab+/", true),
            ("abc=", true),
            ("abc", false),
            ("ab=c", false),
            ("a===", false),
            ("====", false),
            ("=", false),
            ("*", false),
            ("ab c", false),
            ("ab\r=", false),
            ("QUIT\r\nRSET", false),
            ("abcd-_==", false),
        ] {
            assert_eq!(is_response(line.as_bytes()), fits, "{line:?}");
        }
        assert!(is_initial_response(b"=") && is_initial_response(b"dGVzdA==") && !is_initial_response(b""));
    }

    #[test]
    fn channel_binding_is_seen_in_the_name() {
        for (mechanism, binds) in [
            ("SCRAM-SHA-256-PLUS", true),
            ("scram-sha-1-plus", true),
            ("SCRAM-SHA-256", false),
            ("PLUS", false),
            ("PLAIN", false),
        ] {
            assert_eq!(binds_channel(mechanism.as_bytes()), binds, "{mechanism}");
        }
    }

    #[test]
    fn mechanisms_have_names() {
        for (mechanism, fits) in [
            ("PLAIN", true),
            ("DIGEST-MD5", true),
            ("", false),
            ("A B", false),
            ("A.B", false),
            ("PLAIN\t", false),
        ] {
            assert_eq!(is_mechanism(mechanism.as_bytes()), fits, "{mechanism:?}");
        }
    }
}
