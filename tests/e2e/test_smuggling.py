"""One message in is at most one message out, however its end is spelt; and nothing crosses into TLS from outside it."""

import contextlib
import socket
import ssl
import threading
import time
import unittest

from case import Case, needs_gate
from messages import trace_field

# What some server somewhere takes, or once took, for the end of data.
ENDS = [
    b"\n.\n", b"\n.\r\n", b"\n.\r", b"\r.\r", b"\r.\r\n", b"\r.\n", b"\r\n.\n", b"\r\n.\r", b"\n\n.\r\n", b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\0\n", b"\r\n\0.\0\r\n", b"\r\n.\r\r\n", b"\r\n\r.\r\n", b"\r\n.\r\r", b"\r\n.\n\r\n",
    b"\r\n.\r\r\n.\n", b"\n.\n\n.\r\n", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\t\r\n", b"\r\n..\r\n", b"\r\n..\n", b"\n..\r\n",
    b"\x0b.\x0b", b"\x0c.\x0c", b"\xc2\x85.\xc2\x85", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\r\n\xef\xbb\xbf.\r\n", b"\r\n\x2e\x0d\x00\x0a",
]
INNER = (
    b"MAIL FROM:<smuggled@evil.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"
    b"From: ceo@example.org\r\nSubject: smuggled\r\n\r\npay this bill\r\n.\r\n"
)
OUTER = b"From: a@partner.example\r\nSubject: outer\r\n\r\nfirst"


