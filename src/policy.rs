//! What to do about a verdict: a table from class to act, one per protocol.
//!
//! The type of the answer depends on what the protocol can do, so that nonsense (`reject` under POP3) does not
//! load. Pure data; nothing here acts.

use serde::{Deserialize, Serialize};

use crate::verdict::{Class, Thresholds};

/// One answer per class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy<A> {
    /// For [`Class::Ham`].
    pub ham: A,
    /// For [`Class::Unsure`].
    pub unsure: A,
    /// For [`Class::Spam`].
    pub spam: A,
    /// For [`Class::Certain`].
    pub certain: A,
    /// For [`Class::Malware`].
    pub malware: A,
    /// For [`Class::Unscanned`].
    pub unscanned: A,
}

impl<A: Copy> Policy<A> {
    /// The answer for a class.
    pub fn answer(&self, class: Class) -> A {
        match class {
            Class::Ham => self.ham,
            Class::Unsure => self.unsure,
            Class::Spam => self.spam,
            Class::Certain => self.certain,
            Class::Malware => self.malware,
            Class::Unscanned => self.unscanned,
        }
    }
}

/// The fate of a message at the SMTP gate, where nobody holds it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Hand it to the upstream; with the header block where `stamp.ham_headers` says so.
    Deliver,
    /// Hand it to the upstream with the header block and the subject tag.
    Stamp,
    /// Keep it here; the client is told 250 once it is on disk.
    Quarantine,
    /// Refuse it with 550: the sender keeps it.
    Reject,
    /// Refuse it for now with 451: the sender tries again.
    Defer,
    /// Take it and drop it, once that decision is on disk.
    Discard,
}

impl Action {
    /// The word used in configuration, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Stamp => "stamp",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
            Self::Defer => "defer",
            Self::Discard => "discard",
        }
    }
}

/// The filing of a message that is already in a mailbox (POP3, IMAP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filing {
    /// Show it as it is.
    Leave,
    /// Show it with the header block and the subject tag.
    Stamp,
    /// Move it to the junk mailbox (IMAP).
    Move,
    /// Keep it back: the quarantine holds it, a notice stands in its place.
    Withhold,
}

impl Filing {
    /// The word used in configuration, logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Stamp => "stamp",
            Self::Move => "move",
            Self::Withhold => "withhold",
        }
    }
}

/// What the header block looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampStyle {
    /// Write the `X-Spam-*` and `X-Gatepost` lines at all, and remove those that came from outside. Default true.
    pub headers: bool,
    /// Write them on messages that are delivered unaltered otherwise (ham). Default true.
    pub ham_headers: bool,
    /// Write a `Received` line at the SMTP gate. Default true.
    pub received: bool,
    /// Put before the subject of a stamped message. Default none: a changed Subject breaks DKIM for later verifiers.
    pub subject: Option<String>,
}

impl Default for StampStyle {
    fn default() -> Self {
        Self { headers: true, ham_headers: true, received: true, subject: None }
    }
}

/// A named policy as the configuration gives it: thresholds, the three tables and the style of the stamp.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySet {
    /// The policy's name in the configuration.
    pub name: String,
    /// Where the classes begin.
    pub thresholds: Thresholds,
    /// What happens at the SMTP gate.
    pub smtp: Policy<Action>,
    /// What POP3 clients see.
    pub pop3: Policy<Filing>,
    /// What happens in IMAP mailboxes.
    pub imap: Policy<Filing>,
    /// What the header block looks like.
    pub stamp: StampStyle,
}

impl PolicySet {
    /// The defaults of every policy: nothing is lost, spam is marked, certain spam is kept back.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            thresholds: Thresholds::default(),
            smtp: Policy {
                ham: Action::Deliver,
                unsure: Action::Deliver,
                spam: Action::Stamp,
                certain: Action::Quarantine,
                malware: Action::Quarantine,
                unscanned: Action::Defer,
            },
            pop3: Policy {
                ham: Filing::Leave,
                unsure: Filing::Leave,
                spam: Filing::Stamp,
                certain: Filing::Withhold,
                malware: Filing::Withhold,
                unscanned: Filing::Leave,
            },
            imap: Policy {
                ham: Filing::Leave,
                unsure: Filing::Leave,
                spam: Filing::Move,
                certain: Filing::Move,
                malware: Filing::Withhold,
                unscanned: Filing::Leave,
            },
            stamp: StampStyle::default(),
        }
    }
}
