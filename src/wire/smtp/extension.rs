//! The EHLO list (RFC 5321 section 4.1.1.1): what the upstream offers, and what of it a client may be told.
//!
//! An allow-list: keywords that only add parameters to MAIL and RCPT, or that we understand, pass. All others are
//! hidden, because they announce commands the gate would not see through.

use super::reply::Reply;
use crate::wire::sasl;

/// Keywords that pass as the upstream spells them.
const CARRIED: [&str; 13] = [
    "8BITMIME",            // RFC 6152
    "SMTPUTF8",            // RFC 6531
    "DSN",                 // RFC 3461
    "ENHANCEDSTATUSCODES", // RFC 2034
    "DELIVERBY",           // RFC 2852
    "MT-PRIORITY",         // RFC 6710
    "FUTURERELEASE",       // RFC 4865
    "NO-SOLICITING",       // RFC 3865
    "LIMITS",              // RFC 9422
    "RRVS",                // RFC 7293
    "VRFY",
    "EXPN",
    "HELP",
];

/// Parameters of MAIL and RCPT that pass: those of the carried keywords.
const PARAMETERS: [&str; 16] = [
    "SIZE",        // RFC 1870
    "BODY",        // RFC 6152
    "SMTPUTF8",    // RFC 6531
    "RET",         // RFC 3461
    "ENVID",       // RFC 3461
    "NOTIFY",      // RFC 3461
    "ORCPT",       // RFC 3461
    "AUTH",        // RFC 4954
    "BY",          // RFC 2852
    "MT-PRIORITY", // RFC 6710
    "HOLDFOR",     // RFC 4865
    "HOLDUNTIL",   // RFC 4865
    "SOLICIT",     // RFC 3865
    "RRVS",        // RFC 7293
    "CONPERM",     // RFC 4141
    "CONNEG",      // RFC 4141
];

/// Whether a parameter of MAIL or RCPT may pass. The upstream takes what it reads as said by a peer it trusts, so
/// its own extensions, and forms of a body that cannot be carried, end here.
pub fn carries_parameter(parameter: &str) -> bool {
    let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    let known = PARAMETERS.iter().any(|carried| carried.eq_ignore_ascii_case(keyword));
    known && !(keyword.eq_ignore_ascii_case("BODY") && value.eq_ignore_ascii_case("BINARYMIME"))
}

/// The upstream's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    greeting: String,
    lines: Vec<String>,
}

/// What the gate adds to the list or holds against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// STARTTLS can be had from us now.
    pub starttls: bool,
    /// The largest message we take, in octets.
    pub message_bytes: u64,
    /// What the stamp may add, in octets: so much less than the upstream's limit is announced.
    pub stamp_bytes: u64,
    /// AUTH may be told: the session is not authenticated yet and passwords are not asked for in clear.
    pub auth: bool,
}

impl Extensions {
    /// Reads the reply to EHLO.
    pub fn read(reply: &Reply) -> Self {
        let mut lines = reply.lines().map(|line| String::from_utf8_lossy(line).into_owned());
        let greeting = lines.next().unwrap_or_default();
        Self { greeting, lines: lines.collect() }
    }

