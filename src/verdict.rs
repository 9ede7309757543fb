//! What we conclude about a message: a class, the score behind it, and the reason in one phrase.
//!
//! A verdict says what a message *is*; what to *do* about it is [`crate::policy`]'s affair. Pure data.

use serde::{Deserialize, Serialize};

use crate::rules::Score;

/// How a message is sorted. The order is that of growing suspicion; `Unscanned` stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Below the `unsure` threshold.
    Ham,
    /// At or over `unsure`, below `spam`.
    Unsure,
    /// At or over `spam`, below `certain`.
    Spam,
    /// At or over `certain`.
    Certain,
    /// The antivirus found something.
    Malware,
    /// Judging was impossible.
    Unscanned,
}

impl Class {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Ham, Self::Unsure, Self::Spam, Self::Certain, Self::Malware, Self::Unscanned];

    /// The word used in configuration, headers, JSON and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ham => "ham",
            Self::Unsure => "unsure",
            Self::Spam => "spam",
            Self::Certain => "certain",
            Self::Malware => "malware",
            Self::Unscanned => "unscanned",
        }
    }

    /// Whether `X-Spam-Flag` says YES.
    pub const fn is_spam(self) -> bool {
        matches!(self, Self::Spam | Self::Certain | Self::Malware)
    }
}

/// The scores at which a message changes class. Points, inclusive: a score equal to the threshold is over it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// From here on a message is `unsure`. Default 3.0.
    pub unsure: f64,
    /// From here on a message is `spam`. Default 5.0.
    pub spam: f64,
    /// From here on a message is `certain`. Default 10.0.
    pub certain: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { unsure: 3.0, spam: 5.0, certain: 10.0 }
    }
}

impl Thresholds {
    /// The class of a score of `points`.
    pub fn class(&self, points: f64) -> Class {
        if points >= self.certain {
            Class::Certain
        } else if points >= self.spam {
            Class::Spam
        } else if points >= self.unsure {
            Class::Unsure
        } else {
            Class::Ham
        }
    }
}

/// What was concluded about one message.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The class the policy is asked with.
    pub class: Class,
    /// The hits and their sum. Empty for a message that was not scanned.
    pub score: Score,
    /// The `spam` threshold that applied, as `required=` in the header says it.
    pub required: f64,
    /// Why the class is what it is.
    pub reason: Reason,
}

/// Why a message has its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The score against the thresholds.
    Score,
    /// Judging failed or was not possible, for this cause.
    Unscanned(Cause),
}

/// Why a message could not be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A check panicked; the panic was caught and logged.
    Panic,
    /// The message is over the size that is collected for judging.
    TooLarge,
    /// Its turn to be judged did not come in time.
    Busy,
    /// The spool failed to give back what was written to it.
    Spool,
}

impl Cause {
    /// One phrase for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "a check failed",
            Self::Busy => "too many messages wait to be judged",
            Self::TooLarge => "the message is over the size that is judged",
            Self::Spool => "the spool could not be read",
        }
    }
}

impl Verdict {
    /// The verdict of a score under `thresholds`.
    pub fn of_score(score: Score, thresholds: Thresholds) -> Self {
        Self {
            class: thresholds.class(score.points),
            score,
            required: thresholds.spam,
            reason: Reason::Score,
        }
    }

    /// The verdict on a message that could not be judged.
    pub fn unscanned(cause: Cause, thresholds: Thresholds) -> Self {
        Self {
            class: Class::Unscanned,
            score: Score::default(),
            required: thresholds.spam,
            reason: Reason::Unscanned(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_inclusive() {
        let thresholds = Thresholds::default();
        for (points, class) in [
            (-3.0, Class::Ham),
            (2.99, Class::Ham),
            (3.0, Class::Unsure),
            (4.99, Class::Unsure),
            (5.0, Class::Spam),
            (9.99, Class::Spam),
            (10.0, Class::Certain),
            (1000.0, Class::Certain),
        ] {
            assert_eq!(thresholds.class(points), class, "{points}");
        }
    }
}
