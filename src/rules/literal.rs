//! Required literals: which short texts must be there before a pattern can match at all?
//!
//! One automaton looks for the literals of all patterns at once, and only patterns whose literal was seen are tried.
//! Text and literals are *folded* alike: each character to lower case by itself. A pattern that has no literal is
//! always tried. Never wrong, sometimes of no use.

use std::borrow::Cow;

use regex_syntax::hir::{Class, Hir, HirKind};

/// Literals of one pattern at most; with more the pattern is always tried.
const LITERALS_MAX: usize = 512;
/// Alternatives that are multiplied out inside a run of characters.
const PRODUCT_MAX: usize = 16;
/// A literal with less worth than this is found everywhere.
const WORTH_MIN: u32 = 6;

/// Folds text: each character to lower case by itself. Octets that are no UTF-8 stay.
pub(super) fn fold(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return match text.iter().any(u8::is_ascii_uppercase) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        };
    }
    let mut folded = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        let mut buffer = [0; 4];
        for character in chunk.valid().chars() {
            folded.extend_from_slice(fold_char(character).encode_utf8(&mut buffer).as_bytes());
        }
        folded.extend_from_slice(chunk.invalid());
    }
    Cow::Owned(folded)
}

/// One lower case for all characters that match each other where case does not matter, or nearly: by way of upper case, which
/// the long s, the final sigma and historic letters share with their kin. Never more than one character.
fn fold_char(character: char) -> char {
    let upper = only(character.to_uppercase()).unwrap_or(character);
    only(upper.to_lowercase()).unwrap_or(upper)
}

fn only(mut characters: impl Iterator<Item = char>) -> Option<char> {
    characters.next().filter(|_| characters.next().is_none())
}

/// Folded texts of which one must be in any text the pattern matches; none if no useful ones are known.
pub(super) fn required(pattern: &Hir) -> Option<Vec<Vec<u8>>> {
    let found = look(pattern);
    let whole = found.exact.filter(|exact| exact.iter().all(|literal| !literal.is_empty()));
    let mut best = better(whole, found.required).filter(|set| worth(set) >= WORTH_MIN)?;
    best.sort_unstable();
    best.dedup();
    (best.len() <= LITERALS_MAX).then_some(best)
}

/// What is known about a piece of a pattern.
#[derive(Default)]
struct Found {
    /// All the texts it matches, if they are few.
    exact: Option<Vec<Vec<u8>>>,
    /// Texts of which one is in whatever it matches.
    required: Option<Vec<Vec<u8>>>,
}

impl Found {
    fn exact(exact: Vec<Vec<u8>>) -> Self {
        Self { exact: Some(exact), required: None }
    }

    /// The better of the texts it matches and the texts it requires.
    fn any(self) -> Option<Vec<Vec<u8>>> {
        better(self.exact.filter(|exact| exact.iter().all(|literal| !literal.is_empty())), self.required)
    }
}

fn look(pattern: &Hir) -> Found {
    match pattern.kind() {
        HirKind::Empty | HirKind::Look(_) => Found::exact(vec![Vec::new()]),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => Found::exact(vec![fold(text.as_bytes()).into_owned()]),
            Err(_) => Found::default(),
        },
        HirKind::Class(class) => letters(class).map_or_else(Found::default, Found::exact),
        HirKind::Capture(capture) => look(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min == 0 => Found::default(),
        HirKind::Repetition(repetition) => {
            let found = look(&repetition.sub);
            match repetition.max {
                Some(1) => found,
                _ => Found { exact: None, required: found.any() },
            }
        }
        HirKind::Concat(pieces) => concat(pieces),
        HirKind::Alternation(branches) => alternation(branches),
    }
}

/// The characters of a small class, folded.
fn letters(class: &Class) -> Option<Vec<Vec<u8>>> {
    let Class::Unicode(class) = class else {
        return class_of_octets(class);
    };
    let mut letters = Vec::new();
    for character in class.ranges().iter().flat_map(|range| range.start()..=range.end()) {
        let letter = fold_char(character).to_string().into_bytes();
        if !letters.contains(&letter) {
            letters.push(letter);
        }
        if letters.len() > PRODUCT_MAX {
            return None;
        }
    }
    (!letters.is_empty()).then_some(letters)
}

fn class_of_octets(class: &Class) -> Option<Vec<Vec<u8>>> {
    let Class::Bytes(class) = class else { return None };
    let mut letters = Vec::new();
    for octet in class.ranges().iter().flat_map(|range| range.start()..=range.end()) {
        let letter = vec![octet.to_ascii_lowercase()];
        if !octet.is_ascii() || letters.len() > PRODUCT_MAX {
            return None;
        }
        if !letters.contains(&letter) {
            letters.push(letter);
        }
    }
    (!letters.is_empty()).then_some(letters)
}

