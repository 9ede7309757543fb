//! A rule as people see it.

use std::sync::Arc;

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The name, such as `PHISH_VERIFY_ACCOUNT`.
    pub id: Arc<str>,
    /// One line for people.
    pub description: String,
    /// What a hit adds to the score; negative for honest signs, 0 for rules that only serve meta rules.
    pub points: f64,
    /// The group it belongs to, as operators think of it.
    pub group: Option<String>,
    /// The language of the text it looks for, such as `de`.
    pub language: Option<String>,
    /// Where it is written, as `rules/url.yaml:41`.
    pub at: Arc<str>,
}
