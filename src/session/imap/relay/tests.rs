//! Conversations as lists: what a side says, and what the gate says thereupon.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

/// A relay with the octets that wait on both sides, as the driver keeps them.
struct Scene {
    relay: Relay,
    now: Instant,
    client: BytesMut,
    upstream: BytesMut,
}

const TERMS: Terms = Terms {
    start_tls: false,
    login_in_clear: true,
    line: 1_000,
    before_login: 64,
    sasl_line: 128,
    errors: 4,
    login_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(1_800),
};

const STARTTLS: Terms = Terms { start_tls: true, ..TERMS };

impl Scene {
    fn new(terms: Terms) -> Self {
        let now = Instant::now();
        Self { relay: Relay::new(terms, now), now, client: BytesMut::new(), upstream: BytesMut::new() }
    }

    /// Lets the relay take what it wants, as often as it takes something.
    fn settle(&mut self, out: &mut Vec<Output>) {
        loop {
            let before = (self.client.len(), self.upstream.len(), out.len());
            if self.relay.wants_upstream() {
                self.relay.handle(self.now, Input::Upstream(&mut self.upstream), out);
            }
            if self.relay.wants_client() {
                self.relay.handle(self.now, Input::Client(&mut self.client), out);
            }
            if before == (self.client.len(), self.upstream.len(), out.len()) {
                return;
            }
        }
    }

    /// One step: `C …` and `U …` are octets of a side, other words are the other inputs.
    fn step(&mut self, step: &str, chunk: usize) -> String {
        let mut out = Vec::new();
        match step.split_at_checked(2) {
            Some(("C ", octets)) => {
                for piece in octets.as_bytes().chunks(chunk) {
                    self.client.extend_from_slice(piece);
                    self.settle(&mut out);
                }
            }
            Some(("U ", octets)) => {
                for piece in octets.as_bytes().chunks(chunk) {
                    self.upstream.extend_from_slice(piece);
                    self.settle(&mut out);
                }
            }
            _ => {
                let input = match step {
                    "client ends" => Input::ClientEnd,
                    "upstream ends" => Input::UpstreamEnd(&mut self.upstream),
                    "encrypted" => Input::Encrypted,
                    "drain" => Input::Drain,
                    "cut" => Input::Cut,
                    other => panic!("{other}"),
                };
                self.relay.handle(self.now, input, &mut out);
                self.settle(&mut out);
            }
        }
        spell(&out)
    }
}

/// `>C` and `>U` once for everything one side is told in a row; orders in brackets.
fn spell(out: &[Output]) -> String {
    let (mut spelled, mut side) = (String::new(), "");
    for output in out {
        let (to, octets) = match output {
            Output::ToClient(octets) => (">C ", octets),
            Output::ToUpstream(octets) => (">U ", octets),
            order => {
                side = "";
                match order {
                    Output::UpgradeTls => spelled.push_str("[tls]"),
                    Output::EndClient => spelled.push_str("[end client]"),
                    Output::EndUpstream => spelled.push_str("[end upstream]"),
                    Output::LoginRefused => spelled.push_str("[login refused]"),
                    Output::LimitReached(limit) => write!(spelled, "[limit {limit}]").unwrap(),
                    Output::Close(end) => write!(spelled, "[close {}]", end.as_str()).unwrap(),
                    Output::ToClient(_) | Output::ToUpstream(_) => {}
                }
                continue;
            }
        };
        if side != to {
            spelled.push_str(to);
            side = to;
        }
        spelled.push_str(&String::from_utf8_lossy(octets));
    }
    spelled
}

fn check_on(terms: Terms, script: &[(&str, &str)]) {
    for chunk in [usize::MAX, 1, 2, 7] {
        let mut scene = Scene::new(terms);
        for (step, expected) in script {
            assert_eq!(scene.step(step, chunk), *expected, "{step:?} in pieces of {chunk}");
        }
    }
}

fn check(script: &[(&str, &str)]) {
    check_on(TERMS, script);
}

const HELLO: (&str, &str) = ("U * OK hi\r\n", ">C * OK hi\r\n");
const OFFER: (&str, &str) = (
    "U * OK [CAPABILITY IMAP4rev1 LITERAL+ BINARY] hi\r\n",
    ">C * OK [CAPABILITY IMAP4rev1 LITERAL+ BINARY] hi\r\n",
);
const LOGIN: (&str, &str) = ("C l LOGIN fred pw\r\n", ">U l LOGIN fred pw\r\n");
const LOGGED_IN: (&str, &str) = ("U l OK\r\n", ">C l OK\r\n");

