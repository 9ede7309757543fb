"""Messages for the tests: 200 varied ones made from one seed, and the ham, phish and GTUBE of demo and custody.

Guarantees: the same bytes in every run; every line ends in CRLF; no bare CR, bare LF or NUL (the gate refuses those
by design, test_smuggling.py is about them). Leaves out realism: these are about bytes, not about judging.
"""

import base64
import random
from dataclasses import dataclass

COUNT = 200
BIG = 5 * 1024 * 1024
# The published test string of anti-spam filters (Generic Test for Unsolicited Bulk Email), in two pieces so that this
# file itself is not taken for spam.
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@dataclass(frozen=True)
class Sample:
    """A message and how it is handed over: `utf8` asks for SMTPUTF8, `eight` for BODY=8BITMIME."""

    name: str
    raw: bytes
    eight: bool = False
    utf8: bool = False


def lines(*parts):
    return b"".join(part + b"\r\n" for part in (p.encode() if isinstance(p, str) else p for p in parts))


def head(number, *more, subject="message"):
    return lines(
        f"From: Sender {number} <sender{number}@partner.example>",
        "To: Someone <someone@example.org>",
        f"Subject: {subject} {number}",
        f"Message-ID: <sample-{number}@partner.example>",
        "Date: Mon, 01 Jun 2026 10:00:00 +0000",
        *more,
    )


def samples():
    """All 200; the named cases first, then mixtures of them."""
    made = [Sample(name, raw, **how) for name, raw, how in _named()]
    dice = random.Random(20260601)
    while len(made) < COUNT:
        made.append(_mixture(len(made), dice))
    return made


