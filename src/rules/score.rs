//! The score of a message: which rules hit, and the sum of their points.
//!
//! Objective: it knows no threshold and no policy.

use std::sync::Arc;

/// A rule that fired on a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What the hit adds to the sum; negative for honest signs.
    pub points: f64,
    /// The matching text, printable and bounded.
    pub evidence: String,
    /// Where the rule is written, as `rules/url.yaml:41`.
    pub at: Arc<str>,
}

/// All hits on a message, and their sum in points rounded to a tenth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    /// The sum, rounded to one decimal so that what is shown is what was compared.
    pub points: f64,
    /// The hits, in the order of the rules' names.
    pub hits: Vec<Hit>,
}

impl Score {
    /// Sums `hits`; the order they come in does not matter.
    pub fn new(mut hits: Vec<Hit>) -> Self {
        hits.sort_by(|a, b| a.rule.cmp(&b.rule));
        let sum: f64 = hits.iter().map(|hit| hit.points).sum();
        // The addition of zero turns -0.0 into 0.0.
        Self { points: (sum * 10.0).round() / 10.0 + 0.0, hits }
    }
}
