//! The IMAP conversation as a value: octets of either side in, octets and orders out (sans-I/O).
//!
//! Everything passes verbatim and at once, with these exceptions:
//!
//! * capability lists lose what the gate cannot look through, wherever they stand;
//! * STARTTLS ends here, and octets behind it in clear end the session before any of them is read;
//! * an ID that names another client's address before login loses all it says: the upstream may believe the gate;
//! * commands of hidden capabilities are refused here, also when a client tries them unadvertised;
//! * what a client says in doubtful framing is refused here, because an upstream might read it otherwise;
//! * a non-synchronising literal is a synchronising one for the upstream. Where a grammar fails before the announcement,
//!   servers (Dovecot 2.3) overlook it and read the octets behind it as commands, hidden ones among them: so these wait
//!   here for the upstream's `+`, which is not the client's, and are thrown away where the command's end comes instead.
//!
//! What the client may say next is one enum:
//!
//! ```text
//!  Greeting ──greeting──▶ Command ──line──▶ Command
//!                            │ ├─line {n}, {n+}▶ GoAhead ──"+"──▶ Rest ──line──▶ Command
//!                            │ │                                    └─line {n}, {n+}──▶ GoAhead
//!                            │ ├─AUTHENTICATE▶ Challenge ──"+"──▶ Response ──line──▶ Challenge
//!                            │ ├─IDLE──────▶ Idle ──DONE──▶ Command
//!                            │ ├─refused {n+}▶ Discard ──line──▶ Command
//!                            │ └─STARTTLS──▶ Quiet ──nothing in flight──▶ Handshake ──TLS──▶ Command
//!                            ◀── the tagged end of the command itself, in GoAhead, Challenge, Response and Idle;
//!                                in the GoAhead of {n+} to Discard: the client sends what it announced all the same
//! ```
//!
//! A client that half-closes is heard out: the upstream is told of it behind the answers that are still to come.
//! Commands are known by their tags while they are in flight. An untagged response is never tied to one of them:
//! upstreams run pipelined commands at once. What the gate says itself waits until the upstream's response is complete.
//!
//! It owns the fragmentizers of both sides, since how a side is to be read next depends on the conversation: whether an
//! announced literal comes, and how long a line may be. It does no I/O and reads no clock.
//!
//! Where the listener offers STARTTLS, a PREAUTH greeting is refused: a client could never ask for TLS any more, and
//! somebody in between could have made the greeting up for just that.

