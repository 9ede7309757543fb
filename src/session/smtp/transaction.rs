//! What an SMTP client may say now, and what became of what it said.
//!
//! Pure: commands and replies in, steps out. The state is the session's and the transaction's of RFC 5321 section
//! 4.1.4, as far as the gate must know it; the order of the rest is the upstream's to police.
//!
//! ```text
//!  start ──EHLO──▶ greeted ──MAIL 2xx──▶ sender ──RCPT 2xx──▶ recipients ──DATA──▶ collect ──▶ greeted
//!                     ▲                     │                     │
//!                     └────── RSET, EHLO ───┴─────────────────────┘
//! ```

use crate::{
    mail::{Envelope, Recipient},
    session::Relay,
    wire::smtp::{Command, Extensions, Path, PathCommand, Reply, carries_parameter},
};

/// What to do about a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The upstream answers.
    Relay,
    /// We answer. `fault`: it counts against the client.
    Answer {
        /// With this.
        reply: Reply,
        /// Whether the client did wrong.
        fault: bool,
    },
    /// A message comes: 354, and read it.
    Collect,
    /// Take a TLS handshake.
    StartTls,
    /// Relay a SASL exchange.
    Authenticate,
    /// Say goodbye.
    Quit,
    /// End without another word: this is no mail client.
    Drop,
}

/// The client's session as the gate knows it.
#[derive(Debug, Default)]
pub struct Transaction {
    /// EHLO or HELO as the client said it, with its line end.
    hello: Option<Hello>,
    /// The upstream's list; empty after HELO.
    extensions: Extensions,
    /// Whether the client proved who it is.
    authenticated: bool,
    /// MAIL and RCPT as the upstream accepted them.
    envelope: Envelope,
}

/// The client's greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The whole line.
    pub line: Vec<u8>,
    /// What the client calls itself.
    pub name: String,
    /// EHLO.
    pub extended: bool,
}

/// What of the world the rules of the gate depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Which recipients pass without authentication.
    pub relay: &'a Relay,
    /// Whether passwords may be asked for on the client's leg as it is.
    pub may_log_in: bool,
    /// Whether STARTTLS can be had now.
    pub can_start_tls: bool,
    /// The largest message that may be announced, where the upstream names SIZE.
    pub size_limit: Option<u64>,
    /// How many recipients a transaction may have.
    pub recipients: u64,
}

