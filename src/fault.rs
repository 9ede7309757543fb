//! A fault in something the operator wrote: where it is, what is wrong, and what to do about it.
//!
//! Configuration and rule files report through this one type, so that every message reads the same and an editor
//! can jump to the place.

use std::{fmt, sync::Arc};

/// One fault. Lines and columns count from 1; a fault of a whole file has line 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// The line, from 1; 0 when the fault has no place inside the file.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, with the value that is.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.problem)?,
            _ => write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.problem)?,
        }
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "\n  fix: {}", self.remedy) }
    }
}

/// The known word nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len() / 4)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_word_is_offered_only_when_near() {
        let known = ["listeners", "upstreams", "policies", "rules"];
        for (typed, meant) in [
            ("listners", Some("listeners")),
            ("upstream", Some("upstreams")),
            ("ruels", Some("rules")),
            ("kubernetes", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }
}
