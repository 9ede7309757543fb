//! Checks: what a pattern cannot say, because it compares one part of a message with another.
//!
//! Each check has a name; the names of those that hold are the `check` target, one a line, and rules give them points.
//! Pure and bounded, like patterns.

use crate::mail::{Address, Message, Reading};

/// A check's name and whether it holds.
type Check = (&'static str, fn(&Facts<'_>) -> bool);

/// All checks.
const CHECKS: [Check; 13] = [
    ("reply-to-other-domain", |facts| {
        !facts.reply_to.is_empty() && facts.reply_to.iter().all(|to| !facts.is_from(to))
    }),
    ("reply-to-freemail", |facts| {
        facts
            .reply_to
            .iter()
            .any(|to| is_freemail(&domain(to)) && !facts.from.iter().any(|from| domain(from) == domain(to)))
    }),
    ("from-freemail", |facts| facts.from.iter().any(|from| is_freemail(&domain(from)))),
    ("from-is-to", |facts| {
        facts.from.iter().any(|from| facts.to.iter().any(|to| to.address.eq_ignore_ascii_case(&from.address)))
    }),
    ("from-name-is-recipient", |facts| {
        facts.names().any(|name| facts.to.iter().any(|to| names_site(&name, to)))
    }),
    ("from-name-other-address", |facts| facts.from.iter().any(names_other_address)),
    ("from-name-brand", |facts| facts.from.iter().any(claims_brand)),
    ("subject-holds-recipient", |facts| facts.holds_recipient(&facts.subject)),
    ("body-greets-recipient", |facts| {
        let body = &facts.message.views().body;
        facts.holds_recipient(&body[..body.floor_char_boundary(GREETING)].to_lowercase())
    }),
    ("url-holds-recipient", |facts| {
        facts.urls().any(|url| facts.holds_recipient(&url.to_lowercase().replace("%40", "@")))
    }),
    ("html-without-text", |facts| facts.has(Reading::Html) && !facts.has(Reading::Text)),
    ("html-attachment", |facts| {
        facts.message.views().attachments.iter().any(|name| {
            let name = name.to_lowercase();
            [".html", ".htm", ".shtml", ".xhtml", ".mht", ".svg"]
                .iter()
                .any(|end| name.trim_end().ends_with(end))
        })
    }),
    ("little-text-with-link", |facts| {
        let body = &facts.message.views().body;
        body.chars().take(LITTLE).count() < LITTLE && facts.urls().any(|url| url.starts_with("http"))
    }),
];

/// Octets at the start of the body that count as its greeting.
const GREETING: usize = 400;
/// Characters of text below which a message says little.
const LITTLE: usize = 160;

/// The names of the checks that hold, one a line.
pub(super) fn holding(message: &Message) -> String {
    let facts = Facts::of(message);
    let holding: Vec<_> = CHECKS.iter().filter(|(_, holds)| holds(&facts)).map(|(name, _)| *name).collect();
    holding.join("\n")
}

struct Facts<'a> {
    message: &'a Message,
    from: Vec<Address>,
    to: Vec<Address>,
    reply_to: Vec<Address>,
    subject: String,
}

impl<'a> Facts<'a> {
    fn of(message: &'a Message) -> Self {
        let list = |name: &str| {
            let mut list = message.header(name).map(|header| header.addresses()).unwrap_or_default();
            list.truncate(ADDRESSES_MAX);
            list
        };
        let subject = message.subject().unwrap_or_default().to_lowercase();
        Self { message, from: list("From"), to: list("To"), reply_to: list("Reply-To"), subject }
    }

    fn is_from(&self, to: &Address) -> bool {
        self.from.iter().any(|from| site(&domain(from)) == site(&domain(to)))
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.from.iter().map(|from| from.name.to_lowercase())
    }

    fn urls(&self) -> impl Iterator<Item = &str> {
        self.message.views().urls.iter().map(String::as_str)
    }

