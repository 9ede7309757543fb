//! HTML as a reader sees it: text, with line breaks where blocks begin and end, and the links in it.
//!
//! Scripts, styles and comments are not shown. Hidden text is not told from visible text yet.

use std::convert::Infallible;

use html5gum::{
    Span, Tokenizer,
    emitters::callback::{CallbackEmitter, CallbackEvent},
};

use super::limits::URLS_MAX;

/// Text and links of some HTML.
#[derive(Clone, Debug, Default)]
pub(super) struct Rendered {
    /// The text; white space as in the source, an empty line where a block begins or ends.
    pub(super) text: String,
    /// The values of `href`, `src` and `action`, in order.
    pub(super) links: Vec<String>,
}

/// Renders HTML.
pub(super) fn render(html: &str) -> Rendered {
    let mut reader = Reader::default();
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
        reader.take(&event);
        None
    });
    emitter.naively_switch_states(true);
    // Reading from a string cannot fail.
    let Ok(()) = Tokenizer::new_with_emitter(html, emitter).finish();
    reader.rendered
}

#[derive(Default)]
struct Reader {
    rendered: Rendered,
    /// Inside an element whose content is not shown.
    dropped: Option<&'static [u8]>,
    /// The last attribute's name was that of a link.
    link: bool,
}

/// Elements whose content is not shown.
const DROPPED: [&[u8]; 5] = [b"script", b"style", b"title", b"noembed", b"template"];

impl Reader {
    fn take(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.tag(name);
                self.dropped = self.dropped.or_else(|| DROPPED.into_iter().find(|dropped| dropped == name));
                self.link = false;
            }
            CallbackEvent::EndTag { name } => {
                self.tag(name);
                if self.dropped == Some(*name) {
                    self.dropped = None;
                }
            }
            CallbackEvent::AttributeName { name } => {
                self.link = matches!(*name, b"href" | b"src" | b"action" | b"background");
            }
            CallbackEvent::AttributeValue { value } if self.link && self.rendered.links.len() < URLS_MAX => {
                self.rendered.links.push(String::from_utf8_lossy(value).trim().to_owned());
            }
            CallbackEvent::String { value } if self.dropped.is_none() => {
                self.rendered.text.push_str(&one_line(&String::from_utf8_lossy(value)));
            }
            _ => {}
        }
    }

    fn tag(&mut self, name: &[u8]) {
        match name {
            b"td" | b"th" | b"img" | b"input" | b"button" | b"option" => self.rendered.text.push(' '),
            _ if is_block(name) && !self.rendered.text.ends_with("\n\n") => {
                self.rendered.text.push_str("\n\n");
            }
            _ => {}
        }
    }
}

/// A line end in HTML is but a space.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn is_block(name: &[u8]) -> bool {
    matches!(
        name,
        b"address"
            | b"article"
            | b"aside"
            | b"blockquote"
            | b"body"
            | b"br"
            | b"caption"
            | b"center"
            | b"dd"
            | b"div"
            | b"dl"
            | b"dt"
            | b"fieldset"
            | b"figure"
            | b"footer"
            | b"form"
            | b"h1"
            | b"h2"
            | b"h3"
            | b"h4"
            | b"h5"
            | b"h6"
            | b"head"
            | b"header"
            | b"hr"
            | b"html"
            | b"li"
            | b"main"
            | b"nav"
            | b"ol"
            | b"p"
            | b"pre"
            | b"section"
            | b"table"
            | b"tbody"
            | b"tfoot"
            | b"thead"
            | b"tr"
            | b"ul"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_the_text() {
        for (html, text) in [
            ("<b>bold</b> move", "bold move"),
            ("one<br>two", "one\n\ntwo"),
            ("<p>one</p><p>two</p>", "\n\none\n\ntwo\n\n"),
            ("a&amp;b &#65;&euro;&nbsp;x", "a&b A\u{20ac}\u{a0}x"),
            ("<style>p{}</style><script>x('<p>')</script>shown", "shown"),
            ("via<!-- x -->gra", "viagra"),
            ("<td>a</td><td>b</td>", " a  b "),
            ("wrapped\r\nline", "wrapped line"),
            ("a < b", "a < b"),
            ("", ""),
        ] {
            assert_eq!(render(html).text, text, "{html}");
        }
    }

    #[test]
    fn links_are_collected() {
        let html =
            r#"<a href="http://a.example/x?a=1&amp;b=2" title=t>t</a><img src=' cid:1 '><form action=/go>"#;
        assert_eq!(render(html).links, ["http://a.example/x?a=1&b=2", "cid:1", "/go"]);
    }
}
