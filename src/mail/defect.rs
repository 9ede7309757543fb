//! Oddities noticed while parsing, each with its place. Data only: what they are worth is for rules to say.

/// What was odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefectKind {
    /// The first line is an mbox `From ` line, not a header field.
    MboxLine,
    /// The first line begins with white space: a continuation of nothing.
    LeadingContinuation,
    /// A line in the header is no field: no colon, or a name with characters that no name has (RFC 5322 section 2.2).
    NotAField,
    /// White space stands between a field's name and its colon (RFC 5322 section 4.5).
    SpaceBeforeColon,
    /// A continuation line holds only white space (RFC 5322 section 4.2, obs-FWS).
    BlankFold,
    /// No empty line parts the header from the body.
    NoSeparator,
    /// There is no header field at all.
    NoHeader,
    /// More header fields than are read.
    TooManyHeaders,
    /// A field that may stand once stands several times (RFC 5322 section 3.6).
    RepeatedField,
    /// A header field holds octets over 127 that are not UTF-8 (RFC 6532).
    EightBitHeader,
    /// A NUL octet.
    Nul,
    /// A CR without its LF.
    BareCr,
    /// Some lines end in CRLF and some in LF alone.
    MixedLineEnds,
    /// A line is longer than 998 octets (RFC 5322 section 2.1.1).
    LongLine,
    /// A Content-Type that cannot be read; it was taken as text/plain.
    BadContentType,
    /// A parameter stands twice in one Content-Type or Content-Disposition.
    RepeatedParameter,
    /// A multipart has no boundary parameter.
    NoBoundary,
    /// A multipart's boundary never occurs.
    NoParts,
    /// A multipart's closing boundary is missing.
    NotClosed,
    /// An unknown Content-Transfer-Encoding; the content was taken as it stands.
    UnknownEncoding,
    /// A multipart or message part has a transfer encoding that it must not have (RFC 2045 section 6.4).
    EncodedComposite,
    /// Base64 with characters or padding out of place; it was decoded all the same.
    BadBase64,
    /// A quoted-printable escape that is none; it was kept as text.
    BadQuotedPrintable,
    /// The character set is not known; the content was taken as UTF-8 or Windows-1252.
    UnknownCharset,
    /// Parts are nested deeper than is read.
    TooDeep,
    /// More parts than are read.
    TooManyParts,
    /// More text than is judged.
    TooMuchText,
}

impl DefectKind {
    /// The name in JSON and in the `defect` target of rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MboxLine => "mbox-line",
            Self::LeadingContinuation => "leading-continuation",
            Self::NotAField => "not-a-field",
            Self::SpaceBeforeColon => "space-before-colon",
            Self::BlankFold => "blank-fold",
            Self::NoSeparator => "no-separator",
            Self::NoHeader => "no-header",
            Self::TooManyHeaders => "too-many-headers",
            Self::RepeatedField => "repeated-field",
            Self::EightBitHeader => "eight-bit-header",
            Self::Nul => "nul",
            Self::BareCr => "bare-cr",
            Self::MixedLineEnds => "mixed-line-ends",
            Self::LongLine => "long-line",
            Self::BadContentType => "bad-content-type",
            Self::RepeatedParameter => "repeated-parameter",
            Self::NoBoundary => "no-boundary",
            Self::NoParts => "no-parts",
            Self::NotClosed => "not-closed",
            Self::UnknownEncoding => "unknown-encoding",
            Self::EncodedComposite => "encoded-composite",
            Self::BadBase64 => "bad-base64",
            Self::BadQuotedPrintable => "bad-quoted-printable",
            Self::UnknownCharset => "unknown-charset",
            Self::TooDeep => "too-deep",
            Self::TooManyParts => "too-many-parts",
            Self::TooMuchText => "too-much-text",
        }
    }
}

/// One oddity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Defect {
    /// What was odd.
    pub kind: DefectKind,
    /// Where: octets from the start of the message. Inside content that was itself decoded, the start of the encoded part.
    pub at: u64,
}

/// The defects found so far, at most [`Defects::MAX`] of them and each kind at most [`Defects::OF_A_KIND`] times.
#[derive(Clone, Debug, Default)]
pub(super) struct Defects {
    found: Vec<Defect>,
}

impl Defects {
    /// More defects say nothing more about a message.
    pub(super) const MAX: usize = 100;
    /// More of one kind would only hide the others.
    pub(super) const OF_A_KIND: usize = 5;

    pub(super) fn add(&mut self, kind: DefectKind, at: usize) {
        let defect = Defect { kind, at: at as u64 };
        let alike = self.found.iter().filter(|known| known.kind == kind).count();
        if self.found.len() < Self::MAX && alike < Self::OF_A_KIND && !self.found.contains(&defect) {
            self.found.push(defect);
        }
    }

    pub(super) fn finish(mut self) -> Vec<Defect> {
        self.found.sort_by_key(|defect| (defect.at, defect.kind));
        self.found
    }
}
