//! Every number that bounds something, with its name and its default.

use std::time::Duration;

/// The bounds. The defaults and the sentences stand in the table of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at once, over all listeners.
    pub sessions: usize,
    /// The largest message that is taken, in octets.
    pub message_bytes: u64,
    /// How much of a message is judged, in octets from its start.
    pub judged_bytes: u64,
    /// The memory that all messages in flight share, in octets.
    pub spool_memory_bytes: u64,
    /// The part of one message kept in memory, in octets; the rest spills to an unlinked file.
    pub message_memory_bytes: u64,
    /// The longest SMTP command line, in octets with its line end (RFC 5321 section 4.5.3.1.4).
    pub smtp_command_line: usize,
    /// The longest line of an AUTH exchange, in octets with its line end (RFC 4954 section 4).
    pub smtp_auth_line: usize,
    /// Recipients of one transaction.
    pub smtp_recipients: usize,
    /// Transactions of one SMTP session.
    pub smtp_messages: usize,
    /// The longest POP3 command line, in octets with its line end.
    pub pop3_command_line: usize,
    /// The longest IMAP line without its literals, in octets.
    pub imap_line: usize,
    /// The largest IMAP literal before login, in octets.
    pub imap_login_literal: u64,
    /// Faulty commands before a session is ended.
    pub errors_per_session: usize,
    /// Silence of the client between commands.
    pub command_timeout: Duration,
    /// Silence of an IMAP client, IDLE or not (RFC 9051 section 5.4: at least 30 minutes).
    pub imap_idle_timeout: Duration,
    /// From the greeting to a login, in POP3 and IMAP.
    pub login_timeout: Duration,
    /// The TLS handshake, on either leg.
    pub tls_timeout: Duration,
    /// From the connection to the upstream's greeting.
    pub upstream_connect_timeout: Duration,
    /// Any reply of the upstream.
    pub upstream_reply_timeout: Duration,
    /// Each read while a message comes in.
    pub data_timeout: Duration,
    /// The upstream's reply to the end of a message.
    pub final_reply_timeout: Duration,
    /// How long running sessions may go on after SIGTERM.
    pub drain: Duration,
    /// Messages judged at once.
    pub judging_parallel: usize,
    /// Journal rows that may wait for the disk.
    pub journal_queue: usize,
}