#[test]
fn everything_passes_verbatim() {
    check(&[
        ("C early NOOP\r\n", ""),
        ("U * OK hi\r\n", ">C * OK hi\r\n>U early NOOP\r\n"),
        ("C a nOOp\r\nb SELECT \"x y\"\r\n", ">U a nOOp\r\nb SELECT \"x y\"\r\n"),
        (
            "U * 3 EXISTS\r\nb OK\r\nearly OK\r\n* X-NEW (junk \"\n",
            ">C * 3 EXISTS\r\nb OK\r\nearly OK\r\n* X-NEW (junk \"\n",
        ),
        ("U a OK\r\n+ stray\r\nnobody OK\r\n\r\n", ">C a OK\r\n+ stray\r\nnobody OK\r\n\r\n"),
        ("C c XFUTURE {3}\r\n", ">U c XFUTURE {3}\r\n"),
        ("U + go\r\n", ">C + go\r\n"),
        ("C abc more\r\n", ">U abc more\r\n"),
        (
            "U * 1 FETCH (BODY[] {19}\r\nc OK not a response FLAGS ())\r\nc OK\r\n",
            ">C * 1 FETCH (BODY[] {19}\r\nc OK not a response FLAGS ())\r\nc OK\r\n",
        ),
    ]);
}

#[test]
fn capabilities_are_reduced_wherever_they_stand() {
    check(&[
        (
            "U * OK [CAPABILITY IMAP4rev1 STARTTLS Idle COMPRESS=DEFLATE] hi\r\n",
            ">C * OK [CAPABILITY IMAP4rev1 Idle] hi\r\n",
        ),
        ("C a CAPABILITY\r\n", ">U a CAPABILITY\r\n"),
        (
            "U * CAPABILITY IMAP4rev1 XNEW ID\r\na OK done\r\n",
            ">C * CAPABILITY IMAP4rev1 ID\r\na OK done\r\n",
        ),
        LOGIN,
        ("U l OK [CAPABILITY IMAP4rev2 IMAP4rev1 NOTIFY] in\r\n", ">C l OK [CAPABILITY IMAP4rev1] in\r\n"),
        ("U * NO [CAPABILITY CATENATE MOVE] x\r\n", ">C * NO [CAPABILITY MOVE] x\r\n"),
        (
            "U * 1 FETCH (X {30}\r\n* CAPABILITY COMPRESS=DEFLATE\r\n)\r\n",
            ">C * 1 FETCH (X {30}\r\n* CAPABILITY COMPRESS=DEFLATE\r\n)\r\n",
        ),
    ]);
    check_on(
        STARTTLS,
        &[
            (
                "U * OK [CAPABILITY IMAP4rev1 STARTTLS ID] hi\r\n",
                ">C * OK [CAPABILITY IMAP4rev1 ID STARTTLS] hi\r\n",
            ),
            LOGIN,
            ("U l OK [CAPABILITY IMAP4rev1 ID] in\r\n", ">C l OK [CAPABILITY IMAP4rev1 ID] in\r\n"),
        ],
    );
}

#[test]
fn a_long_response_line_passes_and_a_long_capability_list_does_not() {
    let long = "x".repeat(3_000);
    let line = format!("* 1 FETCH ({long} BODY[] {{4}}\r\na OK)\r\n");
    let (said, passed) = (format!("U {line}"), format!(">C {line}"));
    let (end, ended) = (format!("U a OK {long}\r\n"), format!(">C a OK {long}\r\n"));
    check(&[
        HELLO,
        ("C a NOOP\r\n", ">U a NOOP\r\n"),
        (&said, &passed),
        (&end, &ended),
        ("drain", ">C * BYE The gateway is restarting\r\n[close drained]"),
    ]);
    let list = format!("U * CAPABILITY {}\r\n", "IDLE ".repeat(300));
    check(&[HELLO, (&list, "[close upstream_lost]")]);
}

#[test]
fn a_synchronising_literal_waits_for_the_go_ahead() {
    check(&[
        HELLO,
        ("C a LOGIN {4}\r\nfred {2}\r\npw\r\nb NOOP\r\n", ">U a LOGIN {4}\r\n"),
        ("U * 1 EXISTS\r\n", ">C * 1 EXISTS\r\n"),
        ("U + go\r\n", ">C + go\r\n>U fred {2}\r\n"),
        ("U + go\r\n", ">C + go\r\n>U pw\r\nb NOOP\r\n"),
    ]);
}