def _named():
    text = lines("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit")
    plain = [
        ("plain", head(0) + lines("", "Good morning,", "", "the minutes are below.")),
        ("empty body", head(1) + lines("")),
        ("headers only, no separator", head(2)),
        ("body of one empty line", head(3) + lines("", "")),
        ("body of CRLF only", head(4) + lines("") + b"\r\n" * 40),
        ("no headers at all", lines("this is just text", "and more of it")),
        ("no headers, first line empty", lines("", "a body without any header")),
        ("nothing but CRLF", b"\r\n"),
        ("no Subject", lines("From: a@partner.example", "To: b@example.org", "", "no subject")),
        ("no From", lines("Subject: who sent this", "", "nobody")),
        ("Subject empty", lines("From: a@partner.example", "Subject:", "", "text")),
        ("Subject twice", lines("Subject: one", "Subject: two", "From: a@partner.example", "", "text")),
        ("dot first line", head(20) + lines("", ".", "after the dot")),
        ("dots first line", head(21) + lines("", "..", "after")),
        ("dot and text first line", head(22) + lines("", ".hidden file", "after")),
        ("dot line inside", head(23) + lines("", "before", ".", "after")),
        ("dot lines in a row", head(24) + lines("", ".", ".", ".", "..", "...", "....", ".")),
        ("dot last line", head(25) + lines("", "before", ".")),
        ("dots inside lines", head(26) + lines("", "a.b", "a .", ". a", ".. a", " .", "\t.", ". ", "..\t")),
        ("dot as a header name", lines(".", "Subject: dot before headers", "", "text")),
        ("dot at the very start", lines(".Subject: stuffed name", "From: a@partner.example", "", "text")),
        ("only a dot", lines(".")),
        ("only two dots", lines("..")),
        ("dot folded in a header", head(27, "X-Fold: a", " .", "\t.", " ..b") + lines("", "text")),
        ("997 octets", head(30) + lines("", "a" * 997)),
        ("998 octets", head(31) + lines("", "b" * 998)),
        ("999 octets", head(32) + lines("", "c" * 999)),
        ("1000 octets", head(33) + lines("", "d" * 1000)),
        ("2047 octets", head(34) + lines("", "e" * 2047)),
        ("2048 octets", head(35) + lines("", "f" * 2048)),
        ("2049 octets", head(36) + lines("", "g" * 2049)),
        ("long line of dots", head(37) + lines("", "." * 5000)),
        ("65536 octets", head(38) + lines("", "h" * 65536)),
        ("one line of 1 MB", head(39) + lines("", "i" * 1_000_000)),
        ("long header line", head(40, "X-Long: " + "j" * 3000) + lines("", "text")),
        ("long header folded", head(41, "X-Long: " + "\r\n ".join(["k" * 70] * 60)) + lines("", "text")),
        ("many headers", head(42, *[f"X-Number-{n}: value {n}" for n in range(900)]) + lines("", "text")),
        ("same header often", head(43, *["X-Same: again"] * 300) + lines("", "text")),
        ("tabs", head(44, "X-Tab:\tone\ttwo", "\tthree") + lines("", "\ttab\t", "a\t\t\tb", "\t")),
        ("trailing white space", head(45, "X-Trail: value   ", "X-Only:   ") + lines("", "a ", "b\t", "   ", " \t ")),
        ("header without space", lines("Subject:glued", "From:a@partner.example", "", "text")),
        ("space before colon", lines("Subject : spaced", "From: a@partner.example", "", "text")),
        ("junk line among headers", lines("Subject: junk follows", "this is no header", "From: a@b", "", "text")),
        ("mbox From line inside", head(46) + lines("", "From here on it goes", ">From there", "From ")),
        ("control characters", head(47) + lines("", bytes(n for n in range(1, 32) if n not in (10, 13)) + b"\x7f")),
        ("boundary never closed", _multipart(48, ["one", "two"], close=False)),
        ("boundary doubled", head(49, "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=a; boundary=b")
         + lines("", "--a", "", "one", "--b", "", "two", "--a--", "--b--")),
        ("mime two parts", _multipart(50, ["one", "two"])),
        ("mime nested", _nested(51, 12)),
        ("message in message", head(52, "MIME-Version: 1.0", "Content-Type: message/rfc822") + lines("")
         + head(53) + lines("", ".", "inner")),
        ("html", head(54, "MIME-Version: 1.0", "Content-Type: text/html; charset=utf-8")
         + lines("", "<html><body><p>Dear team,</p><p>see you at ten.</p></body></html>")),
        ("base64", head(55, "MIME-Version: 1.0", "Content-Type: text/plain", "Content-Transfer-Encoding: base64")
         + lines("") + _base64(b"The quick brown fox. " * 200)),
        ("base64 broken", head(56, "Content-Transfer-Encoding: base64") + lines("", "@@@=not===base64", "Zm9v=YmFy")),
        ("quoted-printable", head(57, "MIME-Version: 1.0", "Content-Transfer-Encoding: quoted-printable")
         + lines("", "caf=C3=A9 =", "soft=20", "=2E", ".=2E", "=ZZ invalid =")),
        ("5 MB attachment", _attachment(58, BIG)),
        ("300 kB attachment", _attachment(59, 300_000)),
        ("encoded words", head(60, "X-Word: =?utf-8?B?w6TDtsO8?= =?iso-8859-1?Q?=E4=F6?=") + lines("", "text")),
        ("X-Spam look-alike in the body", head(61) + lines("", "X-Spam-Flag: YES", "Received: from nowhere")),
    ]
    eight = [
        ("utf-8 body", head(70) + text + lines("", "Grüße aus Köln, 日本語, emoji 🎉")),
        ("latin-1 body", head(71, "Content-Type: text/plain; charset=iso-8859-1") + lines("", b"caf\xe9 \xfc\xdf")),
        ("all 8-bit octets", head(72) + lines("", bytes(range(128, 256)))),
        ("invalid utf-8", head(73) + text + lines("", b"\xc3\x28 \xa0\xa1 \xed\xa0\x80 \xf8\x88\x80\x80\x80 \xff\xfe")),
        ("8-bit long line", head(74) + lines("", b"\xe9" * 4000)),
        ("8-bit and dots", head(75) + lines("", b".\xe9", b"..\xff", b".", b"\xa0.")),
        ("raw 8-bit Subject", lines(b"Subject: caf\xe9 au lait", "From: a@partner.example", "", "text")),
        ("utf-16 body", head(76, "Content-Type: text/plain; charset=utf-16") + lines("", _utf16())),
    ]
    international = [
        ("utf-8 Subject", lines("Subject: Grüße 日本語", "From: a@partner.example", "", "Text mit Umlauten: äöü")),
        ("utf-8 From and To", lines("From: Jürgen <a@partner.example>", "To: Zoë <b@example.org>", "Subject: x", "", "é")),
        ("utf-8 header name", lines("X-Größe: ja", "Subject: header name", "From: a@partner.example", "", "text")),
    ]
    yield from ((name, raw, {}) for name, raw in plain)
    yield from ((name, raw, {"eight": True}) for name, raw in eight)
    yield from ((name, raw, {"eight": True, "utf8": True}) for name, raw in international)


def _mixture(number, dice):
    """A message of randomly chosen pieces of the cases above."""
    pieces = [
        lambda: ".", lambda: "..", lambda: ". " + "x" * dice.randrange(80), lambda: "", lambda: "   ", lambda: "\t",
        lambda: "word " * dice.randrange(1, 30), lambda: "y" * dice.choice([76, 78, 997, 998, 999, 1500, 4096]),
        lambda: "äöü ß 語 " * dice.randrange(1, 9), lambda: bytes(dice.choices(range(128, 256), k=dice.randrange(60))),
        lambda: "." * dice.randrange(1, 12), lambda: "--boundary", lambda: "From the start", lambda: "=3D=\t",
        lambda: base64.b64encode(dice.randbytes(54)), lambda: " trailing \t ",
    ]
    headers = [f"X-Extra-{n}: " + "v" * dice.randrange(200) for n in range(dice.randrange(12))]
    body = [dice.choice(pieces)() for _ in range(dice.randrange(1, 120))]
    raw = head(number, *headers, subject="mixture") + lines("", *body)
    return Sample(f"mixture {number}", raw, eight=True)


