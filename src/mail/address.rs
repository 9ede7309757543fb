//! Address lists (RFC 5322 section 3.4), read as clients show them: display name and address of each.
//!
//! Lenient: comments, groups, routes, missing brackets, semicolons for commas. What names no address is a name alone.

use super::encoded_word;

/// Addresses that are read of one field.
const ADDRESSES_MAX: usize = 100;

/// One address of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The display name, decoded; empty where there is none.
    pub name: String,
    /// The address; empty where there is none.
    pub address: String,
}

/// Reads an unfolded, undecoded value.
pub(super) fn read(value: &[u8]) -> Vec<Address> {
    let mut reader = Reader::default();
    let mut octets = value.iter().copied();
    while let Some(octet) = octets.next() {
        let escaped =
            (octet == b'\\' && (reader.quoted || reader.depth > 0)).then(|| octets.next()).flatten();
        reader.take(escaped.unwrap_or(octet), escaped.is_some());
        if reader.list.len() >= ADDRESSES_MAX {
            return reader.list;
        }
    }
    reader.end();
    reader.list
}

#[derive(Default)]
struct Reader {
    list: Vec<Address>,
    phrase: Vec<u8>,
    bracketed: Option<Vec<u8>>,
    comment: Vec<u8>,
    in_brackets: bool,
    quoted: bool,
    depth: usize,
}

impl Reader {
    fn take(&mut self, octet: u8, escaped: bool) {
        match octet {
            _ if escaped && self.depth > 0 => self.comment.push(octet),
            _ if escaped => self.text(octet),
            b'"' if self.depth == 0 && !self.in_brackets => self.quoted = !self.quoted,
            _ if self.quoted => self.text(octet),
            b'(' => self.depth += 1,
            b')' if self.depth > 0 => self.depth -= 1,
            _ if self.depth > 0 => self.comment.push(octet),
            b'<' => (self.in_brackets, self.bracketed) = (true, Some(Vec::new())),
            b'>' => self.in_brackets = false,
            b',' | b';' if !self.in_brackets => self.end(),
            b':' if !self.in_brackets && !self.phrase.contains(&b'@') => self.phrase.clear(),
            _ => self.text(octet),
        }
    }

    fn text(&mut self, octet: u8) {
        match &mut self.bracketed {
            Some(address) if self.in_brackets => address.push(octet),
            _ => self.phrase.push(octet),
        }
    }

    fn end(&mut self) {
        let list = std::mem::take(&mut self.list);
        let Self { phrase, bracketed, comment, .. } =
            std::mem::replace(self, Self { list, ..Self::default() });
        let phrase = phrase.trim_ascii();
        let (name, address) = match &bracketed {
            Some(address) => (phrase, address.as_slice()),
            None if phrase.contains(&b'@') => (comment.as_slice(), phrase),
            None => (phrase, [].as_slice()),
        };
        let address = String::from_utf8_lossy(address);
        // A source route is no part of the address (RFC 5322 section 4.4).
        let address = address
            .rsplit_once(':')
            .filter(|(route, _)| route.starts_with('@'))
            .map_or(&*address, |(_, to)| to);
        let address: String = address.split_whitespace().collect();
        let name = encoded_word::decode(name);
        if !name.is_empty() || !address.is_empty() {
            self.list.push(Address { name, address });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_in_every_spelling() {
        for (value, list) in [
            ("a@b.example", &[("", "a@b.example")][..]),
            ("<a@b.example>", &[("", "a@b.example")]),
            ("Ann <a@b.example>", &[("Ann", "a@b.example")]),
            ("\"Ann, B.\" <a@b.example>, c@d.example", &[("Ann, B.", "a@b.example"), ("", "c@d.example")]),
            ("a@b.example (Ann)", &[("Ann", "a@b.example")]),
            ("=?utf-8?q?Ann?= <a@b.example>", &[("Ann", "a@b.example")]),
            ("\"x@y.example\" <a@b.example>", &[("x@y.example", "a@b.example")]),
            ("team: a@b.example, c@d.example;", &[("", "a@b.example"), ("", "c@d.example")]),
            ("undisclosed-recipients:;", &[]),
            ("a@b.example; c@d.example", &[("", "a@b.example"), ("", "c@d.example")]),
            ("<@r.example:a@b.example>", &[("", "a@b.example")]),
            ("only a name", &[("only a name", "")]),
            ("\"a\\\"b\" <c@d.example>", &[("a\"b", "c@d.example")]),
            ("", &[]),
        ] {
            let read: Vec<_> = read(value.as_bytes());
            let read: Vec<_> = read.iter().map(|one| (one.name.as_str(), one.address.as_str())).collect();
            assert_eq!(read, list, "{value}");
        }
    }
}