#[test]
fn a_refused_literal_does_not_come() {
    check(&[
        HELLO,
        LOGIN,
        LOGGED_IN,
        ("C a NOOP\r\nb APPEND x {1000}\r\n", ">U a NOOP\r\nb APPEND x {1000}\r\n"),
        ("U a OK\r\n", ">C a OK\r\n"),
        ("C c NOOP\r\n", ""),
        ("U b NO [TRYCREATE] no\r\n", ">C b NO [TRYCREATE] no\r\n>U c NOOP\r\n"),
    ]);
}

#[test]
fn the_go_ahead_belongs_to_who_asked_first() {
    check(&[
        HELLO,
        LOGIN,
        LOGGED_IN,
        ("C a IDLE\r\nDONE\r\nb APPEND x {3}\r\nabc\r\n", ">U a IDLE\r\nDONE\r\nb APPEND x {3}\r\n"),
        ("U + idling\r\n", ">C + idling\r\n"),
        ("U a OK\r\n", ">C a OK\r\n"),
        ("U + go\r\n", ">C + go\r\n>U abc\r\n"),
    ]);
}

#[test]
fn a_command_answered_early_is_passed_on_to_its_end() {
    check(&[
        OFFER,
        LOGIN,
        LOGGED_IN,
        ("C a APPEND x {6+}\r\nabc", ">U a APPEND x {6}\r\n"),
        ("U + go\r\n", ">U abc"),
        ("U a NO full\r\n", ">C a NO full\r\n"),
        ("C def {3+}\r\nghi\r\n", ">U def \r\n"),
        ("C b APPEND x {3}\r\n", ">U b APPEND x {3}\r\n"),
        ("U + go\r\n", ">C + go\r\n"),
        ("C abc", ">U abc"),
        ("U b NO full\r\n", ">C b NO full\r\n"),
        ("C  {3}\r\nc NOOP\r\n", ">U  \r\nc NOOP\r\n"),
    ]);
}

#[test]
fn an_unasked_literal_waits_at_the_gate() {
    check(&[
        HELLO,
        LOGIN,
        LOGGED_IN,
        ("C a APPEND x ~{16+}\r\nb DELETE INBOX\r\nc NOOP\r\n", ">U a APPEND x ~{16}\r\n"),
        ("U * 1 EXISTS\r\n", ">C * 1 EXISTS\r\n"),
        ("U + go\r\n", ">U b DELETE INBOX\r\nc NOOP\r\n"),
        ("U + stray\r\na OK\r\nc OK\r\n", ">C + stray\r\na OK\r\nc OK\r\n"),
        ("C d XFUTURE {3+}\r\nabc {0+}\r\n (~{2+}\r\n\0\n)\r\ne NOOP\r\n", ">U d XFUTURE {3}\r\n"),
        ("U + go\r\n", ">U abc {0}\r\n"),
        ("U + go\r\n", ">U  (~{2}\r\n"),
        ("U + go\r\n", ">U \0\n)\r\ne NOOP\r\n"),
    ]);
    // The `+` before it is that of the command before it.
    check(&[
        HELLO,
        LOGIN,
        LOGGED_IN,
        ("C a IDLE\r\nDONE\r\nb APPEND x {3+}\r\nabc\r\n", ">U a IDLE\r\nDONE\r\nb APPEND x {3}\r\n"),
        ("U + idling\r\na OK\r\n", ">C + idling\r\na OK\r\n"),
        ("U + go\r\n", ">U abc\r\n"),
    ]);
}

#[test]
fn an_unasked_literal_that_the_upstream_refuses_is_thrown_away() {
    let end = ("U a NO\r\n", ">C a NO\r\n[login refused]");
    check(&[
        OFFER,
        ("C z NOOP\r\na LOGIN {4+}\r\nfred {2+}\r\npw\r\nb NOOP\r\n", ">U z NOOP\r\na LOGIN {4}\r\n"),
        ("U z OK\r\n", ">C z OK\r\n"),
        ("U a NO\r\n", ">C a NO\r\n[login refused]>U b NOOP\r\n"),
    ]);
    check(&[
        OFFER,
        ("C a LOGIN {4+}\r\nfred {2}\r\nb NOOP\r\n", ">U a LOGIN {4}\r\n"),
        ("U a NO\r\n", ">C a NO\r\n[login refused]>U b NOOP\r\n"),
    ]);
    check(&[
        OFFER,
        ("C a LOGIN {4+}\r\n", ">U a LOGIN {4}\r\n"),
        end,
        (
            "C fred {65+}\r\n",
            "[limit imap_prelogin_bytes]>C * BYE The literal is too large before login\r\n[close client_fault]",
        ),
    ]);
    check(&[
        OFFER,
        ("C a LOGIN {4+}\r\n", ">U a LOGIN {4}\r\n"),
        end,
        ("C fred x{5+}\r\n", ">C * BYE It is not clear whether a literal follows\r\n[close client_fault]"),
    ]);
}

