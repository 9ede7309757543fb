//! The rules in force, compiled.
use std::path::PathBuf;

use super::{Rule, Score};
use crate::{
    fault::Fault,
    mail::{Envelope, Message},
};

/// The rules in force.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
}

impl RuleSet {
    /// The rules that are built in.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// Loads rule files, and folders of them.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(_paths: &[PathBuf]) -> Result<Self, Vec<Fault>> {
        Ok(Self::default())
    }

    /// The rules, in the order they were written.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Scores a message.
    pub fn score(&self, _envelope: &Envelope, _message: &Message) -> Score {
        Score::new(Vec::new())
    }
}
