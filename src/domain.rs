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
    /// Whether a domain, as a recipient wrote it, is meant: any case, A-labels or U-labels, one dot at the end or not.
    pub fn matches(&self, domain: &str) -> bool {
        let Some(domain) = ascii(domain.strip_suffix('.').unwrap_or(domain)) else { return false };
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

/// A domain in lower-case A-labels: letters, digits and hyphens (RFC 5321 section 2.3.5), at most 253 octets. Addresses are not domains.
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

/// Lower-case A-labels; none where IDNA refuses the name.
fn ascii(name: &str) -> Option<String> {
    if name.is_ascii() { Some(name.to_ascii_lowercase()) } else { idna::domain_to_ascii(name).ok() }
}