#[test]
fn a_go_ahead_that_is_not_the_clients_is_a_line() {
    let long = format!("U + {}\r\n", "x".repeat(2_000));
    check(&[
        HELLO,
        LOGIN,
        LOGGED_IN,
        ("C a APPEND x {3+}\r\n", ">U a APPEND x {3}\r\n"),
        (&long, "[close upstream_lost]"),
    ]);
}

/// Dovecot 2.3.19 gives up a command at the quote inside the atom, and with it the announcement: it answers `a BAD` and
/// would read the eight octets of text as a command.
#[test]
fn what_a_literal_holds_is_never_a_command() {
    check(&[
        OFFER,
        LOGIN,
        LOGGED_IN,
        ("C a SELECT foo\" bar\" {8+}\r\nz NOOP\r\n\r\nz NOOP\r\n", ">U a SELECT foo\" bar\" {8}\r\n"),
        ("U a BAD Invalid characters in atom\r\n", ">C a BAD Invalid characters in atom\r\n>U z NOOP\r\n"),
    ]);
}

#[test]
fn what_would_blind_the_gate_is_refused() {
    check_on(
        Terms { errors: 100, ..TERMS },
        &[
            OFFER,
            LOGIN,
            LOGGED_IN,
            ("C a compress DEFLATE\r\n", ">C a BAD compress is not offered here\r\n"),
            ("C a NOTIFY NONE\r\n", ">C a BAD NOTIFY is not offered here\r\n"),
            ("C a UNAUTHENTICATE\r\n", ">C a BAD UNAUTHENTICATE is not offered here\r\n"),
            ("C a URLFETCH x\r\n", ">C a BAD URLFETCH is not offered here\r\n"),
            ("C a GENURLAUTH x\r\n", ">C a BAD GENURLAUTH is not offered here\r\n"),
            ("C a RESETKEY\r\n", ">C a BAD RESETKEY is not offered here\r\n"),
            ("C a CONVERT 1 x\r\n", ">C a BAD CONVERT is not offered here\r\n"),
            ("C a REPLACE 1 x {5}\r\nb NOOP\r\n", ">C a BAD REPLACE is not offered here\r\n>U b NOOP\r\n"),
            (
                "C a UID REPLACE 1 x {5+}\r\nabcde\r\nc NOOP\r\n",
                ">C a BAD REPLACE is not offered here\r\n>U c NOOP\r\n",
            ),
            ("C a ENABLE CONDSTORE\r\n", ">U a ENABLE CONDSTORE\r\n"),
            ("C a ENABLE CONDSTORE \"UIDONLY\"\r\n", ">C a BAD ENABLE takes words\r\n"),
            (
                "C a ENABLE CONDSTORE UIDONLY\r\n",
                ">C a BAD UIDONLY is not offered here: responses would name messages in a way the gate does not follow\r\n",
            ),
            ("C a NOOP {5+}\r\nabcde\r\n", ">C a BAD NOOP takes no arguments\r\n"),
            ("C a STARTTLS\r\n", ">C a BAD STARTTLS is not available now\r\n"),
            ("C  NOOP\r\n", ">C * BAD This is not a tag\r\n"),
            ("C a COMPRESS\tDEFLATE\r\n", ">C a BAD This is not a command\r\n"),
        ],
    );
}

#[test]
fn doubtful_framing_is_not_passed_on() {
    check(&[HELLO, ("C a NOOP\nb NOOP\r\n", ">C a BAD Lines end with CRLF\r\n>U b NOOP\r\n")]);
    check(&[HELLO, ("C a NO\rOP\r\n", ">C a BAD Lines end with CRLF\r\n")]);
    check(&[HELLO, ("C a NOOP \0\r\n", ">C a BAD NUL is only for literals\r\n")]);
    let bye = ">C * BYE It is not clear whether a literal follows\r\n[close client_fault]";
    check(&[HELLO, ("C a LOGIN \"fred {5}\r\nb NOOP\r\n", bye)]);
    check(&[HELLO, ("C a LOGIN fred{5}\r\nb NOOP\r\n", bye)]);
    check(&[HELLO, ("C a LOGIN {5+}\nb NOOP\r\n", bye)]);
    check(&[
        OFFER,
        ("C a LOGIN {4+}\r\nfred\0\r\n", ">U a LOGIN {4}\r\n"),
        (
            "U + go\r\n",
            ">U fred>C * BYE The rest of this command cannot be passed on\r\n[close client_fault]",
        ),
    ]);
    let long = format!("C {}\r\n", "x".repeat(500));
    check(&[
        HELLO,
        (&long, "[limit imap_prelogin_bytes]>C * BYE The line is too long\r\n[close client_fault]"),
    ]);
}

