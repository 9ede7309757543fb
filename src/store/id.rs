//! The name of one judged message: a UUID version 7 (RFC 9562 section 5.7) in its canonical spelling.
//!
//! Nothing else is taken for an id, so that an id may stand in a file name without a second thought. Ids sort by
//! the time they were made; their beginnings are therefore alike, and their ends are what tells them apart.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Version};

use super::StoreError;

/// The id of a message in the journal and, where it is held, in the quarantine: 36 characters, lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JournalId(String);

/// A held message keeps the id it has in the journal.
pub type QuarantineId = JournalId;

impl JournalId {
    /// A new id. Ids made by one process sort in the order they were made.
    #[expect(clippy::new_without_default, reason = "each one is different")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().hyphenated().to_string())
    }

    /// The canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last twelve characters, which are random: short enough for a table, and enough to name the message by.
    pub fn short(&self) -> &str {
        self.0.get(24..).unwrap_or(&self.0)
    }

    /// The folder of the quarantine this id belongs to: the last two characters.
    pub(super) fn folder(&self) -> &str {
        self.0.get(34..).unwrap_or("00")
    }
}

impl FromStr for JournalId {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let refused = || StoreError::InvalidId(text.chars().take(64).collect());
        let id = Uuid::try_parse(text).map_err(|_| refused())?;
        let canonical = id.hyphenated().to_string();
        if canonical == text && id.get_version() == Some(Version::SortRand) {
            Ok(Self(canonical))
        } else {
            Err(refused())
        }
    }
}

impl TryFrom<String> for JournalId {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        text.parse()
    }
}

impl From<JournalId> for String {
    fn from(id: JournalId) -> Self {
        id.0
    }
}

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_of_version_7_is_an_id() {
        for (text, good) in [
            ("0199f3a1-7c2e-7a40-9b1d-3f5e6a7b8c9d", true),
            ("0199F3A1-7C2E-7A40-9B1D-3F5E6A7B8C9D", false),
            ("0199f3a17c2e7a409b1d3f5e6a7b8c9d", false),
            ("{0199f3a1-7c2e-7a40-9b1d-3f5e6a7b8c9d}", false),
            ("urn:uuid:0199f3a1-7c2e-7a40-9b1d-3f5e6a7b8c9d", false),
            ("0199f3a1-7c2e-4a40-9b1d-3f5e6a7b8c9d", false),
            ("0199f3a1-7c2e-7a40-9b1d-3f5e6a7b8c9d\n", false),
            ("0199f3a1-7c2e-7a40-9b1d-3f5e6a7b8c9d/..", false),
            ("../../../../../../../../../../etc/passwd", false),
            ("..", false),
            ("", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("ａ199f3a1-7c2e-7a40-9b1d-3f5e6a7b8c9d", false),
        ] {
            assert_eq!(text.parse::<JournalId>().is_ok(), good, "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<JournalId>(&json).is_ok(), good, "{json}");
        }
    }

    #[test]
    fn new_ids_are_canonical_sorted_and_different() {
        let ids: Vec<JournalId> = (0..1000).map(|_| JournalId::new()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id.as_str().parse::<JournalId>().unwrap() == *id));
        assert!(ids.iter().all(|id| id.as_str().ends_with(id.folder()) && id.folder().len() == 2));
    }
}
