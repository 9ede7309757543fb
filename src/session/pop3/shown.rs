//! What this session has shown of which message, so that RETR and TOP always show the same.
//!
//! Message numbers stay what they are for a session (RFC 1939 section 5), and no longer. Bounded: what was forgotten
//! is judged again.

use std::collections::BTreeMap;

use crate::render::Rendition;

/// The messages judged in this session.
#[derive(Debug, Default)]
pub(super) struct Shown {
    messages: BTreeMap<u32, Face>,
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

/// Messages remembered at most; a stamp is one or two kilobytes.
const SHOWN_MAX: usize = 2_000;

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

    /// Remembers how `message` is shown.
    pub(super) fn remember(&mut self, message: u32, face: Face) {
        if self.messages.len() >= SHOWN_MAX && !self.messages.contains_key(&message) {
            self.messages.pop_first();
        }
        self.messages.insert(message, face);
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

    fn original_len(&self) -> u64 {
        match self {
            Self::AsItIs => u64::MAX,
            Self::Stamped { len, .. } => *len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_remembered_messages_is_bounded() {
        let mut shown = Shown::default();
        for message in 1..=(SHOWN_MAX as u32 + 5) {
            shown.remember(message, Face::AsItIs);
        }
        assert_eq!(shown.messages.len(), SHOWN_MAX);
        assert_eq!(shown.plan(5), Plan::Unknown);
        assert_eq!(shown.plan(6), Plan::AsItIs);
    }
}
