//! From a collected message to what is done about it: judged off the reactor behind a bounded gate, rendered,
//! written down and counted. The same way for every protocol, so that the same mail gets the same verdict.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{task::spawn_blocking, time::timeout};

use super::{Gateway, Listener, Original};
use crate::{
    filter::Filter,
    mail::{Envelope, Message},
    policy::{Action, Filing, PolicySet},
    render::{Key, Rendition, Source, Stamp, StampFacts},
    store::{Held, JournalId, Row},
    verdict::{Cause, Verdict},
};

/// The door a message came by, as far as it shapes what leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// SMTP: nobody holds the message yet. With the `Received` field to write, where the policy wants one.
    Smtp {
        /// The field with its line end.
        received: String,
    },
    /// POP3: the message is in a mailbox, and is left as it is or shown stamped.
    Mailbox,
}

/// A judged message: what was concluded, and what would leave.
#[derive(Debug)]
pub struct Judged {
    /// Its name in the journal, the quarantine and its own header.
    pub id: JournalId,
    /// When it was judged.
    pub at: Timestamp,
    /// What was concluded.
    pub verdict: Verdict,
    /// What the journal and the quarantine want to know of it.
    pub facts: Facts,
    /// What leaves if it is delivered or shown: the original, and the header block where the policy wants one.
    pub rendition: Rendition,
    /// Its length as it came, in octets.
    pub len: u64,
    /// How long judging took, waiting included.
    pub took: Duration,
}

/// Header fields of a judged message, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The Message-ID as the field says it.
    pub message_id: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The From field.
    pub from: Option<String>,
}

/// What became of a judged message, for the journal, the event and the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate<'a> {
    /// What the policy said to do.
    pub action: &'static str,
    /// Who holds it now; `None` where nobody took it.
    pub custody: Option<&'static str>,
    /// The reply the client was given.
    pub reply: Option<&'a str>,
}

/// How long a stamp speaks for itself: longer than mail waits in any queue or mailbox to be fetched, seconds.
const STAMP_SECONDS: i64 = 90 * 24 * 3600;
/// Fields longer than this many characters are cut in the journal.
const FACT_CHARS: usize = 500;

impl Gateway {
    /// Judges a message and renders what would leave.
    pub async fn judge(
        &self,
        envelope: &Envelope,
        original: &Arc<Original>,
        policy: &Arc<PolicySet>,
        door: Door,
    ) -> Judged {
        let begun = Instant::now();
        let id = JournalId::new();
        let unscanned = |cause| {
            let verdict = Verdict::unscanned(cause, policy.thresholds);
            (verdict, Facts::default(), Rendition::untouched(original.len()))
        };
        let (verdict, facts, rendition) =
            match timeout(self.limits.judging_wait, self.judging.acquire()).await {
                Ok(_permit) => {
                    let work = Work {
                        filter: Arc::clone(&self.filter),
                        envelope: envelope.clone(),
                        original: Arc::clone(original),
                        policy: Arc::clone(policy),
                        door,
                        id: id.clone(),
                        key: self.stamp_key.clone(),
                        authserv_id: self.authserv_id.clone(),
                        judged_bytes: self.limits.judged_bytes,
                    };
                    spawn_blocking(move || work.run()).await.unwrap_or_else(|error| {
                        tracing::error!(%error, %id, "judging failed");
                        unscanned(Cause::Panic)
                    })
                }
                Err(_) => {
                    self.metrics.limit_reached("judging_wait");
                    unscanned(Cause::Busy)
                }
            };
        let (at, took) = (Timestamp::now(), begun.elapsed());
        Judged { id, at, verdict, facts, rendition, len: original.len(), took }
    }