use std::{borrow::Cow, ops::Range, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::{
    limits::Limits,
    session::End,
    wire::{
        imap::{
            capability::{self, Logins, Sight},
            command::{self, Account, Command, Malformed, Verb},
            fragment::{self, Announcement, Fault, Fragment, Fragmentizer, Line, TooLong},
            response::{Condition, Response},
        },
        sasl::{self, ClientLine},
    },
};

/// What happens to a session.
pub enum Input<'a> {
    /// The client said more. Taken off the front as far as it can be dealt with now.
    Client(&'a mut BytesMut),
    /// The upstream said more. Taken off the front as far as it can be dealt with now.
    Upstream(&'a mut BytesMut),
    /// The client will say nothing more.
    ClientEnd,
    /// The upstream will say nothing more; what it left unfinished.
    UpstreamEnd(&'a mut BytesMut),
    /// The client's leg is encrypted now.
    Encrypted,
    /// The gateway is ending.
    Drain,
    /// The time for that is over.
    Cut,
    /// The deadline may have been reached.
    Tick,
}

/// What is to be done, in this order.
pub enum Output {
    /// For the client.
    ToClient(Bytes),
    /// For the upstream.
    ToUpstream(Bytes),
    /// Take the server's part of a TLS handshake with the client, after what was said before; then [`Input::Encrypted`].
    UpgradeTls,
    /// Tell the client that nothing more comes.
    EndClient,
    /// Tell the upstream that nothing more comes.
    EndUpstream,
    /// The upstream refused a login.
    LoginRefused,
    /// A limit of this name was reached.
    LimitReached(&'static str),
    /// The session is over, after what was said before.
    Close(End),
}

/// What one session is given.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Whether the client can have STARTTLS from us.
    pub start_tls: bool,
    /// Whether it may log in without it.
    pub login_in_clear: bool,
    /// Octets of one command line without its literals, after login.
    pub line: usize,
    /// Octets of a line or literal before login.
    pub before_login: usize,
    /// Octets of one line of a SASL exchange, without its end.
    pub sasl_line: usize,
    /// Faulty or refused commands before the session ends.
    pub errors: u64,
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// How long both sides may be silent after login.
    pub idle_timeout: Duration,
}

impl Terms {
    /// The terms under `limits`.
    pub fn new(limits: &Limits, start_tls: bool, login_in_clear: bool) -> Self {
        let octets = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            start_tls,
            login_in_clear,
            line: octets(limits.imap_line_bytes),
            before_login: octets(limits.imap_prelogin_bytes),
            sasl_line: octets(limits.sasl_line_bytes),
            errors: limits.errors_per_session,
            login_timeout: limits.login_timeout,
            idle_timeout: limits.imap_idle_timeout,
        }
    }

    /// Octets of the longest line before login, which may be that of an AUTHENTICATE.
    fn line_before_login(&self) -> usize {
        self.before_login.max(self.sasl_line.saturating_add(AUTHENTICATE_LEN))
    }
}

/// One session.
pub struct Relay {
    terms: Terms,
    client: Fragmentizer,
    upstream: Fragmentizer,
    expect: Expect,
    /// Commands the upstream has not answered yet, in the order they were sent.
    in_flight: Vec<InFlight>,
    /// The tag of the STARTTLS that waits for quiet.
    tls_tag: Box<[u8]>,
    /// What we have to say as soon as the upstream's response is complete. Bounded by the limit of errors.
    held: Vec<u8>,
    /// The account of the LOGIN whose literal is coming in. Bounded by the limit of literals before login.
    account_literal: Option<Vec<u8>>,
    account: Option<String>,
    happened: Happened,
    errors: u64,
    begun_at: Instant,
    active_at: Instant,
}

/// What the client may say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Nothing before the upstream's greeting.
    Greeting,
    /// A command.
    Command,
    /// Nothing before the upstream asks for the literal.
    GoAhead,
    /// The rest of a command that is passed on.
    Rest,
    /// The rest of a command that was refused, here or by the upstream.
    Discard,
    /// Nothing before the upstream's challenge.
    Challenge,
    /// One line of a SASL exchange.
    Response,
    /// DONE.
    Idle,
    /// Nothing before the commands in flight are answered: TLS comes next.
    Quiet,
    /// Nothing before TLS.
    Handshake,
}

/// A command the upstream has not answered yet.
struct InFlight {
    tag: Box<[u8]>,
    kind: Kind,
    /// Whether the client still has to say more of it. Invariant: only the last one may be open.
    open: bool,
    plus: Plus,
}

/// The `+` that the upstream still has to say for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plus {
    /// None.
    None,
    /// The client waits for it.
    Client,
    /// Only the gate waits for it: the client sends its literal without being asked.
    Gate,
}

/// What the end of a command means.
enum Kind {
    Login { account: Option<String> },
    Authenticate,
    Idle,
    Other,
}

/// What has happened, once for all.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    /// The client said its first line.
    command: bool,
    /// The client logged in.
    login: bool,
    /// The client said goodbye.
    logout: bool,
    /// The upstream said goodbye.
    bye: bool,
    client_end: bool,
    /// The upstream knows of the client's end.
    upstream_told: bool,
    upstream_end: bool,
    /// The upstream ended first.
    lost: bool,
    /// The order to end was given.
    drain: bool,
    /// The session is over.
    close: bool,
}

impl Relay {
    /// A session that waits for the upstream's greeting.
    pub fn new(terms: Terms, now: Instant) -> Self {
        Self {
            terms,
            client: Fragmentizer::strict(terms.line_before_login()),
            upstream: Fragmentizer::lenient(terms.line),
            expect: Expect::Greeting,
            in_flight: Vec::new(),
            tls_tag: Box::default(),
            held: Vec::new(),
            account_literal: None,
            account: None,
            happened: Happened::default(),
            errors: 0,
            begun_at: now,
            active_at: now,
        }
    }

