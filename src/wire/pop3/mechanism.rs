//! Names of SASL mechanisms (RFC 4422 section 3.1), and which of them cannot be relayed at all.

/// Whether `name` has the shape of one: letters, digits, `-` and `_`, up to 20 octets; lower case is let pass, since
/// the upstream decides.
pub fn is_mechanism(name: &[u8]) -> bool {
    (1..=20).contains(&name.len())
        && name.iter().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
}

/// Whether a mechanism binds to the TLS channel (RFC 5801 section 4): its proof covers a channel that ends at the
/// gateway, so that it can never succeed through one.
pub fn binds_channel(name: &[u8]) -> bool {
    let suffix = name.len().checked_sub(5).and_then(|at| name.get(at..));
    suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"-PLUS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_binding_is_seen_in_the_name() {
        for (name, binds) in [
            ("SCRAM-SHA-256-PLUS", true),
            ("scram-sha-1-plus", true),
            ("SCRAM-SHA-256", false),
            ("PLUS", false),
            ("PLAIN", false),
        ] {
            assert_eq!(binds_channel(name.as_bytes()), binds, "{name}");
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
}