    fn has(&self, reading: Reading) -> bool {
        self.message.parts().iter().any(|part| part.reading() == reading && !part.is_attachment())
    }

    /// Whether a recipient's whole address stands in some lower-case text.
    fn holds_recipient(&self, text: &str) -> bool {
        let mut addresses = self.to.iter().map(|to| to.address.to_lowercase());
        addresses.any(|address| address.contains('@') && text.contains(&address))
    }
}

/// Addresses of one field that are compared.
const ADDRESSES_MAX: usize = 10;

fn domain(address: &Address) -> String {
    let domain = address.address.rsplit_once('@').map_or("", |(_, domain)| domain);
    domain.trim_end_matches('.').to_lowercase()
}

/// The domain that somebody registered, roughly: two labels, or three where the second is short and the first a country.
fn site(domain: &str) -> &str {
    let mut dots = domain.rmatch_indices('.').map(|(at, _)| at);
    let (last, second, third) = (dots.next(), dots.next(), dots.next());
    match (last, second) {
        (Some(last), Some(second)) if domain.len() - last == 3 && last - second <= 4 => {
            third.map_or(domain, |third| &domain[third + 1..])
        }
        (Some(_), Some(second)) => &domain[second + 1..],
        _ => domain,
    }
}

/// Whether a sender's name is that of the recipient's own site, which does not send under a stranger's address.
fn names_site(name: &str, to: &Address) -> bool {
    let site = site(&domain(to)).to_owned();
    site.contains('.') && name.contains(&site) && !name.contains('@')
}

/// Whether a name shows an address of another site.
fn names_other_address(from: &Address) -> bool {
    let name = from.name.to_lowercase();
    let mut words =
        name.split(|character: char| !(character.is_ascii_alphanumeric() || "@.-_+".contains(character)));
    words.any(|word| {
        word.rsplit_once('@').is_some_and(|(local, shown)| {
            !local.is_empty() && shown.contains('.') && site(shown.trim_matches('.')) != site(&domain(from))
        })
    })
}

/// Names that are put on to be trusted, and what the address of the real one holds.
const BRANDS: [(&str, &str); 52] = [
    ("adobe", "adobe"),
    ("aeon", "aeon"),
    ("amazon", "amazon"),
    ("american express", "americanexpress"),
    ("apple", "apple"),
    ("bank of america", "bankofamerica"),
    ("bitpanda", "bitpanda"),
    ("binance", "binance"),
    ("coinbase", "coinbase"),
    ("cpanel", "cpanel"),
    ("credit agricole", "credit-agricole"),
    ("dhl", "dhl"),
    ("docusign", "docusign"),
    ("dropbox", "dropbox"),
    ("ebay", "ebay"),
    ("facebook", "facebook"),
    ("fedex", "fedex"),
    ("google", "google"),
    ("hsbc", "hsbc"),
    ("icloud", "apple"),
    ("ing bank", "ing"),
    ("instagram", "instagram"),
    ("linkedin", "linkedin"),
    ("mastercard", "mastercard"),
    ("metamask", "metamask"),
    ("microsoft", "microsoft"),
    ("netflix", "netflix"),
    ("netsuite", "netsuite"),
    ("norton", "norton"),
    ("office 365", "microsoft"),
    ("office365", "microsoft"),
    ("paypal", "paypal"),
    ("postbank", "postbank"),
    ("rakuten", "rakuten"),
    ("roundcube", "roundcube"),
    ("santander", "santander"),
    ("sharepoint", "microsoft"),
    ("smbc", "smbc"),
    ("sparkasse", "sparkasse"),
    ("spotify", "spotify"),
    ("swisscom", "swisscom"),
    ("swiss post", "post"),
    ("trust wallet", "trustwallet"),
    ("ups", "ups"),
    ("usps", "usps"),
    ("visa", "visa"),
    ("volksbank", "volksbank"),
    ("wells fargo", "wellsfargo"),
    ("wetransfer", "wetransfer"),
    ("zimbra", "zimbra"),
    ("イオン", "aeon"),
    ("えきねっと", "eki-net"),
];