def _multipart(number, parts, close=True):
    made = head(number, "MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="sep"') + lines("", "preamble")
    for part in parts:
        made += lines("--sep", "Content-Type: text/plain", "", part)
    return made + (lines("--sep--", "epilogue") if close else b"")


def _nested(number, depth):
    made = head(number, "MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="n0"') + lines("")
    for level in range(depth):
        made += lines(f"--n{level}", f'Content-Type: multipart/mixed; boundary="n{level + 1}"', "")
    made += lines(f"--n{depth}", "Content-Type: text/plain", "", "deep down", f"--n{depth}--")
    return made + b"".join(lines(f"--n{level}--") for level in reversed(range(depth)))


def _attachment(number, size):
    octets = random.Random(number).randbytes(size)
    return (
        head(number, "MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="sep"')
        + lines("", "--sep", "Content-Type: text/plain", "", "see attachment", "--sep",
                "Content-Type: application/octet-stream; name=data.bin",
                "Content-Disposition: attachment; filename=data.bin", "Content-Transfer-Encoding: base64", "")
        + _base64(octets)
        + lines("--sep--")
    )


def _base64(octets):
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


def _utf16():
    # Characters without an octet of 0, 10 or 13.
    return "漢字仮交文".encode("utf-16-le")


# ------------------------------------------------------------------------------------------- what the gate adds to it

ADDED = (b"received", b"delivered-to", b"return-path", b"x-original-to", b"x-gatepost", b"x-spam-")


def without_trace(raw):
    """The message without the header fields that servers and gate put on top of it."""
    while raw:
        line = raw[: raw.index(b"\n") + 1] if b"\n" in raw else raw
        name = line.split(b":")[0].lower()
        if b":" not in line or not any(name == known or known[-1:] == b"-" and name.startswith(known) for known in ADDED):
            return raw
        raw = raw[len(line) :]
        while raw[:1] in (b" ", b"\t"):
            fold = raw.find(b"\n") + 1 or len(raw)
            raw = raw[fold:]
    return raw


def trace_field(raw, name):
    """The first value of the header field `name`, unfolded; None if the message has none."""
    wanted = name.lower().encode()
    unfolded = raw.replace(b"\r\n", b"\n").split(b"\n\n", 1)[0]
    unfolded = unfolded.replace(b"\n ", b" ").replace(b"\n\t", b" ")
    for line in unfolded.split(b"\n"):
        field, colon, value = line.partition(b":")
        if colon and field.strip().lower() == wanted:
            return value.strip().decode(errors="replace")
    return None


# ------------------------------------------------------------------------------------------------- for judging by eye


def ham(message_id="ham@partner.example", to="alice@example.org"):
    return lines(
        "From: Karin Vogt <karin@partner.example>", f"To: {to}", "Subject: Minutes of Tuesday's planning meeting",
        f"Message-ID: <{message_id}>", "Date: Mon, 01 Jun 2026 10:00:00 +0000", "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii", "", "Hello,", "",
        "the minutes of Tuesday are below. We agreed to ship the second part in July;",
        "Jonas looks after the drawings, I ask the printer for a quote.", "", "Best regards", "Karin",
    )


def phish(message_id="phish@bank-login.example", to="alice@example.org"):
    """Spam beyond doubt, but not so much of it that the second threshold is reached."""
    return lines(
        "From: Bank Example <service@bank-login.example>", f"To: {to}", "Subject: About your account",
        f"Message-ID: <{message_id}>", "Date: Mon, 01 Jun 2026 10:00:00 +0000", "MIME-Version: 1.0",
        "Content-Type: text/html; charset=utf-8", "", "<html><body><p>Dear customer,</p>",
        "<p>your account has been suspended. Please verify your account and enter your password:</p>",
        '<p><a href="http://192.0.2.77/bank/login.php?verify=1">https://www.bank.example/login</a></p>',
        "<p>Bank Example</p></body></html>",
    )


def gtube(message_id="gtube@bulk.example", to="alice@example.org"):
    return lines(
        "From: Bulk Sender <bulk@bulk.example>", f"To: {to}", "Subject: Test of the spam filter",
        f"Message-ID: <{message_id}>", "Date: Mon, 01 Jun 2026 10:00:00 +0000", "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii", "", "This is the generic test for unsolicited bulk mail.", "",
        GTUBE, "",
    )
