//! Every number that bounds something: its name, its default, and a sentence on what it guards.
//!
//! Plain data; the configuration fills it, sessions and the spool obey it.

use std::time::Duration;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident : $type:ty = $default:expr;)+) => {
        /// The limits.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits { $($(#[doc = $doc])+ pub $name: $type,)+ }

        impl Default for Limits {
            fn default() -> Self { Self { $($name: $default,)+ } }
        }
    };
}

const MIB: u64 = 1024 * 1024;

limits! {
    /// Sessions at once, over all listeners; further clients wait in the kernel's queue.
    sessions: usize = 9_000;
    /// The largest message that is taken, in octets. Larger ones get 552; in POP3 they pass unjudged.
    message_bytes: u64 = 100 * MIB;
    /// How much of a message is judged, in octets from its start.
    judged_bytes: u64 = 16 * MIB;
    /// The memory that all messages in flight share, in octets; beyond it they spill to unlinked files.
    spool_memory_bytes: u64 = 256 * MIB;
    /// The part of one message kept in memory, in octets; a larger one spills to an unlinked file.
    message_memory_bytes: u64 = 256 * 1024;
    /// The longest SMTP command line, in octets with its line end (RFC 5321 section 4.5.3.1.4).
    smtp_command_line: usize = 4_096;
    /// The longest line of an AUTH exchange, in octets with its line end (RFC 4954 section 4).
    smtp_auth_line: usize = 12_288;
    /// Recipients of one transaction; further ones get 452.
    smtp_recipients: usize = 1_000;
    /// Transactions of one SMTP session; then the client is asked to connect again.
    smtp_messages: usize = 1_000;
    /// The longest POP3 command line, in octets with its line end.
    pop3_command_line: usize = 4_096;
    /// The longest IMAP line without its literals, in octets.
    imap_line: usize = 65_536;
    /// The largest IMAP literal before login, in octets.
    imap_login_literal: u64 = 8_192;
    /// Faulty commands before a session is ended.
    errors_per_session: usize = 10;
    /// Silence of the client between commands (RFC 5321 section 4.5.3.2.7).
    command_timeout: Duration = Duration::from_secs(300);
    /// Silence of a POP3 client after login (RFC 1939 section 3: at least 10 minutes).
    pop3_idle_timeout: Duration = Duration::from_secs(600);
    /// Silence of an IMAP client, IDLE or not (RFC 9051 section 5.4: at least 30 minutes).
    imap_idle_timeout: Duration = Duration::from_secs(31 * 60);
    /// From the greeting to a login, in POP3 and IMAP.
    login_timeout: Duration = Duration::from_secs(120);
    /// The TLS handshake, on either leg.
    tls_timeout: Duration = Duration::from_secs(30);
    /// From the connection to the upstream's greeting.
    upstream_connect_timeout: Duration = Duration::from_secs(10);
    /// Any reply of the upstream.
    upstream_reply_timeout: Duration = Duration::from_secs(300);
    /// Each read while a message comes in.
    data_timeout: Duration = Duration::from_secs(180);
    /// The upstream's reply to the end of a message (RFC 5321 section 4.5.3.2.6).
    final_reply_timeout: Duration = Duration::from_secs(600);
    /// How long running sessions may go on after SIGTERM.
    drain: Duration = Duration::from_secs(30);
    /// Messages judged at once.
    judging_parallel: usize = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    /// Journal rows that may wait for the disk.
    journal_queue: usize = 10_000;
}