/// Pieces one after the other: runs of exact texts are multiplied out, and the best set of all is taken.
fn concat(pieces: &[Hir]) -> Found {
    let mut run = vec![Vec::new()];
    let (mut whole, mut best) = (true, None);
    for piece in pieces {
        let found = look(piece);
        match &found.exact {
            Some(exact) if run.len() * exact.len() <= PRODUCT_MAX => {
                run = run
                    .iter()
                    .flat_map(|front| exact.iter().map(move |back| [&front[..], back].concat()))
                    .collect();
            }
            _ => {
                best = better(best, Found::exact(std::mem::take(&mut run)).any());
                whole = false;
                run = match &found.exact {
                    Some(exact) if exact.len() <= PRODUCT_MAX => exact.clone(),
                    _ => vec![Vec::new()],
                };
                best = better(best, found.any());
            }
        }
    }
    if whole {
        return Found::exact(run);
    }
    Found { exact: None, required: better(best, Found::exact(run).any()) }
}

fn alternation(branches: &[Hir]) -> Found {
    let (mut exact, mut required) = (Some(Vec::new()), Some(Vec::new()));
    for branch in branches {
        let found = look(branch);
        match (&mut exact, &found.exact) {
            (Some(all), Some(some)) if all.len() + some.len() <= LITERALS_MAX => {
                all.extend(some.iter().cloned());
            }
            _ => exact = None,
        }
        match (&mut required, found.any()) {
            (Some(all), Some(some)) if all.len() + some.len() <= LITERALS_MAX => all.extend(some),
            _ => required = None,
        }
    }
    Found { exact, required }
}

/// The set that is found in fewer texts.
fn better(a: Option<Vec<Vec<u8>>>, b: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if worth(&b) > worth(&a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// How rare the set is: the worth of its commonest literal, less a little for every doubling of their number.
fn worth(set: &[Vec<u8>]) -> u32 {
    let least = set.iter().map(|literal| literal.iter().map(|&octet| rarity(octet)).sum::<u32>()).min();
    least.unwrap_or(0).saturating_sub(set.len().ilog2())
}

/// How rare an octet is in mail, roughly, in steps.
const fn rarity(octet: u8) -> u32 {
    match octet {
        b' ' | b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 1,
        b'h' | b'l' | b'd' | b'c' | b'u' | b'm' | b'f' | b'p' | b'.' | b'-' | b'=' => 2,
        b'a'..=b'z' | b'0'..=b'9' | b',' | b':' | b'/' => 3,
        0x80.. => 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pattern: &str) -> Hir {
        regex_syntax::ParserBuilder::new().utf8(false).case_insensitive(true).build().parse(pattern).unwrap()
    }

    #[test]
    fn the_rarest_literal_is_chosen() {
        for (pattern, literals) in [
            ("wire transfer", Some(vec!["wire transfer"])),
            (r"\bKiss\b", Some(vec!["kiss"])),
            ("the.*viagra", Some(vec!["viagra"])),
            ("(?:viagra|cialis)", Some(vec!["cialis", "viagra"])),
            ("colou?r (?:quick|fox)y", Some(vec!["r foxy", "r quicky"])),
            (r"\d+\s\w", None),
            ("a|.*", None),
            ("x*", None),
            ("(?:bitcoin)+", Some(vec!["bitcoin"])),
            ("ПРИВЕТ", Some(vec!["привет"])),
        ] {
            let literals =
                literals.map(|set| set.into_iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(required(&parse(pattern)), literals, "{pattern}");
        }
    }

    #[test]
    fn whatever_matches_holds_a_literal_when_folded() {
        for (pattern, text) in [
            ("kiss", "\u{212a}I\u{17f}S"),
            ("σίγμας", "ΣΊΓΜΑΣ"),
            ("straße|weiß", "STRASSE WEIẞ"),
            ("İstanbul", "İSTANBUL"),
        ] {
            let regex = regex::bytes::RegexBuilder::new(pattern).case_insensitive(true).build().unwrap();
            if let Some(literals) = required(&parse(pattern))
                && regex.is_match(text.as_bytes())
            {
                let folded = fold(text.as_bytes());
                assert!(
                    literals.iter().any(|literal| memchr::memmem::find(&folded, literal).is_some()),
                    "{pattern} {text}"
                );
            }
        }
    }
}
