//! What this session has shown of which message, so that RETR and TOP always show the same.
//!
//! Message numbers stay what they are for a session (RFC 1939 section 5), and no longer. Bounded in messages and in
//! octets, and what was shown first is forgotten first: it is judged again. What an answer on its way needs stays, since
//! that answer is a beginning, which cannot be judged.

use std::collections::{BTreeMap, VecDeque};

use crate::render::{Rendition, Segment};

/// The messages judged in this session.
#[derive(Debug, Default)]
pub(super) struct Shown {
    messages: BTreeMap<u32, Face>,
    /// Their numbers, oldest first.
    order: VecDeque<u32>,
    /// Octets that they hold.
    octets: usize,
}

/// How a message is shown.
#[derive(Clone, Debug)]
pub(super) enum Face {
    /// As the upstream has it.
    AsItIs,
    /// With a stamp.
    Stamped {
        /// The length of the original, in octets.
        len: u64,
        /// What is shown.
        rendition: Rendition,
    },
}

/// What TOP has to do for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It has to be judged first.
    Unknown,
    /// The upstream's answer is right.
    AsItIs,
    /// The upstream's answer needs the stamp.
    Stamped,
}

/// Messages remembered at most.
const SHOWN_MAX: usize = 2_000;
/// Octets of stamps remembered at most; a stamp is one or two kilobytes.
const STAMPS_MAX: usize = 256 * 1024;

impl Shown {
    /// What TOP has to do for `message`.
    pub(super) fn plan(&self, message: u32) -> Plan {
        match self.messages.get(&message) {
            None => Plan::Unknown,
            Some(Face::AsItIs) => Plan::AsItIs,
            Some(Face::Stamped { .. }) => Plan::Stamped,
        }
    }

    /// How `message` is shown, if it was judged.
    pub(super) fn face(&self, message: u32) -> Option<&Face> {
        self.messages.get(&message)
    }

    /// Remembers how `message` is shown, and forgets what there is no room for, less what is `needed`.
    pub(super) fn remember(&mut self, message: u32, face: Face, needed: impl Fn(u32) -> bool) {
        self.octets += face.octets();
        match self.messages.insert(message, face) {
            Some(before) => self.octets -= before.octets(),
            None => self.order.push_back(message),
        }
        while self.is_over_full() && self.forget_oldest(&needed) {}
    }

    fn is_over_full(&self) -> bool {
        self.messages.len() > SHOWN_MAX || self.octets > STAMPS_MAX
    }

    /// False: all there is is needed.
    fn forget_oldest(&mut self, needed: impl Fn(u32) -> bool) -> bool {
        let oldest = self.order.iter().position(|&message| !needed(message));
        let Some(message) = oldest.and_then(|at| self.order.remove(at)) else { return false };
        self.octets -= self.messages.remove(&message).map_or(0, |face| face.octets());
        true
    }
}

impl Face {
    /// Whether this is the face of an original of `octets` octets.
    pub(super) fn fits(&self, octets: u64) -> bool {
        match self {
            Self::AsItIs => true,
            Self::Stamped { len, .. } => *len == octets,
        }
    }

    /// What is shown of the first `octets` octets of the original, or of the whole.
    pub(super) fn rendition(&self, octets: u64) -> Rendition {
        match self {
            Self::AsItIs => Rendition::untouched(octets),
            Self::Stamped { len, rendition } if *len == octets => rendition.clone(),
            // All that is added or left out stands in the header, which every beginning holds.
            Self::Stamped { rendition, .. } => {
                rendition.range(0..octets.min(self.original_len()).saturating_add_signed(self.added()))
            }
        }
    }

    /// Octets that are shown more than the original has; less when negative.
    pub(super) fn added(&self) -> i64 {
        match self {
            Self::AsItIs => 0,
            Self::Stamped { len, rendition } => rendition.len().cast_signed() - len.cast_signed(),
        }
    }

    /// Octets it takes to remember: the stamp's text, and where it goes.
    fn octets(&self) -> usize {
        let Self::Stamped { rendition, .. } = self else { return 0 };
        let text = rendition.segments().iter().map(|segment| match segment {
            Segment::Added(text) => text.len(),
            Segment::Original(_) => 0,
        });
        text.sum::<usize>() + size_of_val(rendition.segments())
    }

    fn original_len(&self) -> u64 {
        match self {
            Self::AsItIs => u64::MAX,
            Self::Stamped { len, .. } => *len,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{mail::Message, render::Stamp};

    fn stamped() -> Face {
        let stamp = Stamp::received(&format!("Received: {}\r\n", "x".repeat(900)));
        let rendition =
            Rendition::stamped(&Message::parse(Bytes::from_static(b"A: b\r\n\r\nc")), &stamp, None, None);
        assert!(rendition.len() > 900);
        Face::Stamped { len: 9, rendition }
    }

    #[test]
    fn the_number_of_remembered_messages_is_bounded() {
        let mut shown = Shown::default();
        for message in (1..=(SHOWN_MAX as u32 + 5)).rev() {
            shown.remember(message, Face::AsItIs, |_| false);
        }
        assert_eq!((shown.messages.len(), shown.order.len()), (SHOWN_MAX, SHOWN_MAX));
        // The oldest, not the first of the mailbox.
        assert_eq!(shown.plan(SHOWN_MAX as u32 + 1), Plan::Unknown);
        assert_eq!(shown.plan(1), Plan::AsItIs);
    }

    #[test]
    fn the_octets_of_remembered_stamps_are_bounded() {
        let room = STAMPS_MAX / stamped().octets();
        let mut shown = Shown::default();
        for message in (1..=500).rev() {
            shown.remember(message, stamped(), |message| message == 500);
        }
        let (last, plan) = (room as u32 - 1, |message| shown.plan(message));
        assert_eq!((shown.messages.len(), shown.order.len()), (room, room));
        assert_eq!([plan(1), plan(last), plan(500)], [Plan::Stamped; 3]);
        assert_eq!([plan(last + 1), plan(499)], [Plan::Unknown; 2]);
        // Remembered anew they count once.
        shown.remember(1, stamped(), |_| false);
        assert_eq!((shown.messages.len(), shown.octets), (room, room * stamped().octets()));
        // All of it is needed: then there is more.
        shown.remember(499, stamped(), |_| true);
        assert_eq!(shown.messages.len(), room + 1);
        shown.remember(498, Face::AsItIs, |_| false);
        assert_eq!((shown.plan(500), shown.octets), (Plan::Unknown, room * stamped().octets()));
    }
}
