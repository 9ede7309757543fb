"""Bytes are sacred: 200 varied messages, sent and read back with and without the gate, are equal byte for byte."""

import unittest

from case import Case, needs_gate
from messages import COUNT, BIG, samples, trace_field, without_trace

STAMP_EVERYTHING = {
    # Nothing held back: this is about bytes, whatever the verdict.
    "policies": {
        "default": {
            "smtp": {"spam": "stamp", "certain": "stamp", "malware": "stamp", "unscanned": "stamp"},
            "pop3": {"spam": "stamp", "certain": "stamp", "malware": "stamp"},
        }
    }
}


class SampleTest(unittest.TestCase):
    def test_the_samples_are_what_they_claim(self):
        made = samples()
        self.assertEqual([sample.raw for sample in made], [sample.raw for sample in samples()], "not deterministic")
        self.assertEqual(len(made), COUNT)
        self.assertEqual(len({sample.name for sample in made}), COUNT)
        self.assertTrue(any(len(sample.raw) > BIG for sample in made))
        for sample in made:
            with self.subTest(sample.name):
                clean = sample.raw.replace(b"\r\n", b"")
                self.assertFalse({0, 10, 13} & set(clean))
                self.assertTrue(sample.raw.endswith(b"\r\n"))
                self.assertEqual(sample.eight or sample.raw.isascii(), True)

    def test_trace_is_taken_off_the_top_only(self):
        table = [
            (b"Received: a\r\n\tb\r\nX-Spam-Flag: NO\r\nSubject: x\r\n", b"Subject: x\r\n"),
            (b"Subject: x\r\nReceived: a\r\n", b"Subject: x\r\n" b"Received: a\r\n"),
            (b"X-Gatepost: a\r\n\r\nReceived: b\r\n", b"\r\nReceived: b\r\n"),
            (b"X-Spammer: a\r\n", b"X-Spammer: a\r\n"),
            (b"Received no colon\r\n", b"Received no colon\r\n"),
            (b"", b""),
        ]
        for raw, left in table:
            self.assertEqual(without_trace(raw), left)