/// Whether a sender's name is a well-known one that its address does not bear out.
fn claims_brand(from: &Address) -> bool {
    let (name, domain) = (from.name.to_lowercase(), domain(from));
    let claimed = |brand: &str| {
        name.match_indices(brand).any(|(at, _)| {
            let before = name[..at].chars().next_back();
            let after = name[at + brand.len()..].chars().next();
            !brand.is_ascii()
                || ![before, after].into_iter().flatten().any(|neighbour| neighbour.is_ascii_alphanumeric())
        })
    };
    BRANDS.iter().any(|(brand, owner)| !domain.is_empty() && !domain.contains(owner) && claimed(brand))
}

/// Mail services where anybody gets an address.
const FREEMAIL: [&str; 32] = [
    "126.com",
    "139.com",
    "163.com",
    "aol.com",
    "att.net",
    "bk.ru",
    "freenet.de",
    "gmail.com",
    "gmx.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hotmail.com",
    "icloud.com",
    "inbox.ru",
    "laposte.net",
    "libero.it",
    "list.ru",
    "live.com",
    "mail.com",
    "mail.ru",
    "msn.com",
    "naver.com",
    "orange.fr",
    "outlook.com",
    "proton.me",
    "protonmail.com",
    "qq.com",
    "rediffmail.com",
    "web.de",
    "yandex.com",
    "yandex.ru",
];

fn is_freemail(domain: &str) -> bool {
    FREEMAIL.contains(&domain)
        || domain.starts_with("yahoo.")
        || domain.starts_with("hotmail.")
        || domain.starts_with("outlook.")
        || domain.starts_with("live.")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[track_caller]
    fn check(message: &str, holds: &[&str]) {
        let read = Message::parse(Bytes::copy_from_slice(message.as_bytes()));
        let holding = holding(&read);
        let holding: Vec<_> = holding.lines().collect();
        assert_eq!(holding, holds, "{message}");
    }

    #[test]
    fn checks_compare_parts_of_a_message() {
        check("From: a@b.example\nTo: c@d.example\n\ntext", &[]);
        check("From: a@mx.b.example\nReply-To: c@b.example\n\n", &[]);
        check("From: a@b.co.uk\nReply-To: c@d.co.uk\n\n", &["reply-to-other-domain"]);
        check(
            "From: a@b.example\nReply-To: c@gmail.com\n\n",
            &["reply-to-other-domain", "reply-to-freemail"],
        );
        check("From: a@b.example\nTo: A@b.example\n\n", &["from-is-to"]);
        check(
            "From: \"d.example support\" <a@b.example>\nTo: c@mx.d.example\n\n",
            &["from-name-is-recipient"],
        );
        check("From: \"ceo@d.example\" <a@gmail.com>\n\n", &["from-freemail", "from-name-other-address"]);
        check("From: PayPal Service <a@b.example>\n\n", &["from-name-brand"]);
        check("From: PayPal Service <a@mail.paypal.com>\n\n", &[]);
        check("From: Groups of people <a@b.example>\n\n", &[]);
        check("Subject: for C@d.example\nTo: c@d.example\n\n", &["subject-holds-recipient"]);
        check(
            "To: c@d.example\n\nDear c@d.example, see http://x.example/?e=c%40d.example",
            &["body-greets-recipient", "url-holds-recipient", "little-text-with-link"],
        );
        check("Content-Type: text/html\n\n<p>x", &["html-without-text"]);
        check("Content-Type: application/octet-stream; name=Invoice.SHTML\n\n", &["html-attachment"]);
    }

    #[test]
    fn sites_are_what_somebody_registered() {
        for (domain, registered) in [
            ("a.b.example", "b.example"),
            ("b.example", "b.example"),
            ("a.b.co.uk", "b.co.uk"),
            ("b.co.uk", "b.co.uk"),
            ("mail.abcd.de", "abcd.de"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(site(domain), registered);
        }
    }
}