impl Transaction {
    /// What to do about a command.
    pub fn admit(&self, command: &Command<'_>, ground: &Ground<'_>) -> Step {
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop | Command::Ask => Step::Relay,
            Command::Mail(mail) => self.admit_mail(mail, ground),
            Command::Rcpt(rcpt) => self.admit_rcpt(rcpt, ground),
            Command::Data if self.envelope.sender.is_none() => fault(503, "5.5.1", "MAIL first"),
            Command::Data if self.envelope.recipients.is_empty() => {
                answer(554, "5.5.1", "no valid recipients")
            }
            Command::Data => Step::Collect,
            Command::StartTls if self.authenticated || !ground.can_start_tls => {
                fault(503, "5.5.1", "TLS is not available now")
            }
            Command::StartTls => Step::StartTls,
            Command::Auth { mechanism, .. } => self.admit_auth(mechanism, ground),
            Command::Quit => Step::Quit,
            Command::Http => Step::Drop,
            Command::Unknown => fault(502, "5.5.1", "command not known here"),
        }
    }

    fn admit_mail(&self, mail: &PathCommand<'_>, ground: &Ground<'_>) -> Step {
        if self.envelope.sender.is_some() {
            return fault(503, "5.5.1", "a transaction is open already");
        }
        if let Some(step) = refuse_parameters(mail) {
            return step;
        }
        // RFC 4954 section 5: what a client that proved nothing says of others is not to be believed.
        if !self.authenticated && mail.parameter("AUTH").is_some_and(|by| by != "<>") {
            return answer(555, "5.5.4", "AUTH= is for authenticated clients");
        }
        let announced = mail.parameter("SIZE").and_then(|size| size.parse::<u64>().ok());
        match (announced, ground.size_limit) {
            (Some(size), Some(limit)) if size > limit => {
                answer(552, "5.3.4", format!("a message of {size} octets is over the limit of {limit}"))
            }
            _ => Step::Relay,
        }
    }

    fn admit_rcpt(&self, rcpt: &PathCommand<'_>, ground: &Ground<'_>) -> Step {
        if self.envelope.recipients.len() as u64 >= ground.recipients {
            return answer(452, "4.5.3", "too many recipients in one message");
        }
        if let Some(step) = refuse_parameters(rcpt) {
            return step;
        }
        if self.authenticated || may_relay(&rcpt.path, ground.relay) {
            Step::Relay
        } else {
            fault(554, "5.7.1", format!("<{}>: relay access denied", rcpt.path.as_str()))
        }
    }

    fn admit_auth(&self, mechanism: &str, ground: &Ground<'_>) -> Step {
        if self.authenticated {
            return fault(503, "5.5.1", "already authenticated");
        }
        if self.envelope.sender.is_some() {
            return fault(503, "5.5.1", "not inside a transaction");
        }
        if !ground.may_log_in {
            return fault(538, "5.7.11", "encryption is required first: STARTTLS");
        }
        if !self.extensions.offers_mechanism(mechanism) {
            return fault(504, "5.5.4", "this authentication mechanism is not offered");
        }
        Step::Authenticate
    }

    /// Takes note of what the upstream said to a command that was relayed.
    pub fn learn(&mut self, command: &Command<'_>, line: &[u8], reply: &Reply) {
        if !reply.is_positive() {
            return;
        }
        match command {
            Command::Ehlo(name) | Command::Helo(name) => {
                let extended = matches!(command, Command::Ehlo(_));
                self.extensions = if extended { Extensions::read(reply) } else { Extensions::default() };
                self.hello = Some(Hello { line: line.to_vec(), name: (*name).to_owned(), extended });
                self.reset();
            }
            Command::Rset => self.reset(),
            Command::Mail(mail) => {
                self.envelope.sender = Some(mail.path.as_str().to_owned());
                self.envelope.mail_parameters = mail.parameters.to_owned();
            }
            Command::Rcpt(rcpt) => self.envelope.recipients.push(Recipient {
                address: rcpt.path.as_str().to_owned(),
                parameters: rcpt.parameters.to_owned(),
            }),
            _ => {}
        }
    }

    /// The client proved who it is.
    pub fn authenticate(&mut self) {
        self.authenticated = true;
    }

    /// The transaction is over, one way or another.
    pub fn reset(&mut self) {
        self.envelope = Envelope::default();
    }

    /// TLS began: everything the client said before is forgotten (RFC 3207 section 4.2).
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// The upstream's list.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The client's greeting.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Whether the client proved who it is.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether MAIL was accepted.
    pub fn is_open(&self) -> bool {
        self.envelope.sender.is_some()
    }

    /// MAIL and RCPT as accepted.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// Whether a recipient passes without authentication. An upstream that trusts our address would carry on whatever
/// passes here, so every form that it could read as a route elsewhere is refused.
fn may_relay(path: &Path<'_>, relay: &Relay) -> bool {
    match path {
        Path::Null => false,
        Path::Mailbox(address) if address.has_routing() => false,
        Path::Mailbox(address) => match address.domain {
            Some(domain) => relay.domains.iter().any(|pattern| pattern.matches(domain)),
            // RFC 5321 section 4.5.1: every server takes mail for its postmaster.
            None => !relay.domains.is_empty() && address.local.eq_ignore_ascii_case("postmaster"),
        },
    }
}

fn refuse_parameters(command: &PathCommand<'_>) -> Option<Step> {
    let foreign =
        command.parameters.split_ascii_whitespace().find(|parameter| !carries_parameter(parameter))?;
    Some(answer(555, "5.5.4", format!("{foreign} is not offered here")))
}

fn answer(code: u16, enhanced: &str, text: impl AsRef<str>) -> Step {
    Step::Answer { reply: Reply::new(code, enhanced, text), fault: false }
}

