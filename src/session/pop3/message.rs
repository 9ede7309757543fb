//! RETR and TOP: a message is collected, judged once, and shown as the policy says.
//!
//! The verdict comes first, also for TOP: a beginning cannot be judged. What the policy leaves alone passes as it came,
//! status line included. A message over the limit passes unjudged, as it comes, and is counted as unscanned.
//! Nothing is sent to the client before the message is complete here, except of one over the limit.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::{Duration, Instant};

use super::{Session, fault::Fault, shown::Face};
use crate::{
    mail::Envelope,
    policy::Filing,
    render::{Rendition, Segment, Source},
    session::{Door, Facts, Fate, Judged, Original, Spool},
    store::JournalId,
    verdict::{Cause, Verdict},
    wire::{
        dot::{DotDecoder, DotEncoder},
        pop3::{response::Response, top::Top},
    },
};

/// Octets of the original read at once.
const READ_OCTETS: u64 = 64 * 1024;

/// A message as far as it was collected.
enum Collected {
    /// All of it.
    Whole(Arc<Original>),
    /// What was collected when it went over the limit, and the decoder that reads on.
    Beyond(Original, DotDecoder),
}

/// A message on its way to the client.
struct Outgoing {
    encoder: DotEncoder,
    /// Where it is cut off, for TOP.
    cut: Option<Top>,
}

impl Outgoing {
    fn new(cut: Option<Top>) -> Self {
        Self { encoder: DotEncoder::new(), cut }
    }

    fn is_cut_off(&self) -> bool {
        self.cut.as_ref().is_some_and(Top::is_done)
    }
}