#[test]
fn errors_are_counted() {
    check(&[
        HELLO,
        (
            "C a COMPRESS\r\nb COMPRESS\r\n",
            ">C a BAD COMPRESS is not offered here\r\nb BAD COMPRESS is not offered here\r\n",
        ),
        ("C c XBAD\r\n", ">U c XBAD\r\n"),
        ("U c BAD what\r\n", ">C c BAD what\r\n"),
        (
            "C d\r\n",
            ">C d BAD This is not a command\r\n[limit errors_per_session]>C * BYE Too many errors\r\n[close client_fault]",
        ),
        ("C e NOOP\r\n", ""),
        ("U * 1 EXISTS\r\n", ""),
    ]);
}

#[test]
fn browsers_are_hung_up_on() {
    for request in ["C GET / HTTP/1.1\r\na NOOP\r\n", "C POST /x HTTP/1.1\r\n", "C OPTIONS * HTTP/1.0\r\n"] {
        check(&[HELLO, (request, "[close client_fault]")]);
    }
}

#[test]
fn before_login_everything_is_small() {
    check(&[
        OFFER,
        ("C a LOGIN {64}\r\n", ">U a LOGIN {64}\r\n"),
        ("U a NO\r\n", ">C a NO\r\n[login refused]"),
        (
            "C a LOGIN {65}\r\nb NOOP\r\n",
            "[limit imap_prelogin_bytes]>C a BAD The literal is too large before login\r\n>U b NOOP\r\n",
        ),
        (
            "C a LOGIN {65+}\r\n",
            "[limit imap_prelogin_bytes]>C * BYE The literal is too large before login\r\n[close client_fault]",
        ),
    ]);
    let long = format!("C a LOGIN {} x\r\nb NOOP\r\n", "x".repeat(64));
    check(&[
        OFFER,
        (&long, "[limit imap_prelogin_bytes]>C a BAD The line is too long before login\r\n>U b NOOP\r\n"),
    ]);
    let long = format!("a CREATE {}\r\n", "x".repeat(900));
    let (said, passed) = (format!("C {long}"), format!(">U {long}"));
    check(&[OFFER, LOGIN, LOGGED_IN, (&said, &passed)]);
}

#[test]
fn a_sasl_exchange_is_opaque() {
    check(&[
        HELLO,
        ("C a AUTHENTICATE SCRAM-SHA-256\r\nYWJj\r\n", ">U a AUTHENTICATE SCRAM-SHA-256\r\n"),
        ("U * OK still there\r\n+ \r\n", ">C * OK still there\r\n+ \r\n>U YWJj\r\n"),
        ("U + YWJjZA==\r\n", ">C + YWJjZA==\r\n"),
        ("C \r\n", ">U \r\n"),
        ("U a OK [CAPABILITY IMAP4rev1 NOTIFY] in\r\n", ">C a OK [CAPABILITY IMAP4rev1] in\r\n"),
        ("C b NOOP\r\n", ">U b NOOP\r\n"),
    ]);
    let long = format!("C {}\r\n", "YWJj".repeat(33));
    for line in
        ["C b COMPRESS DEFLATE\r\n", "C YWJ\r\n", "C YWJj\n", "C * \r\n", "C {5+}\r\n", "C \"{5}\r\n", &long]
    {
        check(&[
            HELLO,
            ("C a AUTHENTICATE PLAIN\r\n", ">U a AUTHENTICATE PLAIN\r\n"),
            ("U + \r\n", ">C + \r\n"),
            (line, ">U *\r\n"),
            ("U a BAD\r\n", ">C a BAD\r\n[login refused]"),
            ("C b NOOP\r\n", ">U b NOOP\r\n"),
        ]);
    }
    check_on(
        Terms { errors: 100, ..TERMS },
        &[
            HELLO,
            ("C a AUTHENTICATE PLAIN AGEAYg==\r\n", ">U a AUTHENTICATE PLAIN AGEAYg==\r\n"),
            ("U a NO\r\n", ">C a NO\r\n[login refused]"),
            (
                "C a AUTHENTICATE PLAIN a b\r\n",
                ">C a BAD The initial response is not base64, or too long\r\n",
            ),
            (
                "C a AUTHENTICATE SCRAM-SHA-1-PLUS\r\n",
                ">C a NO The mechanism is not offered here: it binds to one TLS session, and the gate has two\r\n",
            ),
            ("C a AUTHENTICATE {5}\r\n", ">C a BAD AUTHENTICATE takes a mechanism and base64\r\n"),
        ],
    );
}