    /// Takes what happened at `now` and says what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Client(octets) => {
                let before = octets.len();
                self.client_says(octets, out);
                self.note_activity(now, before, octets);
            }
            Input::Upstream(octets) => {
                let before = octets.len();
                self.upstream_says(octets, out);
                self.note_activity(now, before, octets);
            }
            Input::ClientEnd => self.happened.client_end = true,
            Input::UpstreamEnd(rest) => {
                if !rest.is_empty() {
                    out.push(Output::ToClient(rest.split().freeze()));
                }
                self.happened.upstream_end = true;
                self.happened.lost = !self.happened.client_end;
                out.push(Output::EndClient);
            }
            Input::Encrypted => self.expect = Expect::Command,
            Input::Drain => self.happened.drain = true,
            Input::Cut => self.bye(ENDING, End::Drained, out),
            Input::Tick => self.tick(now, out),
        }
        self.end_upstream_when_answered(out);
        if self.happened.drain && self.is_quiet() {
            self.bye(ENDING, End::Drained, out);
        }
    }

    /// Whether to read the client now.
    pub fn wants_client(&self) -> bool {
        let may_speak = match self.expect {
            Expect::Greeting | Expect::GoAhead | Expect::Challenge | Expect::Quiet | Expect::Handshake => {
                false
            }
            Expect::Command => self.in_flight.len() < MAX_IN_FLIGHT,
            Expect::Rest | Expect::Discard | Expect::Response | Expect::Idle => true,
        };
        may_speak && !self.happened.client_end && !self.happened.close
    }

    /// Octets of the client to read at once: no more than a line of one that has not logged in.
    pub fn reads_client_at_most(&self) -> usize {
        if self.happened.login { usize::MAX } else { self.terms.line_before_login() }
    }

    /// Whether to read the upstream now.
    pub fn wants_upstream(&self) -> bool {
        self.expect != Expect::Handshake && !self.happened.upstream_end && !self.happened.close
    }

    /// When [`Input::Tick`] is due. It changes with inputs only.
    pub fn deadline(&self) -> Instant {
        let happened = &self.happened;
        if happened.upstream_end || happened.client_end && self.in_flight.is_empty() {
            self.active_at + LINGER
        } else if happened.login {
            self.active_at + self.terms.idle_timeout
        } else {
            self.begun_at + self.terms.login_timeout
        }
    }

    /// How the session ends when both sides have ended by themselves.
    pub fn end(&self) -> End {
        match self.happened {
            Happened { logout: true, .. } => End::Quit,
            Happened { bye: true, .. } => End::UpstreamClosed,
            Happened { lost: true, .. } => End::UpstreamLost,
            _ => End::ClientClosed,
        }
    }

    /// The account that logged in, where the client said it in a LOGIN.
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// A client that has said everything is still owed its answers, and most servers take the end of a TLS stream for
    /// the end of the session: they are told when no answer can come any more.
    fn end_upstream_when_answered(&mut self, out: &mut Vec<Output>) {
        let answer_comes = |command: &InFlight| !command.open && !matches!(command.kind, Kind::Idle);
        let happened = &mut self.happened;
        if happened.client_end && !happened.upstream_told && !self.in_flight.iter().any(answer_comes) {
            happened.upstream_told = true;
            out.push(Output::EndUpstream);
        }
    }

    /// Only what completes something is activity: a line that comes octet by octet keeps no session open.
    fn note_activity(&mut self, now: Instant, before: usize, octets: &BytesMut) {
        if octets.len() != before {
            self.active_at = now;
        }
    }

    fn client_says(&mut self, input: &mut BytesMut, out: &mut Vec<Output>) {
        while self.wants_client() {
            match self.client.next(input) {
                Ok(Some(Fragment::Line(line))) => self.client_line(&line, !input.is_empty(), out),
                Ok(Some(Fragment::Literal(octets))) => self.client_literal(octets, out),
                // A strict fragmentizer makes no parts.
                Ok(Some(Fragment::Part { .. }) | None) => return,
                Err(TooLong { .. }) => {
                    let limit = if self.happened.login { "imap_line_bytes" } else { BEFORE_LOGIN };
                    out.push(Output::LimitReached(limit));
                    return self.bye("The line is too long", End::ClientFault, out);
                }
            }
        }
    }

    fn client_line(&mut self, line: &Line, more: bool, out: &mut Vec<Output>) {
        match self.expect {
            Expect::Command => self.command(line, more, out),
            Expect::Rest => self.rest(line, out),
            Expect::Discard => self.discard(line, out),
            Expect::Response => self.sasl_response(line, out),
            Expect::Idle => self.done(line, out),
            // The client is not read in these.
            Expect::Greeting | Expect::GoAhead | Expect::Challenge | Expect::Quiet | Expect::Handshake => {}
        }
    }

    fn client_literal(&mut self, octets: Bytes, out: &mut Vec<Output>) {
        if self.expect == Expect::Rest {
            if let Some(account) = &mut self.account_literal {
                account.extend_from_slice(&octets);
            }
            out.push(Output::ToUpstream(octets));
        }
    }

    fn command(&mut self, line: &Line, more: bool, out: &mut Vec<Output>) {
        let text = fragment::text(&line.octets);
        if !self.happened.command && command::is_http(text) {
            return self.close(End::ClientFault, out);
        }
        self.happened.command = true;
        if let Some(fault) = line.fault {
            return self.refuse_fault(text, fault, out);
        }
        let refusal = match Command::parse(text) {
            Ok(command) => match self.refusal(&command, line) {
                None if command.verb == Verb::StartTls => return self.start_tls(&command, more, out),
                None => return self.pass(&command, line, out),
                Some(refusal) => (command.tag, refusal),
            },
            Err(Malformed::Tag) => (&b"*"[..], Refusal::bad("This is not a tag")),
            Err(Malformed::Name { tag }) => (tag, Refusal::bad("This is not a command")),
        };
        self.refuse(refusal.0, &refusal.1, line.announces, out);
    }

    /// Why the gate does not let a command pass, if it does not.
    fn refusal(&self, command: &Command<'_>, line: &Line) -> Option<Refusal> {
        let name = command.name.escape_ascii();
        let before_login = !self.happened.login;
        if matches!(command.verb, Verb::Login | Verb::Authenticate) && self.login_waits() {
            return Some(Refusal { condition: "NO", ..Refusal::bad("[PRIVACYREQUIRED] STARTTLS first") });
        }
        if command.verb == Verb::Hidden {
            return Some(Refusal::bad(format!("{name} is not offered here")));
        }
        if command.verb.takes_no_arguments() && line.octets.len() > len_without_arguments(command) {
            return Some(Refusal::bad(format!("{name} takes no arguments")));
        }
        if before_login && command.verb != Verb::Authenticate && line.octets.len() > self.terms.before_login {
            return Some(Refusal {
                limit: Some(BEFORE_LOGIN),
                ..Refusal::bad("The line is too long before login")
            });
        }
        if line.announces.is_some_and(|literal| self.is_too_large(literal)) {
            return Some(Refusal { limit: Some(BEFORE_LOGIN), ..Refusal::bad(LITERAL_TOO_LARGE) });
        }
        match command.verb {
            Verb::StartTls if !self.terms.start_tls || self.happened.login => {
                Some(Refusal::bad("STARTTLS is not available now"))
            }
            Verb::Authenticate => self.sasl_refusal(command, line),
            Verb::Enable => enable_refusal(command.arguments),
            Verb::Id if before_login && line.announces.is_some() => {
                Some(Refusal::bad("ID takes no literals before login"))
            }
            _ => None,
        }
    }

    /// Whether a literal is one of those that have to wait until the client is known.
    fn is_too_large(&self, literal: Announcement) -> bool {
        !self.happened.login && literal.octets > self.terms.before_login as u64
    }

    fn sasl_refusal(&self, command: &Command<'_>, line: &Line) -> Option<Refusal> {
        let (mechanism, initial) = command.mechanism();
        let fits =
            |initial: &[u8]| initial.len() <= self.terms.sasl_line && sasl::is_initial_response(initial);
        if line.announces.is_some() || !sasl::is_mechanism(mechanism) {
            Some(Refusal::bad("AUTHENTICATE takes a mechanism and base64"))
        } else if let Sight::Hidden(reason) = capability::sight(&[b"AUTH=", mechanism].concat()) {
            let text = format!("The mechanism is not offered here: {reason}");
            Some(Refusal { condition: "NO", ..Refusal::bad(text) })
        } else if initial.is_some_and(|initial| !fits(initial)) {
            Some(Refusal::bad("The initial response is not base64, or too long"))
        } else {
            None
        }
    }

    fn start_tls(&mut self, command: &Command<'_>, more: bool, out: &mut Vec<Output>) {
        if more {
            // Octets that somebody else put there would be taken as said under TLS. None of them is read.
            tracing::warn!("octets behind STARTTLS in clear: the session is closed");
            return self.bye("Nothing may follow STARTTLS before TLS", End::ClientFault, out);
        }
        self.tls_tag = command.tag.into();
        self.expect = Expect::Quiet;
        self.begin_tls_when_quiet(out);
    }

    fn begin_tls_when_quiet(&mut self, out: &mut Vec<Output>) {
        if self.expect == Expect::Quiet && self.in_flight.is_empty() && self.upstream.at_beginning() {
            let tag = std::mem::take(&mut self.tls_tag);
            if self.happened.login {
                // A login that was on its way when STARTTLS came. Anybody in between could have put it there: behind
                // TLS the client would work in a stranger's account.
                self.expect = Expect::Command;
                return self.complain(&tag, "BAD", "STARTTLS is not available now", out);
            }
            out.push(Output::ToClient(status(&tag, "OK", "Begin TLS now").into()));
            out.push(Output::UpgradeTls);
            self.terms.start_tls = false;
            self.expect = Expect::Handshake;
        }
    }

    fn pass(&mut self, command: &Command<'_>, line: &Line, out: &mut Vec<Output>) {
        let (kind, next) = match command.verb {
            Verb::Login => (self.begin_login(command), Expect::Command),
            Verb::Authenticate => (Kind::Authenticate, Expect::Challenge),
            Verb::Idle => (Kind::Idle, Expect::Idle),
            _ => (Kind::Other, Expect::Command),
        };
        self.happened.logout |= command.verb == Verb::Logout;
        let (next, plus) = match line.announces {
            Some(literal) => (Expect::GoAhead, Plus::of(literal)),
            None if next == Expect::Command => (next, Plus::None),
            None => (next, Plus::Client),
        };
        self.in_flight.push(InFlight { tag: command.tag.into(), kind, open: next != Expect::Command, plus });
        self.expect = next;
        let octets = if command.verb == Verb::Id && !self.happened.login && command.claims_origin() {
            [command.tag, b" ID NIL\r\n"].concat().into()
        } else {
            line.synchronising()
        };
        out.push(Output::ToUpstream(octets));
    }

    fn begin_login(&mut self, command: &Command<'_>) -> Kind {
        let account = match command.account() {
            Account::Named(name) => Some(name),
            Account::InLiteral => {
                // After login a literal has no limit, and the account is known.
                self.account_literal = (!self.happened.login).then(Vec::new);
                None
            }
            Account::Nowhere => None,
        };
        Kind::Login { account }
    }

    /// The line behind a literal of a command that is being passed on.
    fn rest(&mut self, line: &Line, out: &mut Vec<Output>) {
        self.learn_account();
        let too_long = !self.happened.login && line.octets.len() > self.terms.before_login;
        let too_large = line.announces.is_some_and(|literal| self.is_too_large(literal));
        if line.fault.is_some() || too_long || too_large {
            // Half of the command is with the upstream: nothing can be refused any more but the session.
            return self.bye("The rest of this command cannot be passed on", End::ClientFault, out);
        }
        let Some(current) = self.in_flight.last_mut().filter(|command| command.open) else {
            return self.rest_of_answered(line, out);
        };
        current.open = line.announces.is_some();
        current.plus = line.announces.map_or(Plus::None, Plus::of);
        self.expect = if current.open { Expect::GoAhead } else { Expect::Command };
        out.push(Output::ToUpstream(line.synchronising()));
    }

    /// The upstream has answered the command in the midst of a literal. It is brought to its end without another one:
    /// nobody could say whether the upstream would still ask for it.
    fn rest_of_answered(&mut self, line: &Line, out: &mut Vec<Output>) {
        out.push(Output::ToUpstream(line.unannounced()));
        self.discard(line, out);
    }

    fn learn_account(&mut self) {
        let Some(literal) = self.account_literal.take() else { return };
        if let Some(InFlight { kind: Kind::Login { account }, open: true, .. }) = self.in_flight.last_mut() {
            *account = Some(String::from_utf8_lossy(&literal).into_owned());
        }
    }

    /// A line of a command that is thrown away, which goes on behind a literal that comes all the same.
    fn discard(&mut self, line: &Line, out: &mut Vec<Output>) {
        if line.fault == Some(Fault::DoubtfulLiteral) {
            return self.bye(DOUBTFUL, End::ClientFault, out);
        }
        match line.announces.filter(|literal| !literal.waits) {
            Some(literal) if self.is_too_large(literal) => {
                out.push(Output::LimitReached(BEFORE_LOGIN));
                self.bye(LITERAL_TOO_LARGE, End::ClientFault, out);
            }
            Some(_) => self.expect = Expect::Discard,
            None => {
                self.client.no_literal();
                self.expect = Expect::Command;
            }
        }
    }

    fn sasl_response(&mut self, line: &Line, out: &mut Vec<Output>) {
        let text = fragment::text(&line.octets);
        let sound = line.fault.is_none()
            && text.len() <= self.terms.sasl_line
            && ClientLine::read(text) != ClientLine::Malformed;
        let octets = if sound { line.octets.clone() } else { Bytes::from_static(b"*\r\n") };
        // Base64 holds no braces: what announced a literal was malformed, and is not followed by one here.
        self.client.no_literal();
        self.expect = Expect::Challenge;
        if let Some(current) = self.in_flight.last_mut() {
            current.plus = Plus::Client;
        }
        out.push(Output::ToUpstream(octets));
    }

    fn done(&mut self, line: &Line, out: &mut Vec<Output>) {
        if line.announces.is_some() || line.fault == Some(Fault::DoubtfulLiteral) {
            return self.bye("Expected DONE", End::ClientFault, out);
        }
        if line.fault.is_some() || !fragment::text(&line.octets).eq_ignore_ascii_case(b"DONE") {
            return self.complain(b"*", "BAD", "Expected DONE", out);
        }
        if let Some(current) = self.in_flight.last_mut() {
            current.open = false;
        }
        self.expect = Expect::Command;
        out.push(Output::ToUpstream(line.octets.clone()));
    }

    fn refuse_fault(&mut self, text: &[u8], fault: Fault, out: &mut Vec<Output>) {
        let reason = match fault {
            Fault::BareLf | Fault::BareCr => "Lines end with CRLF",
            Fault::Nul => "NUL is only for literals",
            // Nobody can tell whether octets of a literal come next, or a command.
            Fault::DoubtfulLiteral => {
                return self.bye(DOUBTFUL, End::ClientFault, out);
            }
        };
        let tag = match Command::parse(text) {
            Ok(Command { tag, .. }) | Err(Malformed::Name { tag }) => tag,
            Err(Malformed::Tag) => b"*",
        };
        self.complain(tag, "BAD", reason, out);
    }

    /// Answers a command in the upstream's place. A literal that waits is never asked for; one that does not is thrown
    /// away, but before login only a small one.
    fn refuse(
        &mut self,
        tag: &[u8],
        refusal: &Refusal,
        literal: Option<Announcement>,
        out: &mut Vec<Output>,
    ) {
        out.extend(refusal.limit.map(Output::LimitReached));
        match literal {
            Some(literal) if !literal.waits && self.is_too_large(literal) => {
                return self.bye(&refusal.text, End::ClientFault, out);
            }
            Some(Announcement { waits: false, .. }) => self.expect = Expect::Discard,
            Some(Announcement { waits: true, .. }) => self.client.no_literal(),
            None => {}
        }
        self.complain(tag, refusal.condition, &refusal.text, out);
    }

    fn complain(&mut self, tag: &[u8], condition: &str, text: &str, out: &mut Vec<Output>) {
        self.say(&status(tag, condition, text), out);
        self.count_error(out);
    }

    fn count_error(&mut self, out: &mut Vec<Output>) {
        self.errors += 1;
        if self.errors >= self.terms.errors {
            out.push(Output::LimitReached("errors_per_session"));
            self.bye("Too many errors", End::ClientFault, out);
        }
    }

    fn upstream_says(&mut self, input: &mut BytesMut, out: &mut Vec<Output>) {
        while self.wants_upstream() {
            match self.upstream.next(input) {
                Ok(Some(Fragment::Line(Line { octets, begins: true, .. }))) => {
                    self.response(&octets, Whole::Line, out);
                }
                Ok(Some(Fragment::Part { octets, begins: true })) => self.response(&octets, Whole::Part, out),
                Ok(Some(
                    Fragment::Literal(octets)
                    | Fragment::Line(Line { octets, .. })
                    | Fragment::Part { octets, .. },
                )) => out.push(Output::ToClient(octets)),
                // A lenient fragmentizer finds no line too long.
                Ok(None) | Err(TooLong { .. }) => return,
            }
            self.say_held(out);
            self.begin_tls_when_quiet(out);
        }
    }

    /// A response begins with `octets`.
    fn response(&mut self, octets: &Bytes, whole: Whole, out: &mut Vec<Output>) {
        let response = Response::parse(octets);
        if whole == Whole::Line && response != Response::Other {
            // None of these holds a literal: braces at the end are text.
            self.upstream.no_literal();
        }
        if self.expect == Expect::Greeting {
            return self.greeting(octets, whole, &response, out);
        }
        match &response {
            Response::Capability(list) => self.show(octets, whole, Some(list), out),
            Response::Status { tag, condition, capabilities, .. } => {
                self.happened.bye |= *condition == Condition::Bye;
                self.show(octets, whole, capabilities.as_ref(), out);
                if let Some(tag) = tag {
                    self.complete(tag, *condition, out);
                }
            }
            Response::Continuation => self.go_ahead(octets, whole, out),
            Response::Other => out.push(Output::ToClient(octets.clone())),
        }
    }

    fn greeting(&mut self, octets: &Bytes, whole: Whole, response: &Response<'_>, out: &mut Vec<Output>) {
        let Response::Status { tag: None, condition, capabilities, .. } = response else {
            tracing::warn!("the upstream does not greet as an IMAP server");
            return self.bye(UNREACHABLE, End::UpstreamUnavailable, out);
        };
        match condition {
            Condition::PreAuth if self.terms.start_tls => {
                tracing::warn!("the upstream's PREAUTH would keep the client from STARTTLS");
                return self.bye(UNREACHABLE, End::UpstreamUnavailable, out);
            }
            Condition::PreAuth => self.log_in(),
            Condition::Bye => self.happened.bye = true,
            Condition::Ok | Condition::No | Condition::Bad => {}
        }
        self.expect = Expect::Command;
        self.show(octets, whole, capabilities.as_ref(), out);
    }

    /// Passes a line on, its capability list reduced.
    fn show(&mut self, octets: &Bytes, whole: Whole, list: Option<&Range<usize>>, out: &mut Vec<Output>) {
        let Some(list) = list else { return out.push(Output::ToClient(octets.clone())) };
        if whole == Whole::Part && list.end >= fragment::text(octets).len() {
            tracing::warn!("the upstream's capability list is longer than a line may be");
            return self.close(End::UpstreamLost, out);
        }
        let (logins, ours): (_, &[&str]) = if !self.may_start_tls() {
            (Logins::Shown, &[])
        } else if self.login_waits() {
            (Logins::Hidden, &["STARTTLS", "LOGINDISABLED"])
        } else {
            (Logins::Shown, &["STARTTLS"])
        };
        out.push(Output::ToClient(capability::reduce(octets, list.clone(), logins, ours).into()));
    }

    /// Whether the client is kept from logging in until its leg is encrypted.
    fn login_waits(&self) -> bool {
        self.terms.start_tls && !self.terms.login_in_clear
    }

    /// A list that comes while a login is on its way is that of a session that is logged in.
    fn may_start_tls(&self) -> bool {
        let logs_in = |command: &InFlight| matches!(command.kind, Kind::Login { .. } | Kind::Authenticate);
        self.terms.start_tls && !self.happened.login && !self.in_flight.iter().any(logs_in)
    }

    /// `+`: the first command that waits for it goes on. The client sees it where it is the client who waits.
    fn go_ahead(&mut self, octets: &Bytes, whole: Whole, out: &mut Vec<Output>) {
        let waiting = self.in_flight.iter_mut().find(|command| command.plus != Plus::None);
        let ours = waiting.as_ref().is_some_and(|command| command.plus == Plus::Gate);
        if ours && whole == Whole::Part {
            // What is left of it would reach the client without its beginning.
            tracing::warn!("the upstream's go-ahead is longer than a line may be");
            return self.close(End::UpstreamLost, out);
        }
        if !ours {
            out.push(Output::ToClient(octets.clone()));
        }
        let Some(command) = waiting else { return };
        command.plus = Plus::None;
        if command.open {
            self.expect = match self.expect {
                Expect::GoAhead => Expect::Rest,
                Expect::Challenge => Expect::Response,
                other => other,
            };
        }
    }

    /// The upstream's last word on the command called `tag`.
    fn complete(&mut self, tag: &[u8], condition: Condition, out: &mut Vec<Output>) {
        let Some(at) = self.in_flight.iter().position(|command| *command.tag == *tag) else {
            return;
        };
        let command = self.in_flight.remove(at);
        let waiting =
            matches!(self.expect, Expect::GoAhead | Expect::Challenge | Expect::Response | Expect::Idle);
        if command.open && waiting {
            self.account_literal = None;
            if command.plus == Plus::Gate {
                self.expect = Expect::Discard;
            } else {
                self.client.no_literal();
                self.expect = Expect::Command;
            }
        }
        let mut refused = condition == Condition::Bad;
        match (command.kind, condition) {
            (Kind::Login { account }, Condition::Ok) => {
                self.account = account;
                self.log_in();
            }
            (Kind::Authenticate, Condition::Ok) => self.log_in(),
            (Kind::Login { .. } | Kind::Authenticate, _) => {
                refused = true;
                out.push(Output::LoginRefused);
            }
            (Kind::Idle | Kind::Other, _) => {}
        }
        if refused && !self.happened.login {
            self.count_error(out);
        }
    }

    fn log_in(&mut self) {
        self.happened.login = true;
        self.client.set_limit(self.terms.line);
    }

    /// Whether the session can end without cutting anything off.
    fn is_quiet(&self) -> bool {
        matches!(self.expect, Expect::Greeting | Expect::Command | Expect::Idle)
            && self.in_flight.iter().all(|command| matches!(command.kind, Kind::Idle))
            && self.upstream.at_beginning()
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if now >= self.deadline() {
            let ended = self.happened.upstream_end || self.happened.client_end;
            let end = if ended { self.end() } else { End::ClientTimeout };
            self.bye("The session was silent for too long", end, out);
        }
    }

    /// Ends the session with a word of our own, where one can be said.
    fn bye(&mut self, text: &str, end: End, out: &mut Vec<Output>) {
        if !self.happened.close {
            if self.upstream.at_beginning() && !self.happened.upstream_end {
                self.say(&status(b"*", "BYE", text), out);
            }
            self.close(end, out);
        }
    }

    fn close(&mut self, end: End, out: &mut Vec<Output>) {
        self.happened.close = true;
        out.push(Output::Close(end));
    }

    /// Says something to the client, at once or behind the response that is on its way.
    fn say(&mut self, line: &[u8], out: &mut Vec<Output>) {
        self.held.extend_from_slice(line);
        self.say_held(out);
    }

    fn say_held(&mut self, out: &mut Vec<Output>) {
        if !self.held.is_empty() && self.upstream.at_beginning() {
            out.push(Output::ToClient(std::mem::take(&mut self.held).into()));
        }
    }
}