impl Session<'_> {
    /// The answer to RETR.
    pub(super) async fn show_message(&mut self, message: u32) -> Result<(), Fault> {
        let Some(response) = self.relay_refusal().await? else { return Ok(()) };
        match self.collect().await? {
            Collected::Whole(original) => {
                let complete_at = Instant::now();
                let face = self.face(message, &original).await;
                self.client.queue(&response.with_octets_added(face.added()));
                let rendition = face.rendition(original.len());
                self.gateway.metrics.added(&self.listener.name, "RETR", complete_at.elapsed());
                self.send(&rendition, &original, Outgoing::new(None)).await
            }
            Collected::Beyond(start, decoder) => {
                self.client.queue(response.verbatim());
                self.pass_unjudged(message, &start, decoder, Outgoing::new(None)).await
            }
        }
    }

    /// The answer to the client's own TOP for a message that is known to wear a stamp.
    pub(super) async fn show_top(&mut self, message: u32) -> Result<(), Fault> {
        let Some(response) = self.relay_refusal().await? else { return Ok(()) };
        let collected = self.collect().await?;
        self.client.queue(response.verbatim());
        match collected {
            Collected::Whole(start) => {
                let rendition = match self.shown.face(message) {
                    Some(face) => face.rendition(start.len()),
                    None => Rendition::untouched(start.len()),
                };
                self.send(&rendition, &start, Outgoing::new(None)).await
            }
            Collected::Beyond(start, decoder) => {
                self.pass_unjudged(message, &start, decoder, Outgoing::new(None)).await
            }
        }
    }

    /// The answer to our own TOP for a whole message, of which the client asked for a beginning.
    pub(super) async fn judge_for_top(
        &mut self,
        message: u32,
        lines: u64,
        own_line: &[u8],
    ) -> Result<(), Fault> {
        let response = self.response().await?;
        if !response.is_ok() {
            self.upstream.queue(own_line);
            self.flush_upstream().await?;
            return self.relay_list().await;
        }
        let outgoing = Outgoing::new(Some(Top::new(lines)));
        match self.collect().await? {
            Collected::Whole(original) => {
                let complete_at = Instant::now();
                let rendition = self.face(message, &original).await.rendition(original.len());
                self.client.queue(top_status(&response));
                self.gateway.metrics.added(&self.listener.name, "TOP", complete_at.elapsed());
                self.send(&rendition, &original, outgoing).await
            }
            Collected::Beyond(start, decoder) => {
                self.client.queue(top_status(&response));
                self.pass_unjudged(message, &start, decoder, outgoing).await
            }
        }
    }

    /// Collects a message up to its dot, or until it is over the limit.
    async fn collect(&mut self) -> Result<Collected, Fault> {
        let gateway = self.gateway;
        let mut spool = Spool::new(gateway);
        let mut decoder = DotDecoder::new();
        loop {
            let end = self.upstream.decode(&mut decoder, spool.sink());
            spool.settle().await?;
            // Before the end is looked at: whether a message is judged must not hang on how it came in.
            if spool.len() > gateway.limits.message_bytes {
                gateway.metrics.limit_reached("message_bytes");
                return Ok(Collected::Beyond(spool.finish().await?, decoder));
            }
            if end {
                return Ok(Collected::Whole(Arc::new(spool.finish().await?)));
            }
            self.fill_upstream().await?;
        }
    }

    /// How a message is shown: as it was before in this session, or by a fresh verdict.
    async fn face(&mut self, message: u32, original: &Arc<Original>) -> Face {
        if let Some(face) = self.shown.face(message).filter(|face| face.fits(original.len())) {
            return face.clone();
        }
        let policy = &self.listener.policy;
        // The reader's address and login say nothing about the sender.
        let judged = self.gateway.judge(&Envelope::default(), original, policy, Door::Mailbox).await;
        let face = match policy.pop3.answer(judged.verdict.class) {
            Filing::Leave => Face::AsItIs,
            Filing::Stamp | Filing::Withhold | Filing::Move => {
                Face::Stamped { len: original.len(), rendition: judged.rendition.clone() }
            }
        };
        self.record(&judged, &face);
        self.remember(message, face.clone());
        face
    }

    fn record(&self, judged: &Judged, face: &Face) {
        let filing = match face {
            Face::AsItIs => Filing::Leave,
            Face::Stamped { .. } => Filing::Stamp,
        };
        let fate = Fate { action: filing.as_str(), custody: None, reply: None };
        self.gateway.record(self.listener, "pop3", &self.reader, judged, &fate);
    }

    /// Sends a rendition of a collected message to its end.
    async fn send(
        &mut self,
        rendition: &Rendition,
        original: &Original,
        mut outgoing: Outgoing,
    ) -> Result<(), Fault> {
        self.torn = true;
        self.send_open(rendition, original, &mut outgoing).await?;
        outgoing.encoder.finish(self.client.output());
        self.torn = false;
        Ok(())
    }

    /// Sends a rendition without ending the answer.
    async fn send_open(
        &mut self,
        rendition: &Rendition,
        original: &Original,
        outgoing: &mut Outgoing,
    ) -> Result<(), Fault> {
        for piece in rendition.pieces(READ_OCTETS) {
            if outgoing.is_cut_off() {
                break;
            }
            let octets = match piece {
                Segment::Added(octets) => octets,
                Segment::Original(span) => {
                    original.read(span).await.map_err(|error| Fault::Spool(error.into()))?
                }
            };
            self.send_octets(&octets, outgoing).await?;
        }
        Ok(())
    }

    async fn send_octets(&mut self, octets: &[u8], outgoing: &mut Outgoing) -> Result<(), Fault> {
        let shown = outgoing.cut.as_mut().map_or(octets.len(), |cut| cut.take(octets));
        outgoing.encoder.encode(&octets[..shown], self.client.output());
        self.relieve_client().await
    }

    /// Passes a message over the limit as it is: what was collected, then the rest as it comes.
    async fn pass_unjudged(
        &mut self,
        message: u32,
        start: &Original,
        mut decoder: DotDecoder,
        mut outgoing: Outgoing,
    ) -> Result<(), Fault> {
        self.torn = true;
        self.send_open(&Rendition::untouched(start.len()), start, &mut outgoing).await?;
        let mut content = Vec::new();
        loop {
            let end = self.upstream.decode(&mut decoder, &mut content);
            self.send_octets(&content, &mut outgoing).await?;
            content.clear();
            if end {
                break;
            }
            self.flush_client().await?;
            self.fill_upstream().await?;
        }
        outgoing.encoder.finish(self.client.output());
        self.torn = false;
        self.count_unjudged(message, decoder.decoded());
        Ok(())
    }

    fn count_unjudged(&mut self, message: u32, len: u64) {
        if self.shown.face(message).is_some() {
            return;
        }
        let verdict = Verdict::unscanned(Cause::TooLarge, self.listener.policy.thresholds);
        let judged = Judged {
            id: JournalId::new(),
            at: Timestamp::now(),
            verdict,
            facts: Facts::default(),
            rendition: Rendition::untouched(len),
            len,
            took: Duration::ZERO,
        };
        self.record(&judged, &Face::AsItIs);
        self.remember(message, Face::AsItIs);
    }

    fn remember(&mut self, message: u32, face: Face) {
        let Self { shown, pending, .. } = self;
        shown.remember(message, face, |message| pending.needs(message));
    }
}

/// The status line for a beginning, from that for the whole: a count of octets in it would be the whole's.
fn top_status(response: &Response) -> &[u8] {
    if response.octets().is_some() { b"+OK\r\n" } else { response.verbatim() }
}
