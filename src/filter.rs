//! The filter: one verdict for one message, whatever happens while judging.
//!
//! Synchronous; a caller that must not wait runs it elsewhere. A check that panics costs its message the judgement,
//! never the process: the verdict is then [`Class::Unscanned`](crate::verdict::Class::Unscanned).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    mail::{Envelope, Message},
    rules::{RuleSet, Score},
    verdict::{Cause, Thresholds, Verdict},
};

/// Judges messages by a set of rules.
#[derive(Clone, Debug)]
pub struct Filter {
    rules: Arc<RuleSet>,
}

impl Filter {
    /// A filter with these rules.
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self { rules }
    }

    /// The rules it judges by.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Judges a message. The same message and rules give the same verdict.
    pub fn judge(&self, envelope: &Envelope, message: &Message, thresholds: Thresholds) -> Verdict {
        judge_by(|| self.rules.score(envelope, message), thresholds)
    }
}

fn judge_by(score: impl FnOnce() -> Score, thresholds: Thresholds) -> Verdict {
    // A panic can leave behind only a view that was not made; the message itself is immutable.
    match catch_unwind(AssertUnwindSafe(score)) {
        Ok(score) => Verdict::of_score(score, thresholds),
        Err(_) => Verdict::unscanned(Cause::Panic, thresholds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Class, Reason};

    #[test]
    fn a_panicking_check_leaves_the_message_unscanned() {
        let verdict = judge_by(|| panic!("a check fails"), Thresholds::default());
        assert_eq!(verdict.class, Class::Unscanned);
        assert_eq!(verdict.reason, Reason::Unscanned(Cause::Panic));
        assert!(verdict.score.hits.is_empty());
    }
}
