//! The texts that rules and classifiers read, made once for each message.
//!
//! *As shown*: transfer encoding, character set and HTML are undone, characters without width are taken out, a run of white
//! space is one space, and a paragraph is one line. *Raw*: only transfer encoding and character set are undone.
//! Together at most [`TEXT_MAX`] octets each. All text parts count, whatever a client would choose of them.

use std::fmt::Write;

use super::{
    Message, charset,
    defect::{Defect, DefectKind, Defects},
    html,
    limits::{HTML_MAX, TEXT_MAX, URLS_MAX},
    mime::{Part, Reading},
};
use crate::mail::encoding::Encoding;

/// The views of one message.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// The text of all parts as shown: a paragraph a line.
    pub body: String,
    /// The text of all parts, decoded, HTML as it is written.
    pub raw: String,
    /// Where the links lead, as written in HTML or text; one that only repeats the one before is left out. At most
    /// [`URLS_MAX`].
    pub urls: Vec<String>,
    /// The file names of the parts, as shown.
    pub attachments: Vec<String>,
    /// What was odd, as found when reading the structure and when decoding the text; in order of place.
    pub(super) defects: Vec<Defect>,
}

impl Views {
    pub(super) fn of(message: &Message, defects: Defects) -> Self {
        let mut maker = Maker { views: Self::default(), defects };
        for junk in
            message.headers().iter().filter(|header| header.name().is_empty() && !header.is_mbox_line())
        {
            // Some clients end the header at a line that is no field, and show what follows.
            maker.text(&charset::decode(junk.raw(), None).0);
        }
        for part in message.parts() {
            maker.views.attachments.extend(part.name().map(str::to_owned));
            maker.part(part);
        }
        maker.views.defects = maker.defects.finish();
        maker.views
    }
}

struct Maker {
    views: Views,
    defects: Defects,
}

impl Maker {
    fn part(&mut self, part: &Part) {
        if !matches!(part.reading(), Reading::Text | Reading::Html) {
            return;
        }
        if self.views.raw.len() >= TEXT_MAX {
            self.defects.add(DefectKind::TooMuchText, part.at());
            return;
        }
        let html = part.reading() == Reading::Html;
        let text = self.decode(part);
        let room = TEXT_MAX - self.views.raw.len();
        if text.len() > room.min(if html { HTML_MAX } else { TEXT_MAX }) {
            self.defects.add(DefectKind::TooMuchText, part.at());
        }
        let text = clip(&text, room);
        self.views.raw.push_str(text);
        self.views.raw.push('\n');
        if html {
            let rendered = html::render(clip(text, HTML_MAX));
            rendered.links.into_iter().for_each(|link| self.url(link));
            self.text(&rendered.text);
        } else {
            self.text(text);
        }
    }

    fn decode(&mut self, part: &Part) -> String {
        // More than this would be clipped in any encoding; four octets of base64 are three, `=XX` is one.
        let content = part.content();
        let content = &content[..content.len().min(4 * TEXT_MAX)];
        let (octets, clean) = part.encoding().decode(content);
        if !clean {
            let kind = match part.encoding() {
                Encoding::Base64 => DefectKind::BadBase64,
                _ => DefectKind::BadQuotedPrintable,
            };
            self.defects.add(kind, part.at());
        }
        let (mut text, known) = charset::decode(&octets, part.charset());
        if !known {
            self.defects.add(DefectKind::UnknownCharset, part.at());
        }
        if !clean && part.encoding() == Encoding::Base64 {
            // It may be plain text, or have plain text after it; some clients show that.
            text.push('\n');
            text.push_str(&charset::decode(content, part.charset()).0);
        }
        text
    }

    /// Adds text to the body as shown.
    fn text(&mut self, text: &str) {
        let body = &mut self.views.body;
        if !body.is_empty() && !body.ends_with('\n') {
            body.push('\n');
        }
        normalize(text, body);
        for url in urls_in(text) {
            self.url(url.to_owned());
        }
    }

    fn url(&mut self, url: String) {
        if self.views.urls.len() < URLS_MAX && !url.is_empty() && self.views.urls.last() != Some(&url) {
            self.views.urls.push(url);
        }
    }
}

/// The longest front of `text` that is at most `max` octets.
fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Writes text as shown: white space is one space, a paragraph one line.
fn normalize(text: &str, shown: &mut String) {
    let (mut gap, mut breaks) = (false, 0);
    for character in text.chars() {
        match character {
            '\n' => (gap, breaks) = (true, breaks + 1),
            _ if character.is_whitespace() => gap = true,
            _ if is_unseen(character) => {}
            _ => {
                if gap && !shown.is_empty() && !shown.ends_with('\n') {
                    shown.push(if breaks > 1 { '\n' } else { ' ' });
                }
                (gap, breaks) = (false, 0);
                shown.push(character);
            }
        }
    }
}

/// Characters without width: they part words for a machine and not for a reader.
fn is_unseen(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{8}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fe00}'..='\u{fe0f}'
    )
}

/// The URLs that are written out with `http://` or `https://`.
fn urls_in(text: &str) -> impl Iterator<Item = &str> {
    let ends = |character: char| {
        character.is_whitespace() || matches!(character, '<' | '>' | '"' | '`' | '|' | '{' | '}')
    };
    memchr::memmem::find_iter(text.as_bytes(), b"://").take(URLS_MAX).filter_map(move |at| {
        let scheme = ["https", "http"].into_iter().find(|scheme| {
            at.checked_sub(scheme.len())
                .and_then(|start| text.get(start..at))
                .is_some_and(|written| written.eq_ignore_ascii_case(scheme))
        })?;
        let rest = &text[at..];
        let url_len = rest.char_indices().take(URL_LEN_MAX).find(|&(_, character)| ends(character));
        let end = url_len.map_or_else(|| rest.floor_char_boundary(URL_LEN_MAX), |(len, _)| len);
        Some(
            text[at - scheme.len()..at + end]
                .trim_end_matches(['.', ',', ';', ':', ')', ']', '\'', '!', '?']),
        )
    })
}

/// Characters of a URL that are read.
const URL_LEN_MAX: usize = 2048;

/// The kinds of defects, one a line, each once: what the `defect` target of rules reads.
pub(crate) fn defect_names(defects: &[Defect]) -> String {
    let mut kinds: Vec<_> = defects.iter().map(|defect| defect.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.iter().fold(String::new(), |mut names, kind| {
        let _ = writeln!(names, "{}", kind.as_str());
        names
    })
}
