//! Domain names as the configuration writes them.

/// `example.org`, or `*.example.org` for everything below it. Kept in lower-case A-labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    /// This domain alone.
    Exact(String),
    /// Every domain below this one, at any depth, not itself.
    Below(String),
}

impl DomainPattern {
    /// Whether a domain, as a recipient wrote it, is meant: any case, A-labels or U-labels, one dot at the end or
    /// not. What is no domain is never meant.
    pub fn matches(&self, domain: &str) -> bool {
        let Some(domain) = self::domain(domain.strip_suffix('.').unwrap_or(domain)) else { return false };
        match self {
            Self::Exact(name) => domain == *name,
            Self::Below(name) => {
                domain.strip_suffix(name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// Reads a pattern; none when it is not a domain.
pub fn pattern(text: &str) -> Option<DomainPattern> {
    match text.strip_prefix("*.") {
        Some(name) => domain(name).map(DomainPattern::Below),
        None => domain(text).map(DomainPattern::Exact),
    }
}

/// A domain in lower-case A-labels: letters, digits and hyphens (RFC 5321 section 2.3.5), at most 253 octets.
/// Addresses are not domains.
pub fn domain(text: &str) -> Option<String> {
    let name = ascii(text)?;
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let sound =
        name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit());
    sound.then_some(name)
}

/// Dots that IDNA maps to a full stop (RFC 3490 section 3.1). A server that does not map them reads another domain.
const OTHER_DOTS: [char; 3] = ['\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// Lower-case A-labels; none where IDNA refuses the name.
fn ascii(name: &str) -> Option<String> {
    if name.contains(OTHER_DOTS) {
        return None;
    }
    if name.is_ascii() { Some(name.to_ascii_lowercase()) } else { idna::domain_to_ascii(name).ok() }
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn patterns_match_whole_labels_in_any_spelling() {
        for (text, recipient, expected) in [
            ("example.org", "example.org", true),
            ("Example.ORG", "EXAMPLE.org", true),
            ("example.org", "example.org.", true),
            ("example.org", "mail.example.org", false),
            ("example.org", "notexample.org", false),
            ("example.org", "example.org.evil.test", false),
            ("*.example.org", "mail.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "notexample.org", false),
            ("пример.рф", "xn--e1afmkfd.xn--p1ai", true),
            ("xn--e1afmkfd.xn--p1ai", "ПРИМЕР.рф", true),
            ("localhost", "localhost", true),
            ("example.org", "", false),
            ("*.example.org", "evil.test%.example.org", false),
            ("*.example.org", "a@b.example.org", false),
            ("example.org", "[10.0.0.1]", false),
        ] {
            let pattern = pattern(text).unwrap();
            assert_eq!(pattern.matches(recipient), expected, "{text} {recipient}");
        }
    }

    #[test]
    fn what_is_no_domain_is_no_pattern() {
        for text in [
            "", "*", "*.", "a..b", ".a", "a.", "-a.org", "a-.org", "a_b.org", "10.0.0.1", "*.*.org", "a b",
            "@a.org",
        ] {
            assert!(pattern(text).is_none(), "{text}");
        }
    }
}