#[test]
fn idle_ends_with_done() {
    check(&[
        HELLO,
        LOGIN,
        LOGGED_IN,
        ("C a IDLE\r\n", ">U a IDLE\r\n"),
        ("U + idling\r\n* 4 EXISTS\r\n", ">C + idling\r\n* 4 EXISTS\r\n"),
        ("C b COMPRESS DEFLATE\r\n", ">C * BAD Expected DONE\r\n"),
        ("C done\r\nc NOOP\r\n", ">U done\r\nc NOOP\r\n"),
        ("U a OK\r\nc OK\r\n", ">C a OK\r\nc OK\r\n"),
        ("C d IDLE\r\n", ">U d IDLE\r\n"),
        ("U d NO no\r\n", ">C d NO no\r\n"),
        ("C e NOOP\r\n", ">U e NOOP\r\n"),
    ]);
}

#[test]
fn accounts_are_learned() {
    for (script, account) in [
        (vec![HELLO, LOGIN, LOGGED_IN], Some("fred")),
        (vec![HELLO, LOGIN, ("U l NO\r\n", ">C l NO\r\n[login refused]")], None),
        (
            vec![
                OFFER,
                ("C l LOGIN {4+}\r\nfr\"d {2+}\r\npw\r\n", ">U l LOGIN {4}\r\n"),
                ("U + go\r\n", ">U fr\"d {2}\r\n"),
                ("U + go\r\n", ">U pw\r\n"),
                LOGGED_IN,
            ],
            Some("fr\"d"),
        ),
    ] {
        let mut scene = Scene::new(TERMS);
        for (step, expected) in script {
            assert_eq!(scene.step(step, 3), expected);
        }
        assert_eq!(scene.relay.account(), account);
        // What is read of a client at once is no more than a line until it is known.
        let octets = if account.is_some() { usize::MAX } else { TERMS.sasl_line + AUTHENTICATE_LEN };
        assert_eq!(scene.relay.reads_client_at_most(), octets);
    }
}

#[test]
fn starttls_ends_at_the_gate() {
    check_on(
        STARTTLS,
        &[
            HELLO,
            ("C a CAPABILITY\r\nb STARTTLS\r\n", ">U a CAPABILITY\r\n"),
            ("U * CAPABILITY IMAP4rev1\r\n", ">C * CAPABILITY IMAP4rev1 STARTTLS\r\n"),
            ("U a OK\r\n* X\r\n", ">C a OK\r\nb OK Begin TLS now\r\n[tls]"),
            ("encrypted", ">C * X\r\n"),
            ("C c STARTTLS\r\n", ">C c BAD STARTTLS is not available now\r\n"),
            ("U * CAPABILITY IMAP4rev1\r\n", ">C * CAPABILITY IMAP4rev1\r\n"),
        ],
    );
    check_on(
        STARTTLS,
        &[HELLO, LOGIN, LOGGED_IN, ("C a STARTTLS\r\n", ">C a BAD STARTTLS is not available now\r\n")],
    );
    // In a literal's way the gate's own word waits.
    check_on(
        STARTTLS,
        &[
            HELLO,
            ("U * X {4}\r\n", ">C * X {4}\r\n"),
            ("C a STARTTLS\r\n", ""),
            ("U abcd)\r\n", ">C abcd)\r\na OK Begin TLS now\r\n[tls]"),
        ],
    );
}

#[test]
fn octets_behind_starttls_are_never_read() {
    let mut scene = Scene::new(STARTTLS);
    scene.step(HELLO.0, usize::MAX);
    assert_eq!(
        scene.step("C a STARTTLS\r\nb LOGIN fred pw\r\n", usize::MAX),
        ">C * BYE Nothing may follow STARTTLS before TLS\r\n[close client_fault]"
    );
    // In pieces they stay where they are, and TLS does not begin over them.
    let mut scene = Scene::new(STARTTLS);
    scene.step(HELLO.0, usize::MAX);
    assert_eq!(scene.step("C a STARTTLS\r\nb LOGIN fred pw\r\n", 1), ">C a OK Begin TLS now\r\n[tls]");
    assert!(!scene.relay.wants_client());
    assert_eq!(&scene.client[..], b"b LOGIN fred pw\r\n");
}

