//! The envelope: who sent a message to whom, and over which connection. Not the headers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What the conversation around a message told (RFC 5321 section 2.3.1), as far as the way in has such a thing:
/// a message from a file or a mailbox has none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// What the client called itself in EHLO or HELO.
    pub helo: Option<String>,
    /// The account the client proved, where the mechanism showed it.
    pub account: Option<String>,
    /// Whether the client authenticated, also where the account stayed unknown.
    pub authenticated: bool,
    /// The protocol version of the client's TLS session, such as `TLSv1.3`.
    pub tls: Option<String>,
    /// The reverse path without angle brackets; empty for the null sender.
    pub sender: Option<String>,
    /// The parameters of MAIL, verbatim, such as `BODY=8BITMIME SMTPUTF8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mail_parameters: String,
    /// The accepted recipients in the order of acceptance.
    pub recipients: Vec<Recipient>,
}

/// One accepted recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The forward path without angle brackets.
    pub address: String,
    /// The parameters of RCPT, verbatim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
}