class SmugglingTest(Case):
    def _attempt(self, end, pieces):
        """Sends the outer message with the inner one behind `end`; returns how many messages arrived, from whom."""
        before = {path.name for path in self.lab.delivered("alice")}
        wire = self.wire("mx")
        wire.reply()
        wire.send(b"EHLO client.example\r\nMAIL FROM:<outer@partner.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
        for _ in range(4):
            last = wire.reply()
        self.assertEqual(last[:3], b"354")
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for piece in pieces(OUTER, end, INNER):
                wire.send(piece)
                time.sleep(0.002)
            # A final, undisputed end for those who saw none yet; a syntax error for those who did.
            wire.send(b"\r\n.\r\nQUIT\r\n")
        said = wire.rest(5)
        self.lab.wait_idle()
        fresh = [path.read_bytes() for path in self.lab.delivered("alice") if path.name not in before]
        return [trace_field(raw, "Return-Path") for raw in fresh], said

    def _smuggled(self, pieces):
        found = []
        for end in ENDS:
            senders, said = self._attempt(end, pieces)
            if self.gate:
                with self.subTest(end=end, said=said):
                    self.assertLessEqual(len(senders), 1)
                    self.assertNotIn("<smuggled@evil.example>", senders)
            if "<smuggled@evil.example>" in senders:
                found.append(end)
        return found

    def test_every_spelling_whole(self):
        found = self._smuggled(lambda outer, end, inner: [outer + end + inner])
        if not self.gate:
            # The yardstick: a stock Postfix of this version can be smuggled into, so that the test can find it.
            self.assertIn(b"\n.\n", found)

    def test_every_spelling_octet_by_octet(self):
        self._smuggled(lambda outer, end, inner: [outer, *(bytes([octet]) for octet in end), inner])

    def test_the_right_spelling_is_two_messages(self):
        senders, _ = self._attempt(b"\r\n.\r\n", lambda outer, end, inner: [outer + end + inner])
        self.assertEqual(sorted(senders), ["<outer@partner.example>", "<smuggled@evil.example>"])

    @needs_gate
    def test_bare_line_ends_are_refused_with_a_reason(self):
        for name, body in (("bare CR", b"a\rb\r\n"), ("bare LF", b"a\nb\r\n"), ("NUL", b"a\0b\r\n")):
            with self.subTest(name):
                wire = self.wire("mx")
                wire.reply()
                wire.send(b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
                for _ in range(4):
                    wire.reply()
                wire.send(b"Subject: x\r\n\r\n", body, b".\r\n")
                said = wire.reply()
                self.assertEqual(said[:1], b"5", said)


class StartTlsTest(Case):
    """Commands sent in the clear behind STARTTLS must not be carried out inside TLS."""

    def test_smtp(self):
        for door in ("mx", "submission"):
            for injected in (
                b"EHLO injected.example\r\n", b"NOOP\r\n", b"RSET\r\n", b"VRFY injected\r\n", b"\r\n", b"X", b"STARTTLS\r\n",
                b"EHLO i.example\r\nMAIL FROM:<injected@evil.example>\r\nRCPT TO:<alice@example.org>\r\n",
                b"AUTH PLAIN AGJvYgBib2Itc2VjcmV0\r\n",
            ):
                with self.subTest(door=door, injected=injected):
                    wire = self.wire(door)
                    wire.reply()
                    wire.send(b"EHLO client.example\r\n")
                    wire.reply()
                    wire.send(b"STARTTLS\r\n", injected)
                    if not self._in_tls(wire, wire.reply(), b"220"):
                        continue
                    # RCPT without a MAIL of ours: 503 says that nothing came in from outside.
                    wire.send(b"EHLO inside.example\r\nRCPT TO:<alice@example.org>\r\nQUIT\r\n")
                    replies = [wire.reply() for _ in range(3)]
                    self.assertEqual([reply[:3] for reply in replies], [b"250", b"503", b"221"], replies)
                    self.assertEqual(wire.rest(2), b"")

    def test_pop3(self):
        for injected in (b"CAPA\r\n", b"NOOP\r\n", b"USER alice\r\nPASS alice-secret\r\nSTAT\r\n", b"\r\n", b"Z", b"STLS\r\n"):
            with self.subTest(injected=injected):
                wire = self.wire("pop3")
                wire.line()
                wire.send(b"STLS\r\n", injected)
                if not self._in_tls(wire, wire.line(), b"+OK"):
                    continue
                wire.send(b"STAT\r\nQUIT\r\n")
                replies = [wire.line(), wire.line()]
                self.assertTrue(replies[0].startswith(b"-ERR"), replies)
                self.assertTrue(replies[1].startswith(b"+OK"), replies)
                self.assertEqual(wire.rest(2), b"")

    def test_imap(self):
        for injected in (
            b"b NOOP\r\n", b"b CAPABILITY\r\n", b"b LOGIN alice alice-secret\r\n", b"b LOGIN {5}\r\n", b"\r\n", b"b ",
            b"b LOGIN {5+}\r\nalice {12+}\r\nalice-secret\r\n", b"b STARTTLS\r\n",
        ):
            with self.subTest(injected=injected):
                wire = self.wire("imap")
                wire.line()
                wire.send(b"a STARTTLS\r\n", injected)
                if not self._in_tls(wire, wire.line(), b"a OK"):
                    continue
                wire.send(b"c LIST \"\" *\r\nd LOGOUT\r\n")
                said = wire.until(b"d ")
                self.assertNotIn(b"\nb ", b"\n" + said)
                self.assertNotIn(b"c OK", said)

    def _in_tls(self, wire, reply, go_ahead):
        """Whether the handshake came about. A refusal, a close and a failed handshake are all right answers."""
        if not reply.startswith(go_ahead):
            self.assertNotRegex(reply, rb"^(250|235|\+OK|b OK)")
            return False
        try:
            wire.start_tls()
        except (OSError, ssl.SSLError):
            return False
        return True

    def test_state_does_not_survive(self):
        wire = self.wire("mx")
        wire.reply()
        wire.send(b"EHLO before.example\r\nMAIL FROM:<before@evil.example>\r\nRCPT TO:<alice@example.org>\r\n")
        for _ in range(3):
            wire.reply()
        wire.send(b"STARTTLS\r\n")
        reply = wire.reply()
        if reply[:3] == b"220":
            wire.start_tls()
            wire.send(b"EHLO after.example\r\nDATA\r\n")
            self.assertEqual(wire.reply()[:3], b"250")
            self.assertEqual(wire.reply()[:1], b"5")

    def test_twice(self):
        session = self.smtp(tls=True)
        self.assertEqual(session.docmd("STARTTLS")[0] // 100, 5)
        self.assertEqual(session.noop()[0], 250)
        session = self.smtp()
        self.assertEqual(session.docmd("STARTTLS now")[0], 501)


class FakeUpstream:
    """A server that says what a table tells it to; notes what it was told before TLS."""

    def __init__(self, lab, greeting, answers, go_ahead=b""):
        self.greeting, self.answers, self.go_ahead = greeting, answers, go_ahead
        self.clear = b""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(lab.folder / "server.pem", lab.folder / "server.key")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.sendall(self.greeting)
            secure, buffer = False, b""
            while octets := connection.recv(4096):
                if not secure:
                    self.clear += octets
                buffer += octets
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    upper = line.strip().upper()
                    if upper.endswith((b"STARTTLS", b"STLS")) and self.go_ahead and not secure:
                        connection.sendall(self.go_ahead.replace(b"%TAG", line.split(b" ")[0]))
                        connection = self.context.wrap_socket(connection, server_side=True)
                        secure = True
                        continue
                    answer = next((text for word, text in self.answers.items() if word in upper), self.answers[b""])
                    connection.sendall(answer.replace(b"%TAG", line.split(b" ")[0]))


SMTP_ANSWERS = {
    b"EHLO": b"250-fake\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n", b"QUIT": b"221 bye\r\n", b"": b"250 fake\r\n",
}
POP3_ANSWERS = {b"CAPA": b"+OK\r\nSTLS\r\nUSER\r\n.\r\n", b"": b"+OK fake\r\n"}
IMAP_ANSWERS = {b"CAPABILITY": b"* CAPABILITY IMAP4rev1 STARTTLS\r\n%TAG OK\r\n", b"": b"%TAG OK fake\r\n"}
IMAP_GREETING = b"* OK [CAPABILITY IMAP4rev1 STARTTLS] fake\r\n"


@needs_gate
class UpstreamTlsTest(Case):
    """The upstream leg that must be encrypted: what comes before TLS is not believed, and secrets never go in the clear."""

    def _gate_to(self, name, fake):
        self.addCleanup(fake.close)
        gate = self.lab.gate(upstreams={f"{name}-upstream": {"servers": [f"127.0.0.1:{fake.port}"]}})
        self.addCleanup(gate.stop)
        return gate.ports[name]

    def _talk(self, name, fake, *commands):
        wire = self.wire(port=self._gate_to(name, fake))
        with contextlib.suppress(ConnectionError):
            for command in commands:
                wire.send(command)
                time.sleep(0.2)
        return wire.rest(3)

    def _check(self, said, fake):
        self.assertNotIn(b"injected", said.lower())
        for secret in (b"secret", b"AGJvYgBib2I", b"LOGIN", b"PASS"):
            self.assertNotIn(secret, fake.clear)

    def test_smtp(self):
        table = [
            ("response injected", b"220 fake\r\n", SMTP_ANSWERS, b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n"),
            ("no STARTTLS offered", b"220 fake\r\n", SMTP_ANSWERS | {b"EHLO": b"250 AUTH PLAIN\r\n"}, b""),
            ("STARTTLS refused", b"220 fake\r\n", SMTP_ANSWERS | {b"STARTTLS": b"454 no\r\n"}, b""),
            ("talks first", b"220 fake\r\n250 injected\r\n", SMTP_ANSWERS, b"220 go\r\n"),
        ]
        for name, greeting, answers, go_ahead in table:
            with self.subTest(name):
                fake = FakeUpstream(self.lab, greeting, answers, go_ahead)
                said = self._talk(
                    "submission", fake, b"EHLO client.example\r\n", b"AUTH PLAIN AGJvYgBib2Itc2VjcmV0\r\n", b"QUIT\r\n"
                )
                self._check(said, fake)
                self.assertNotIn(b"235", said)

    def test_pop3(self):
        table = [
            ("response injected", b"+OK fake\r\n", POP3_ANSWERS, b"+OK go\r\n+OK injected\r\n"),
            ("no STLS offered", b"+OK fake\r\n", {b"CAPA": b"+OK\r\nUSER\r\n.\r\n", b"STLS": b"-ERR no\r\n", b"": b"+OK\r\n"}, b""),
            ("STLS refused", b"+OK fake\r\n", POP3_ANSWERS | {b"STLS": b"-ERR no\r\n"}, b""),
        ]
        for name, greeting, answers, go_ahead in table:
            with self.subTest(name):
                fake = FakeUpstream(self.lab, greeting, answers, go_ahead)
                self._check(self._talk("pop3", fake, b"USER alice\r\n", b"PASS alice-secret\r\n", b"QUIT\r\n"), fake)

    def test_imap(self):
        table = [
            ("response injected", IMAP_GREETING, IMAP_ANSWERS, b"%TAG OK go\r\n* OK injected\r\n"),
            ("no STARTTLS offered", b"* OK fake\r\n",
             {b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\n%TAG OK\r\n", b"STARTTLS": b"%TAG BAD\r\n", b"": b"%TAG OK\r\n"}, b""),
            ("STARTTLS refused", IMAP_GREETING, IMAP_ANSWERS | {b"STARTTLS": b"%TAG NO not now\r\n"}, b""),
            ("PREAUTH", b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] injected\r\n", IMAP_ANSWERS, b"%TAG OK go\r\n"),
        ]
        for name, greeting, answers, go_ahead in table:
            with self.subTest(name):
                fake = FakeUpstream(self.lab, greeting, answers, go_ahead)
                said = self._talk("imap", fake, b"a LOGIN alice alice-secret\r\n", b"b SELECT INBOX\r\n", b"c LOGOUT\r\n")
                self._check(said, fake)
                self.assertNotIn(b"a OK", said)


if __name__ == "__main__":
    unittest.main()