#[test]
fn preauth_must_not_keep_a_client_from_tls() {
    let refused = ">C * BYE [UNAVAILABLE] The mail server cannot be reached, try again later\r\n[close upstream_unavailable]";
    check_on(STARTTLS, &[("U * PREAUTH hi\r\n", refused)]);
    check(&[("U * PREAUTH hi\r\n", ">C * PREAUTH hi\r\n")]);
    for greeting in ["U 220 smtp\r\n", "U * 1 EXISTS\r\n", "U a OK\r\n", "U + go\r\n"] {
        check(&[(greeting, refused)]);
    }
}

#[test]
fn our_own_words_stand_between_responses() {
    check(&[
        HELLO,
        ("U * 1 FETCH (BODY[] {6}\r\nab", ">C * 1 FETCH (BODY[] {6}\r\nab"),
        ("C a COMPRESS\r\n", ""),
        ("U cdef FLAGS", ">C cdef"),
        ("U  ())\r\n", ">C  FLAGS ())\r\na BAD COMPRESS is not offered here\r\n"),
    ]);
}

#[test]
fn braces_in_a_status_text_announce_nothing() {
    check(&[
        HELLO,
        ("C a NOOP\r\nb NOOP\r\n", ">U a NOOP\r\nb NOOP\r\n"),
        ("U * OK see {400}\r\na OK see {400}\r\n", ">C * OK see {400}\r\na OK see {400}\r\n"),
        ("U b OK [CAPABILITY NOTIFY] x\r\n", ">C b OK [CAPABILITY] x\r\n"),
    ]);
}

#[test]
fn commands_in_flight_are_bounded() {
    let mut scene = Scene::new(TERMS);
    scene.step(HELLO.0, usize::MAX);
    let many: String = (0..200).map(|n| format!("t{n} NOOP\r\n")).collect();
    let passed: String = (0..MAX_IN_FLIGHT).map(|n| format!("t{n} NOOP\r\n")).collect();
    assert_eq!(scene.step(&format!("C {many}"), usize::MAX), format!(">U {passed}"));
    assert_eq!(scene.step("U t0 OK\r\n", usize::MAX), format!(">C t0 OK\r\n>U t{MAX_IN_FLIGHT} NOOP\r\n"));
}

#[test]
fn each_side_ends_by_itself() {
    check(&[
        HELLO,
        ("C a NOOP\r\nb NO", ">U a NOOP\r\n"),
        ("client ends", ""),
        ("U * 1 EXISTS\r\n", ">C * 1 EXISTS\r\n"),
        ("U a OK\r\n* unfini", ">C a OK\r\n[end upstream]"),
        ("upstream ends", ">C * unfini[end client]"),
    ]);
    // What the upstream cannot answer any more is not waited for.
    check(&[HELLO, ("client ends", "[end upstream]")]);
    check(&[HELLO, ("C a IDLE\r\n", ">U a IDLE\r\n"), ("client ends", "[end upstream]")]);
    check(&[
        OFFER,
        ("C a CREATE {5+}\r\nab", ">U a CREATE {5}\r\n"),
        ("U + go\r\n", ">U ab"),
        ("client ends", "[end upstream]"),
    ]);
    for (script, end) in [
        (vec!["C a LOGOUT\r\n", "U * BYE\r\na OK\r\n", "upstream ends", "client ends"], End::Quit),
        (vec!["client ends", "upstream ends"], End::ClientClosed),
        (vec!["U * BYE\r\n", "upstream ends", "client ends"], End::UpstreamClosed),
        (vec!["upstream ends"], End::UpstreamLost),
    ] {
        let mut scene = Scene::new(TERMS);
        scene.step(HELLO.0, usize::MAX);
        for step in script {
            scene.step(step, usize::MAX);
        }
        assert_eq!(scene.relay.end(), end);
    }
}

#[test]
fn silence_has_an_end() {
    let second = Duration::from_secs(1);
    let mut scene = Scene::new(TERMS);
    let tick = |scene: &mut Scene, at: Instant| {
        let mut out = Vec::new();
        scene.now = at;
        scene.relay.handle(at, Input::Tick, &mut out);
        spell(&out)
    };
    let begun = scene.now;
    scene.step(HELLO.0, usize::MAX);
    scene.now = begun + 50 * second;
    scene.step("C a NOOP\r\n", usize::MAX);
    // A login in time is what counts, not activity.
    assert_eq!(scene.relay.deadline(), begun + TERMS.login_timeout);
    assert_eq!(tick(&mut scene, begun + 59 * second), "");
    scene.step("C l LOGIN a b\r\n", usize::MAX);
    scene.step("U l OK\r\n", usize::MAX);
    let active = scene.now;
    assert_eq!(scene.relay.deadline(), active + TERMS.idle_timeout);
    // Part of a line is no activity.
    scene.now = active + 1_000 * second;
    scene.step("C a NO", usize::MAX);
    assert_eq!(scene.relay.deadline(), active + TERMS.idle_timeout);
    assert_eq!(
        tick(&mut scene, active + TERMS.idle_timeout),
        ">C * BYE The session was silent for too long\r\n[close client_timeout]"
    );
}