    /// The journal's row for a message.
    pub fn row(
        &self,
        listener: &Listener,
        protocol: &str,
        envelope: &Envelope,
        judged: &Judged,
        fate: &Fate<'_>,
    ) -> Row {
        Row {
            id: judged.id.clone(),
            at: judged.at,
            listener: listener.name.to_string(),
            protocol: protocol.to_owned(),
            client: envelope.client,
            helo: envelope.helo.clone(),
            sender: envelope.sender.clone(),
            recipients: envelope
                .recipients
                .iter()
                .take(Row::MAX_RECIPIENTS)
                .map(|r| r.address.clone())
                .collect(),
            message_id: judged.facts.message_id.clone(),
            subject: judged.facts.subject.clone(),
            len: judged.len,
            class: judged.verdict.class,
            points: judged.verdict.score.points,
            rules: judged.verdict.score.hits.iter().map(|hit| hit.rule.to_string()).collect(),
            action: fate.action.to_owned(),
            custody: fate.custody.map(str::to_owned),
            reply: fate.reply.map(str::to_owned),
            us: u64::try_from(judged.took.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Writes down and counts what became of a message: one row, one event, the counters. A discarded message's row
    /// is on disk already and is not written again.
    pub fn record(
        &self,
        listener: &Listener,
        protocol: &str,
        envelope: &Envelope,
        judged: &Judged,
        fate: &Fate<'_>,
    ) {
        if fate.custody != Some("discarded") {
            self.store.journal().write(self.row(listener, protocol, envelope, judged, fate));
        }
        let class = judged.verdict.class.as_str();
        self.metrics.message(&listener.name, class, fate.action, judged.len, judged.took);
        for hit in &judged.verdict.score.hits {
            self.metrics.rule_hit(&hit.rule, class);
        }
        let rules: Vec<&str> = judged.verdict.score.hits.iter().map(|hit| &*hit.rule).collect();
        tracing::info!(
            id = %judged.id,
            listener = %listener.name,
            client = envelope.client.map(tracing::field::display),
            sender = envelope.sender,
            recipients = envelope.recipients.len(),
            message_id = judged.facts.message_id,
            octets = judged.len,
            class,
            score = judged.verdict.score.points,
            rules = rules.join(","),
            action = fate.action,
            custody = fate.custody,
            reply = fate.reply,
            us = u64::try_from(judged.took.as_micros()).unwrap_or(u64::MAX),
            "message"
        );
    }
}

impl Judged {
    /// What the quarantine is told of the message.
    pub fn held(&self, listener: &Listener, envelope: &Envelope, received: &str) -> Held {
        let score = &self.verdict.score;
        Held {
            id: self.id.clone(),
            at: self.at,
            listener: listener.name.to_string(),
            upstream: listener.upstream.name.to_string(),
            envelope: envelope.clone(),
            received: received.to_owned(),
            message_id: self.facts.message_id.clone(),
            subject: self.facts.subject.clone(),
            from: self.facts.from.clone(),
            len: self.len,
            class: self.verdict.class,
            points: score.points,
            required: self.verdict.required,
            rules: score.hits.iter().map(|hit| (hit.rule.to_string(), hit.points)).collect(),
        }
    }
}

/// One judgement, owned, so that it can be done on another thread.
struct Work {
    filter: Arc<Filter>,
    envelope: Envelope,
    original: Arc<Original>,
    policy: Arc<PolicySet>,
    door: Door,
    id: JournalId,
    key: Key,
    authserv_id: Option<Arc<str>>,
    judged_bytes: u64,
}

impl Work {
    fn run(self) -> (Verdict, Facts, Rendition) {
        let head = match self.original.head(self.judged_bytes) {
            Ok(head) => head,
            Err(error) => {
                tracing::error!(%error, id = %self.id, "the spool could not be read");
                let verdict = Verdict::unscanned(Cause::Spool, self.policy.thresholds);
                return (verdict, Facts::default(), Rendition::untouched(self.original.len()));
            }
        };
        let message = Message::parse_prefix(head, self.original.len());
        let verdict = self.filter.judge(&self.envelope, &message, self.policy.thresholds);
        let rendition = self.render(&message, &verdict);
        (verdict, facts(&message), rendition)
    }

    fn render(&self, message: &Message, verdict: &Verdict) -> Rendition {
        let style = &self.policy.stamp;
        let (received, stamped, headers) = match &self.door {
            Door::Smtp { received } => {
                let stamped = self.policy.smtp.answer(verdict.class) == Action::Stamp;
                let received = Some(received.as_str()).filter(|_| style.received);
                (received, stamped, style.headers && (stamped || style.ham_headers))
            }
            Door::Mailbox if self.policy.pop3.answer(verdict.class) == Filing::Leave => {
                return Rendition::untouched(message.len());
            }
            Door::Mailbox => (None, true, style.headers),
        };
        let stamp = Stamp::new(&StampFacts {
            verdict,
            journal: self.id.as_str(),
            key: &self.key,
            message_id: message.message_id().unwrap_or_default(),
            recipients: &self.envelope.recipients,
            expires: Timestamp::now().as_second() + STAMP_SECONDS,
            received,
            headers,
        });
        let tag = style.subject.as_deref().filter(|_| stamped);
        Rendition::stamped(message, &stamp, tag, self.authserv_id.as_deref())
    }
}

fn facts(message: &Message) -> Facts {
    let cut = |text: String| text.chars().take(FACT_CHARS).collect::<String>();
    Facts {
        message_id: message.message_id().map(str::to_owned).map(cut),
        subject: message.subject().map(cut),
        from: message.header("from").map(|header| cut(header.decoded().to_string())),
    }
}
