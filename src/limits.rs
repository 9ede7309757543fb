//! Every limit of the gateway, by name: the default, and a sentence on what it guards.
//!
//! Plain data; the configuration fills it, sessions and the spool obey it.

use std::time::Duration;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident : $type:ty = $default:expr;)+) => {
        /// The limits, each with its default.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Limits { $($(#[doc = $doc])+ pub $name: $type,)+ }

        impl Default for Limits {
            fn default() -> Self { Self { $($name: $default,)+ } }
        }
    };
}

const MIB: u64 = 1024 * 1024;

limits! {
    /// Sessions open at once over all listeners; further clients wait in the kernel's queue.
    sessions: u64 = 9_000;
    /// Octets of one message at the SMTP gate; larger ones are refused with 552. In POP3 larger ones pass unjudged.
    message_bytes: u64 = 100 * MIB;
    /// Octets of a message's beginning that are judged; the rest passes unread.
    judged_bytes: u64 = 16 * MIB;
    /// Octets of mail that all sessions together may hold in memory; beyond it messages go to unlinked files.
    spool_memory_bytes: u64 = 256 * MIB;
    /// Octets of one message kept in memory; larger ones go to an unlinked file.
    message_memory_bytes: u64 = 512 * 1024;
    /// Octets of one command line before it is refused.
    command_line_bytes: u64 = 4_096;
    /// Octets of one line of a SASL exchange (RFC 4954 section 4).
    sasl_line_bytes: u64 = 12_288;
    /// Octets of one IMAP command line without its literals, after login.
    imap_line_bytes: u64 = 65_536;
    /// Octets of an IMAP line or literal before login.
    imap_prelogin_bytes: u64 = 8_192;
    /// Accepted recipients of one message; further ones get 452.
    recipients: u64 = 1_000;
    /// Faulty or refused commands of one session before it is closed.
    errors_per_session: u64 = 10;
    /// How long a client may take to finish its login, TLS included.
    login_timeout: Duration = Duration::from_secs(120);
    /// How long a client may be silent between commands (RFC 5321 section 4.5.3.2.7).
    command_timeout: Duration = Duration::from_secs(300);
    /// How long a POP3 client may be silent after login (RFC 1939 section 3).
    pop3_idle_timeout: Duration = Duration::from_secs(600);
    /// How long an IMAP session may be silent in both directions (RFC 9051 section 5.4).
    imap_idle_timeout: Duration = Duration::from_secs(31 * 60);
    /// How long a client may pause inside a message.
    data_timeout: Duration = Duration::from_secs(180);
    /// How long an upstream may take to accept, to finish TLS, and to greet.
    upstream_connect_timeout: Duration = Duration::from_secs(10);
    /// How long an upstream may take to answer a command.
    upstream_reply_timeout: Duration = Duration::from_secs(300);
    /// How long an upstream may take to answer the end of a message.
    final_reply_timeout: Duration = Duration::from_secs(600);
    /// How long running sessions may go on after the order to stop.
    drain_timeout: Duration = Duration::from_secs(30);
    /// How long a message may wait for its turn to be judged; then it counts as unscanned.
    judging_wait: Duration = Duration::from_secs(60);
    /// Messages judged at once.
    judging_parallel: u64 = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
}
