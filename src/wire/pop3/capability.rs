//! The list of capabilities (RFC 2449 section 5): what the upstream offers, less what cannot pass a gateway.
//!
//! An allow-list: a capability nobody here knows may change how commands or answers are framed. STLS and PIPELINING
//! are hop by hop and always ours.

use crate::wire::sasl;

/// What the client is offered of STLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stls {
    /// The listener upgrades and the leg is still in clear.
    Offer,
    /// TLS is on already, or there is none.
    Hide,
}

/// What the client is offered of passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logins {
    /// What the upstream offers.
    Offer,
    /// Nothing: they wait for STLS. (APOP is offered by the greeting, and sends none.)
    Hide,
}

/// Appends to `out` what of `upstream`, a list as the dot decoder gives it, the client is to see. Lines that pass do so
/// verbatim; their order is kept, and ours come last.
pub fn reduce(upstream: &[u8], stls: Stls, logins: Logins, out: &mut Vec<u8>) {
    for line in lines(upstream) {
        let name = name_of(line);
        if logins == Logins::Hide && LOGINS.iter().any(|login| name.eq_ignore_ascii_case(login)) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"SASL") {
            put_mechanisms(line, out);
        } else if PASSED.iter().any(|passed| name.eq_ignore_ascii_case(passed)) {
            put_line(line, out);
        }
    }
    put_line(b"PIPELINING", out);
    if stls == Stls::Offer {
        put_line(b"STLS", out);
    }
}

/// Appends to `out` what of `upstream`, the mechanisms AUTH alone lists, can be relayed.
pub fn reduce_mechanisms(upstream: &[u8], out: &mut Vec<u8>) {
    lines(upstream).filter(|line| sasl::can_be_relayed(line)).for_each(|line| put_line(line, out));
}

/// Whether a list holds the capability `name`.
pub fn offers(list: &[u8], name: &str) -> bool {
    lines(list).any(|line| name_of(line).eq_ignore_ascii_case(name.as_bytes()))
}

/// What passes as it is. SASL passes less its channel-binding mechanisms; PIPELINING and STLS are ours.
const PASSED: [&[u8]; 10] = [
    b"TOP",
    b"UIDL",
    b"RESP-CODES",
    b"AUTH-RESP-CODE",
    b"EXPIRE",
    b"LOGIN-DELAY",
    b"USER",
    b"IMPLEMENTATION",
    b"UTF8",
    b"LANG",
];

/// What asks for a password.
const LOGINS: [&[u8]; 2] = [b"USER", b"SASL"];

fn lines(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| {
        // A stray CR or NUL would be read differently by others: such a line is not passed.
        !line.is_empty() && memchr::memchr2(b'\r', 0, line).is_none()
    })
}

fn name_of(line: &[u8]) -> &[u8] {
    line.split(|octet| *octet == b' ').next().unwrap_or_default()
}

fn put_line(line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

fn put_mechanisms(line: &[u8], out: &mut Vec<u8>) {
    let mut words = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
    let Some(name) = words.next() else { return };
    let relayed: Vec<&[u8]> = words.filter(|mechanism| sasl::can_be_relayed(mechanism)).collect();
    if !relayed.is_empty() {
        put_line(&[name, b" ", &relayed.join(b" ".as_slice())].concat(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(upstream: &str, stls: Stls, expected: &str) {
        let mut out = Vec::new();
        reduce(upstream.as_bytes(), stls, Logins::Offer, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{upstream:?}");
    }

    #[test]
    fn only_what_the_gate_can_see_through_is_shown() {
        let rows = [
            ("", Stls::Hide, "PIPELINING\r\n"),
            ("", Stls::Offer, "PIPELINING\r\nSTLS\r\n"),
            ("STLS\r\n", Stls::Hide, "PIPELINING\r\n"),
            ("STLS\r\nUSER\r\nstls\r\n", Stls::Offer, "USER\r\nPIPELINING\r\nSTLS\r\n"),
            (
                "PIPELINING\r\nTOP\r\nXTND\r\nX-COMPRESS\r\nuidl\r\n",
                Stls::Hide,
                "TOP\r\nuidl\r\nPIPELINING\r\n",
            ),
            (
                "EXPIRE 31 USER\r\nLOGIN-DELAY 900\r\nIMPLEMENTATION Dovecot (x)\r\n",
                Stls::Hide,
                "EXPIRE 31 USER\r\nLOGIN-DELAY 900\r\nIMPLEMENTATION Dovecot (x)\r\nPIPELINING\r\n",
            ),
            (
                "SASL PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256\r\n",
                Stls::Hide,
                "SASL PLAIN SCRAM-SHA-256\r\nPIPELINING\r\n",
            ),
            ("SASL scram-sha-1-plus\r\n", Stls::Hide, "PIPELINING\r\n"),
            ("SASL\r\n", Stls::Hide, "PIPELINING\r\n"),
            (
                "UTF8 USER\r\nLANG\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n",
                Stls::Hide,
                "UTF8 USER\r\nLANG\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n",
            ),
            ("TOP\rX\r\nUIDL\0\r\nUSER\r\n", Stls::Hide, "USER\r\nPIPELINING\r\n"),
        ];
        for (upstream, stls, expected) in rows {
            check(upstream, stls, expected);
        }
    }

    #[test]
    fn mechanisms_that_bind_the_channel_are_hidden() {
        let mut out = Vec::new();
        reduce_mechanisms(b"PLAIN\r\nSCRAM-SHA-1-PLUS\r\nLOGIN\r\n", &mut out);
        assert_eq!(out, b"PLAIN\r\nLOGIN\r\n");
    }

    #[test]
    fn an_offer_is_found_by_its_name() {
        assert!(offers(b"TOP\r\npipelining\r\n", "PIPELINING"));
        assert!(offers(b"UTF8 USER\r\n", "UTF8"));
        assert!(!offers(b"IMPLEMENTATION PIPELINING\r\n", "PIPELINING"));
    }
}