impl Plus {
    fn of(literal: Announcement) -> Self {
        if literal.waits { Self::Client } else { Self::Gate }
    }
}

/// Why a command is refused at the gate, and how.
struct Refusal {
    condition: &'static str,
    text: Cow<'static, str>,
    limit: Option<&'static str>,
}

impl Refusal {
    fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { condition: "BAD", text: text.into(), limit: None }
    }
}

/// Whether the octets at hand are all of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whole {
    Line,
    Part,
}

/// ENABLE takes plain words. One that the client was not shown is refused, and the others with it.
fn enable_refusal(arguments: &[u8]) -> Option<Refusal> {
    if arguments.iter().any(|octet| b"\"{(".contains(octet)) {
        return Some(Refusal::bad("ENABLE takes words"));
    }
    capability::words(arguments).find_map(|word| match capability::sight(word) {
        Sight::Clear => None,
        Sight::Hidden(reason) => {
            Some(Refusal::bad(format!("{} is not offered here: {reason}", word.escape_ascii())))
        }
    })
}

fn status(tag: &[u8], condition: &str, text: &str) -> Vec<u8> {
    [tag, b" ", condition.as_bytes(), b" ", text.as_bytes(), b"\r\n"].concat()
}

/// Octets of a command's line that holds nothing but tag and name.
fn len_without_arguments(command: &Command<'_>) -> usize {
    command.tag.len() + b" ".len() + command.name.len() + b"\r\n".len()
}

/// What a client is told when the gateway ends.
const ENDING: &str = "The gateway is restarting";
/// What a client is told of an upstream that is not there, or not what it should be.
pub(super) const UNREACHABLE: &str = "[UNAVAILABLE] The mail server cannot be reached, try again later";

const DOUBTFUL: &str = "It is not clear whether a literal follows";
const LITERAL_TOO_LARGE: &str = "The literal is too large before login";
/// The name of the limit of lines and literals before login.
const BEFORE_LOGIN: &str = "imap_prelogin_bytes";
/// Commands in flight before the client is made to wait.
const MAX_IN_FLIGHT: usize = 128;
/// Octets of an AUTHENTICATE line beside its initial response.
const AUTHENTICATE_LEN: usize = 256;
/// How long the other side may be silent after one side has ended.
const LINGER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