    /// The arguments of a keyword, if it is offered.
    pub fn arguments(&self, keyword: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            word.eq_ignore_ascii_case(keyword).then_some(rest)
        })
    }

    /// Whether a SASL mechanism is offered and can be carried.
    pub fn offers_mechanism(&self, mechanism: &str) -> bool {
        self.mechanisms().any(|offered| offered.eq_ignore_ascii_case(mechanism))
    }

    /// The largest message a client may announce, in octets; `None` where the upstream names no SIZE at all.
    pub fn size_limit(&self, offer: &Offer) -> Option<u64> {
        let upstream = self.arguments("SIZE")?.trim().parse().unwrap_or(0);
        // Zero or nothing says that no fixed limit is in force (RFC 1870 section 4).
        let upstream = if upstream == 0 { u64::MAX } else { upstream };
        // Zero would say that there is no limit.
        Some(upstream.saturating_sub(offer.stamp_bytes).min(offer.message_bytes).max(1))
    }

    /// The reply to the client's EHLO.
    pub fn reduced(&self, offer: &Offer) -> Reply {
        let mut lines = vec![self.greeting.clone()];
        // One reply per command in order holds here whether or not the upstream pipelines.
        lines.push("PIPELINING".to_owned());
        for line in &self.lines {
            let word = line.split([' ', '=']).next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "SIZE" => lines.extend(self.size_limit(offer).map(|limit| format!("SIZE {limit}"))),
                "AUTH" if offer.auth => lines.extend(self.auth_line(line)),
                word if CARRIED.contains(&word) => lines.push(line.clone()),
                _ => {}
            }
        }
        if offer.starttls {
            lines.push("STARTTLS".to_owned());
        }
        Reply::plain(250, lines.iter().map(String::as_str))
    }

    /// The AUTH line without the mechanisms that are bound to the TLS channel, which ends at the gate.
    fn auth_line(&self, line: &str) -> Option<String> {
        let keyword = line.get(..5)?;
        let carried: Vec<&str> = line.get(5..)?.split_ascii_whitespace().filter(|m| is_carried(m)).collect();
        (!carried.is_empty()).then(|| format!("{keyword}{}", carried.join(" ")))
    }

    fn mechanisms(&self) -> impl Iterator<Item = &str> {
        self.lines
            .iter()
            .filter_map(|line| {
                let keyword = line.get(..5)?;
                (keyword.eq_ignore_ascii_case("AUTH ") || keyword.eq_ignore_ascii_case("AUTH="))
                    .then(|| &line[5..])
            })
            .flat_map(str::split_ascii_whitespace)
            .filter(|mechanism| is_carried(mechanism))
    }
}

/// Besides what no gate can relay: ANONYMOUS, which would make a relay of everyone.
fn is_carried(mechanism: &str) -> bool {
    sasl::can_be_relayed(mechanism.as_bytes()) && !mechanism.eq_ignore_ascii_case("ANONYMOUS")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer { starttls: false, message_bytes: 1_000_000, stamp_bytes: 4_000, auth: true };

    fn check(upstream: &[&str], offer: Offer, want: &[&str]) {
        let extensions = Extensions::read(&Reply::plain(250, upstream.iter().copied()));
        let got = extensions.reduced(&offer);
        let lines: Vec<_> = got.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(lines, want);
    }

    #[test]
    fn the_list_is_the_upstreams_less_what_cannot_be_carried() {
        check(&["mx.example.org"], OFFER, &["mx.example.org", "PIPELINING"]);
        check(
            &[
                "mx.example.org hello",
                "PIPELINING",
                "SIZE 50000",
                "VRFY",
                "ETRN",
                "STARTTLS",
                "AUTH PLAIN SCRAM-SHA-256-PLUS SCRAM-SHA-256",
                "AUTH=PLAIN LOGIN",
                "8BITMIME",
                "CHUNKING",
                "BINARYMIME",
                "SMTPUTF8",
                "XCLIENT NAME ADDR",
                "X-ANONYMOUSTLS",
                "XEXCH50",
            ],
            OFFER,
            &[
                "mx.example.org hello",
                "PIPELINING",
                "SIZE 46000",
                "VRFY",
                "AUTH PLAIN SCRAM-SHA-256",
                "AUTH=PLAIN LOGIN",
                "8BITMIME",
                "SMTPUTF8",
            ],
        );
        check(
            &["mx", "AUTH SCRAM-SHA-1-PLUS"],
            Offer { starttls: true, ..OFFER },
            &["mx", "PIPELINING", "STARTTLS"],
        );
        check(&["mx", "AUTH PLAIN"], Offer { auth: false, ..OFFER }, &["mx", "PIPELINING"]);
    }

    #[test]
    fn parameters_pass_like_the_keywords_they_belong_to() {
        for (parameter, carried) in [
            ("SIZE=100", true),
            ("body=8bitmime", true),
            ("BODY=BINARYMIME", false),
            ("SMTPUTF8", true),
            ("NOTIFY=NEVER", true),
            ("XOORG=example.org", false),
            ("REQUIRETLS", false),
        ] {
            assert_eq!(carries_parameter(parameter), carried, "{parameter}");
        }
    }

    #[test]
    fn sizes() {
        for (line, want) in [
            ("SIZE 50000", Some(46_000)),
            ("SIZE", Some(1_000_000)),
            ("SIZE 0", Some(1_000_000)),
            ("SIZE 99999999999", Some(1_000_000)),
            ("SIZE 100", Some(1)),
            ("8BITMIME", None),
        ] {
            let extensions = Extensions::read(&Reply::plain(250, ["mx", line]));
            assert_eq!(extensions.size_limit(&OFFER), want, "{line}");
        }
    }
}
