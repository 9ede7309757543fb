//! A held message: the facts beside its bytes, and how far its release has come.
//!
//! Pure data, with the spelling it has in files and in the index. Where it lies is [`super::quarantine`]'s affair.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{mail::Envelope, verdict::Class};

use super::JournalId;

/// What is known of a message that goes into the quarantine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The id it has in the journal.
    pub id: JournalId,
    /// When it was taken.
    #[serde(with = "super::timestamp")]
    pub at: Timestamp,
    /// The listener it came in by.
    pub listener: String,
    /// The upstream it would have gone to, and goes to on release.
    pub upstream: String,
    /// Who sent it to whom.
    pub envelope: Envelope,
    /// The `Received` field that delivery would have put before it, with its line end; may be empty.
    pub received: String,
    /// Its Message-ID, as the field says it.
    pub message_id: Option<String>,
    /// Its subject, decoded.
    pub subject: Option<String>,
    /// Its From field, decoded.
    pub from: Option<String>,
    /// Its length in octets. What is put must be exactly as long.
    pub len: u64,
    /// What it was taken for.
    pub class: Class,
    /// Its score in points.
    pub points: f64,
    /// The `spam` threshold that applied, in points.
    pub required: f64,
    /// The rules that hit, with their points.
    pub rules: Vec<(String, f64)>,
}

impl Held {
    /// The same facts with every number one that JSON can spell: what is neither finite nor a number becomes 0.
    pub(super) fn spellable(&self) -> Self {
        let finite = |points: f64| if points.is_finite() { points } else { 0.0 };
        let rules = self.rules.iter().map(|(rule, points)| (rule.clone(), finite(*points))).collect();
        Self { points: finite(self.points), required: finite(self.required), rules, ..self.clone() }
    }
}

/// How far the release of a held message has come.
///
/// ```text
///        begin                confirm
/// Held ─────────▶ Releasing ───────────▶ Released
///   ▲     fail        │ ▲
///   └─────────────────┘ └─ doubt or a crash: it stays so and may begin again; a failure then does not take it
///                          back to Held, because the earlier delivery may have arrived
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Waiting.
    #[default]
    Held,
    /// Its delivery began and no end of it is known: it may have been delivered.
    Releasing {
        /// When the delivery began.
        #[serde(with = "super::timestamp")]
        since: Timestamp,
    },
    /// The upstream has it.
    Released {
        /// When the upstream said so.
        #[serde(with = "super::timestamp")]
        at: Timestamp,
        /// What the upstream said.
        reply: String,
    },
}

impl State {
    /// The word for tables, JSON and queries: `held`, `unconfirmed` or `released`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Releasing { .. } => "unconfirmed",
            Self::Released { .. } => "released",
        }
    }
}

/// The state, with the history that an operator asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How far the release has come.
    #[serde(flatten)]
    pub state: State,
    /// How often a delivery began.
    #[serde(default)]
    pub attempts: u32,
    /// Why the last delivery failed or stayed in doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A message of the quarantine as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its facts.
    pub held: Held,
    /// How far its release has come.
    pub status: Status,
    /// The index knows it, but its file is gone: there is nothing left to release.
    pub missing: bool,
}

/// Which messages to list, newest first. The default is the newest hundred.
#[derive(Clone, Debug)]
pub struct Query {
    /// Only those whose [`State::as_str`] is this word.
    pub state: Option<String>,
    /// Only those of this class.
    pub class: Option<Class>,
    /// Only those with a recipient that contains this text, ASCII case aside.
    pub recipient: Option<String>,
    /// Only those taken at this moment or later.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { state: None, class: None, recipient: None, since: None, limit: 100 }
    }
}

/// How much the quarantine holds. Messages whose file is missing are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages that are held or unconfirmed.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
    /// Messages that were released and are still kept.
    pub released_messages: u64,
    /// Their octets.
    pub released_bytes: u64,
}