class BytesTest(Case):
    gate_settings = STAMP_EVERYTHING

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.samples = samples()
        cls._deliver("alice", cls.direct("mx"))
        cls._deliver("bob", cls.door("mx"))
        for user in ("alice", "bob"):
            cls.lab.wait_delivered(user, COUNT, 120)
        cls.expected = {number: sample for number, sample in enumerate(cls.samples)}

    @classmethod
    def _deliver(cls, user, port):
        case = cls("test_pop3")
        session = case.smtp(port=port)
        for number, sample in enumerate(cls.samples):
            options = (["BODY=8BITMIME"] if sample.eight else []) + (["SMTPUTF8"] if sample.utf8 else [])
            for code, text in (
                session.mail("sender@partner.example", options),
                session.rcpt(f"{user}+{number}@example.org"),
                session.data(sample.raw),
            ):
                if code // 100 != 2:
                    raise AssertionError(f"message {number} ({sample.name}) to port {port}: {code} {text}")
        session.quit()
        case.doCleanups()

    # -- what the real servers made of it, read without the gate: the same, whichever way it went in

    def test_delivered_through_the_gate_as_without_it(self):
        without, through = self._files("alice"), self._files("bob")
        self.assertEqual(sorted(without), list(range(COUNT)))
        self.assertEqual(sorted(through), list(range(COUNT)))
        for number, sample in self.expected.items():
            with self.subTest(number=number, name=sample.name):
                same(self, without_trace(without[number]), without_trace(through[number]))

    def test_the_real_server_keeps_the_octets(self):
        """The yardstick itself: what was sent is in the file, but for a blank line Postfix adds where headers end early."""
        files = self._files("alice")
        for number, sample in self.expected.items():
            with self.subTest(number=number, name=sample.name):
                sent = without_trace(sample.raw)
                got = without_trace(files[number]).replace(b"\n", b"\r\n")
                at = first_difference(sent, got)
                if got[at : at + 2] == b"\r\n" and got[:at] + got[at + 2 :] == sent:
                    continue
                if sample.name == "space before colon":  # Postfix takes the space out
                    sent = sent.replace(b"Subject :", b"Subject:")
                same(self, sent, got)

    def _files(self, user):
        found = {}
        for path in self.lab.delivered(user):
            raw = path.read_bytes()
            found[number_of(raw)] = raw
        return found

    # -- read back through the gate

    def test_pop3(self):
        self._read_back(self._by_pop3)

    def test_pop3s(self):
        self._read_back(lambda user, port: self._by_pop3(user, port, "pop3s"), "pop3s")

    def test_imap(self):
        self._read_back(self._by_imap, "imap")

    def test_imaps(self):
        self._read_back(lambda user, port: self._by_imap(user, port, "imaps"), "imaps")

    def test_curl_pop3(self):
        self._read_back(lambda user, port: self._by_curl(user, f"pop3://localhost:{port}/{{}}"), "pop3")

    def test_curl_imap(self):
        self._read_back(lambda user, port: self._by_curl(user, f"imap://localhost:{port}/INBOX/;MAILINDEX={{}}"), "imap")

    def _read_back(self, client, door="pop3"):
        for user in ("alice", "bob"):
            without = client(user, self.direct(door))
            through = client(user, self.door(door))
            self.assertEqual(sorted(without), list(range(COUNT)))
            self.assertEqual(sorted(through), list(range(COUNT)))
            for number, sample in self.expected.items():
                with self.subTest(user=user, number=number, name=sample.name):
                    same(self, without_trace(without[number]), without_trace(through[number]))

    def _by_pop3(self, user, port, door="pop3"):
        session = self.pop3(user, door, port)
        count, _ = session.stat()
        found = {}
        for position in range(1, count + 1):
            _, got, _ = session.retr(position)
            raw = b"".join(line + b"\r\n" for line in got)
            found[number_of(raw)] = raw
        session.quit()
        return found

    def _by_imap(self, user, port, door="imap"):
        session = self.imap(user, door, port)
        _, (count,) = session.select("INBOX", readonly=True)
        found = {}
        for position in range(1, int(count) + 1):
            status, parts = session.fetch(str(position), "(BODY.PEEK[])")
            self.assertEqual(status, "OK")
            raw = parts[0][1]
            found[number_of(raw)] = raw
        session.logout()
        return found

    def _by_curl(self, user, address):
        """All messages in one run of curl, over one connection."""
        folder = self.lab.folder / "tmp" / "curl"
        folder.mkdir(exist_ok=True)
        lines = ["silent", "show-error", "fail", f'user = "{user}:{user}-secret"']
        for position in range(1, COUNT + 1):
            lines += [f'url = "{address.format(position)}"', f'output = "{folder}/{position}"']
        (folder / "config").write_text("\n".join(lines))
        self.lab.run("curl", "-K", folder / "config")
        found = {}
        for position in range(1, COUNT + 1):
            raw = (folder / str(position)).read_bytes()
            found[number_of(raw)] = raw
        return found

    @needs_gate
    def test_the_gate_leaves_its_stamp(self):
        for number, raw in self._files("bob").items():
            with self.subTest(number=number, name=self.expected[number].name):
                for name in ("X-Spam-Flag", "X-Spam-Score", "X-Spam-Status", "X-Gatepost"):
                    self.assertIsNotNone(trace_field(raw, name), f"no {name}:\n{raw[:800]!r}")
                self.assertIn(trace_field(raw, "X-Spam-Flag"), ("YES", "NO"))


@needs_gate
class ClearLegsTest(BytesTest):
    """The same over legs without TLS between the gate and the servers."""

    gate_settings = STAMP_EVERYTHING | {"legs": "clear"}


def number_of(raw):
    """Which sample this is: the +detail of the address it was delivered to."""
    address = trace_field(raw, "Delivered-To")
    if not address or "+" not in address:
        raise AssertionError(f"no Delivered-To with a number: {raw[:400]!r}")
    return int(address.split("+")[1].split("@")[0])


def first_difference(left, right):
    return next((n for n, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))


def same(case, left, right):
    """Equal octets, or a message that shows where they part."""
    if left == right:
        return
    at = first_difference(left, right)
    case.fail(
        f"{len(left)} and {len(right)} octets, first difference at {at}:\n"
        f"  without the gate: …{left[max(0, at - 60) : at + 60]!r}…\n  through the gate: …{right[max(0, at - 60) : at + 60]!r}…"
    )


if __name__ == "__main__":
    unittest.main()
