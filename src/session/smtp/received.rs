//! The `Received` field of the SMTP gate (RFC 5321 section 4.4): who the client was, as far as we saw it.
//!
//! Every value that a client chose is reduced to harmless characters, so that none can end the field or a comment.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::mail::Envelope;

/// What the field says besides the envelope.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// Our own name.
    pub hostname: &'a str,
    /// Whether the client said EHLO.
    pub extended: bool,
    /// The cipher suite of the client's TLS session.
    pub cipher: Option<&'a str>,
    /// When the message came.
    pub at: Timestamp,
}

/// Characters of a client's name that are shown.
const NAME_CHARS: usize = 128;

/// The field, folded, with CRLF line ends.
pub fn received(envelope: &Envelope, trace: &Trace<'_>) -> String {
    let helo = harmless(envelope.helo.as_deref().unwrap_or("unknown"));
    let client = envelope.client.map_or_else(|| "unknown".to_owned(), literal);
    let mut text = format!("Received: from {helo} ({client})\r\n");
    if let Some(version) = &envelope.tls {
        let cipher = harmless(trace.cipher.unwrap_or("unknown"));
        text.push_str(&format!("\t(using {} with cipher {cipher})\r\n", harmless(version)));
    }
    let protocol = protocol(envelope, trace.extended);
    let date = jiff::fmt::rfc2822::to_string(&trace.at.to_zoned(jiff::tz::TimeZone::UTC));
    // RFC 2822 dates reach from year 0 to 9999; a clock outside of them says nothing true.
    let date = date.unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned());
    text.push_str(&format!("\tby {} (Gatepost) with {protocol};\r\n\t{date}\r\n", harmless(trace.hostname)));
    text
}

/// The protocol's name from the registry of RFC 3848 and RFC 6531.
fn protocol(envelope: &Envelope, extended: bool) -> String {
    if !extended {
        return "SMTP".to_owned();
    }
    let international =
        envelope.mail_parameters.split_ascii_whitespace().any(|p| p.eq_ignore_ascii_case("SMTPUTF8"));
    let base = if international { "UTF8SMTP" } else { "ESMTP" };
    let secure = if envelope.tls.is_some() { "S" } else { "" };
    let authenticated = if envelope.authenticated { "A" } else { "" };
    format!("{base}{secure}{authenticated}")
}

/// An address literal (RFC 5321 section 4.1.3).
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

fn harmless(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    text.chars().take(NAME_CHARS).map(|c| if plain(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(envelope: &Envelope, extended: bool, cipher: Option<&str>, want: &str) {
        let at = "2026-11-22T21:37:00Z".parse().unwrap();
        let trace = Trace { hostname: "gate.example.org", extended, cipher, at };
        assert_eq!(received(envelope, &trace), want);
    }

    #[test]
    fn the_field_says_who_how_and_when() {
        let plain = Envelope {
            client: Some("192.0.2.1".parse().unwrap()),
            helo: Some("client.example".into()),
            ..Envelope::default()
        };
        check(
            &plain,
            true,
            None,
            "Received: from client.example ([192.0.2.1])\r\n\
             \tby gate.example.org (Gatepost) with ESMTP;\r\n\tSun, 22 Nov 2026 21:37:00 +0000\r\n",
        );
        let tls = Envelope {
            client: Some("2001:db8::1".parse().unwrap()),
            tls: Some("TLSv1.3".into()),
            authenticated: true,
            mail_parameters: "BODY=8BITMIME SMTPUTF8".into(),
            ..plain.clone()
        };
        check(
            &tls,
            true,
            Some("TLS13_AES_256_GCM_SHA384"),
            "Received: from client.example ([IPv6:2001:db8::1])\r\n\
             \t(using TLSv1.3 with cipher TLS13_AES_256_GCM_SHA384)\r\n\
             \tby gate.example.org (Gatepost) with UTF8SMTPSA;\r\n\tSun, 22 Nov 2026 21:37:00 +0000\r\n",
        );
        let hostile = Envelope { helo: Some("x) by evil (\r\n.ü".into()), client: None, ..plain };
        check(
            &hostile,
            false,
            None,
            "Received: from x??by?evil????.? (unknown)\r\n\
             \tby gate.example.org (Gatepost) with SMTP;\r\n\tSun, 22 Nov 2026 21:37:00 +0000\r\n",
        );
    }
}