fn fault(code: u16, enhanced: &str, text: impl AsRef<str>) -> Step {
    Step::Answer { reply: Reply::new(code, enhanced, text), fault: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;

    fn relay() -> Relay {
        Relay {
            domains: ["example.org", "*.sub.example.org"].iter().filter_map(|d| domain::pattern(d)).collect(),
        }
    }

    fn admit(transaction: &Transaction, line: &str) -> Step {
        let relay = relay();
        let ground = Ground {
            relay: &relay,
            may_log_in: true,
            can_start_tls: false,
            size_limit: Some(1_000),
            recipients: 2,
        };
        transaction.admit(&Command::parse(line.as_bytes()).unwrap(), &ground)
    }

    fn hear(transaction: &mut Transaction, line: &str, reply: &str) {
        let reply = Reply::plain(reply[..3].parse().unwrap(), [&reply[4..]]);
        transaction.learn(&Command::parse(line.as_bytes()).unwrap(), line.as_bytes(), &reply);
    }

    fn code(step: Step) -> u16 {
        match step {
            Step::Answer { reply, .. } => reply.code(),
            _ => 0,
        }
    }

    #[test]
    fn only_recipients_of_relay_domains_pass_without_authentication() {
        for (line, passes) in [
            ("RCPT TO:<a@example.org>", true),
            ("RCPT TO:<a@EXAMPLE.org>", true),
            ("RCPT TO:<\"a b\"@example.org>", true),
            ("RCPT TO:<a@x.sub.example.org>", true),
            ("RCPT TO:<postmaster>", true),
            ("RCPT TO:<Postmaster>", true),
            ("RCPT TO:<a@sub.example.org>", false),
            ("RCPT TO:<a@notexample.org>", false),
            ("RCPT TO:<a@example.org.evil.example>", false),
            ("RCPT TO:<a@evil.example>", false),
            ("RCPT TO:<a>", false),
            ("RCPT TO:<a%evil.example@example.org>", false),
            ("RCPT TO:<evil.example!a@example.org>", false),
            ("RCPT TO:<\"a@evil.example\"@example.org>", false),
            ("RCPT TO:<a@[127.0.0.1]>", false),
        ] {
            let transaction = Transaction::default();
            assert_eq!(admit(&transaction, line) == Step::Relay, passes, "{line}");
            let mut known = Transaction::default();
            known.authenticate();
            assert_eq!(admit(&known, line), Step::Relay, "{line}, authenticated");
        }
    }

    #[test]
    fn data_needs_a_sender_and_an_accepted_recipient() {
        let mut transaction = Transaction::default();
        assert_eq!(code(admit(&transaction, "DATA")), 503);
        hear(&mut transaction, "MAIL FROM:<s@x.example>", "550 no");
        assert_eq!(code(admit(&transaction, "DATA")), 503);
        hear(&mut transaction, "MAIL FROM:<s@x.example> SIZE=10", "250 ok");
        assert_eq!(code(admit(&transaction, "MAIL FROM:<s@x.example>")), 503);
        hear(&mut transaction, "RCPT TO:<a@example.org>", "550 no");
        assert_eq!(code(admit(&transaction, "DATA")), 554);
        hear(&mut transaction, "RCPT TO:<a@example.org> NOTIFY=NEVER", "250 ok");
        assert_eq!(admit(&transaction, "DATA"), Step::Collect);
        assert_eq!(transaction.envelope().mail_parameters, "SIZE=10");
        assert_eq!(transaction.envelope().recipients[0].parameters, "NOTIFY=NEVER");
        hear(&mut transaction, "RCPT TO:<b@example.org>", "250 ok");
        assert_eq!(code(admit(&transaction, "RCPT TO:<c@example.org>")), 452);
        hear(&mut transaction, "RSET", "250 ok");
        assert_eq!(code(admit(&transaction, "DATA")), 503);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        let mut transaction = Transaction::default();
        assert_eq!(code(admit(&transaction, "AUTH PLAIN")), 504);
        hear(&mut transaction, "EHLO c.example", "250 mx");
        assert_eq!(code(admit(&transaction, "AUTH PLAIN")), 504);
        let list = Reply::plain(250, ["mx", "AUTH PLAIN SCRAM-SHA-256-PLUS"]);
        transaction.learn(&Command::Ehlo("c.example"), b"EHLO c.example\r\n", &list);
        assert_eq!(admit(&transaction, "AUTH plain AGEAYg=="), Step::Authenticate);
        assert_eq!(code(admit(&transaction, "AUTH SCRAM-SHA-256-PLUS")), 504);
        transaction.authenticate();
        assert_eq!(code(admit(&transaction, "AUTH PLAIN")), 503);
        assert_eq!(code(admit(&transaction, "STARTTLS")), 503);
        assert_eq!(code(admit(&transaction, "XCLIENT ADDR=127.0.0.1")), 502);
        assert_eq!(code(admit(&transaction, "MAIL FROM:<a@b.example> SIZE=1001")), 552);
        assert_eq!(admit(&transaction, "MAIL FROM:<a@b.example> SIZE=1000"), Step::Relay);
        assert_eq!(code(admit(&transaction, "MAIL FROM:<a@b.example> XOORG=x")), 555);
        assert_eq!(admit(&transaction, "MAIL FROM:<a@b.example> AUTH=<c@d.example>"), Step::Relay);
        assert_eq!(code(admit(&Transaction::default(), "MAIL FROM:<a@b.example> AUTH=<c@d.example>")), 555);
        assert_eq!(admit(&transaction, "GET / HTTP/1.1"), Step::Drop);
    }
}