#[test]
fn a_cut_says_goodbye_between_responses_only() {
    let bye = ">C * BYE The gateway is restarting\r\n[close drained]";
    let asked = ("C a FETCH 1 BODY[]\r\n", ">U a FETCH 1 BODY[]\r\n");
    check(&[HELLO, ("drain", bye), ("cut", "")]);
    check(&[HELLO, asked, ("drain", ""), ("cut", bye)]);
    let half = ("U * 1 FETCH (BODY[] {10}\r\nhalf", ">C * 1 FETCH (BODY[] {10}\r\nhalf");
    check(&[HELLO, asked, half, ("drain", ""), ("cut", "[close drained]")]);
}

#[test]
fn draining_waits_for_quiet() {
    let bye = ">C * BYE The gateway is restarting\r\n[close drained]";
    check(&[HELLO, ("drain", bye)]);
    check(&[HELLO, ("C a IDLE\r\n", ">U a IDLE\r\n"), ("drain", bye)]);
    check_on(
        STARTTLS,
        &[HELLO, ("C a STARTTLS\r\n", ">C a OK Begin TLS now\r\n[tls]"), ("drain", ""), ("encrypted", bye)],
    );
    check(&[
        HELLO,
        ("C a NOOP\r\n", ">U a NOOP\r\n"),
        ("drain", ""),
        ("U a OK\r\n", ">C a OK\r\n* BYE The gateway is restarting\r\n[close drained]"),
    ]);
}

/// Words that conversations, and attempts on them, are made of.
const WORDS: &[&str] = &[
    "a ",
    "b ",
    "l ",
    "* ",
    "+ ",
    "OK",
    "NO",
    "BAD",
    "BYE",
    " ",
    "\r\n",
    "\n",
    "\r",
    "\0",
    "{3}\r\n",
    "{3+}\r\n",
    "~{5+}\r\n",
    "{9999999}",
    "\"",
    "\\",
    "LOGIN fred pw",
    "IDLE\r\n",
    "DONE\r\n",
    "AUTHENTICATE PLAIN\r\n",
    "YWJj\r\n",
    "NOOP\r\n",
    "APPEND x ",
    "COMPRESS DEFLATE",
    "STARTTLS\r\n",
    "LOGOUT\r\n",
    "[CAPABILITY ",
    "] ",
    "1 FETCH (BODY[] ",
    ")",
    "abc",
];

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS), 0..30).prop_map(|words| words.concat())
}

fn said(out: &[Output]) -> String {
    let octets = out.iter().filter_map(|output| match output {
        Output::ToClient(octets) => Some(&octets[..]),
        _ => None,
    });
    String::from_utf8_lossy(&octets.collect::<Vec<_>>().concat()).into_owned()
}

proptest! {
    /// Whatever the two say, it comes to an end, and what a side says in pieces is what it says at once, as long as the
    /// other does not fall in between.
    #[test]
    fn pieces_of_a_conversation_change_nothing(
        client in text(),
        turns in prop::collection::vec((prop::bool::ANY, text()), 0..12),
        chunk in 1_usize..12,
    ) {
        let (mut whole, mut pieces) = (Scene::new(TERMS), Scene::new(TERMS));
        for scene in [&mut whole, &mut pieces] {
            scene.step(HELLO.0, usize::MAX);
        }
        let first = format!("C {client}");
        prop_assert_eq!(whole.step(&first, usize::MAX), pieces.step(&first, chunk));
        for (by_client, text) in turns {
            whole.step(&format!("{} {text}", if by_client { 'C' } else { 'U' }), chunk);
        }
    }

    /// What the upstream says arrives as it was, but for capability lists and what is not a whole line yet.
    #[test]
    fn what_the_upstream_says_arrives(words in prop::collection::vec(text(), 0..12), chunk in 1_usize..12) {
        let text = words.concat().replace("[CAPABILITY", "[");
        let mut scene = Scene::new(TERMS);
        scene.step(HELLO.0, usize::MAX);
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(chunk) {
            scene.upstream.extend_from_slice(piece);
            scene.settle(&mut out);
        }
        prop_assert_eq!(said(&out) + &String::from_utf8_lossy(&scene.upstream), text);
    }
}
