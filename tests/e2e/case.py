"""What every end-to-end test shares: one lab for a class of tests, the doors to knock on, and useful failure messages.

Through a gate by default; `E2E_GATE=off` runs the same tests straight against the real servers, which shows what a
client sees without the gate. Tests that are about the gate itself say so with `needs_gate` and are skipped then.
"""

import contextlib
import functools
import imaplib
import poplib
import smtplib
import socket
import unittest

import lab as laboratory
from lab import DOMAIN, USERS, Lab, have_gate

needs_gate = unittest.skipUnless(have_gate(), "is about the gate itself")
TIMEOUT = 60
imaplib._MAXLINE = 10_000_000  # a header line of 1 MB is one of the samples
poplib._MAXLINE = 10_000_000


class Case(unittest.TestCase):
    """`cls.lab` is up for all tests of the class, `cls.gate` too (None with E2E_GATE=off).

    `gate_settings` are the overrides of the gate's configuration; `door(name)` is the port for a client.
    """

    gate_settings = {}
    lab = None
    gate = None

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab().start()
        cls.addClassCleanup(cls.lab.stop)
        cls.gate = cls.lab.gate(**cls.gate_settings) if have_gate() else None

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        for name, function in list(vars(cls).items()):
            if name.startswith("test") and callable(function):
                setattr(cls, name, _telling(function))

    @contextlib.contextmanager
    def subTest(self, *arguments, **names):
        with super().subTest(*arguments, **names), self._evidence():
            yield

    @contextlib.contextmanager
    def _evidence(self):
        try:
            yield
        except unittest.SkipTest:
            raise
        except Exception as problem:
            if self.lab and not getattr(problem, "__notes__", None):
                problem.add_note(self.lab.evidence())
            raise

    @classmethod
    def door(cls, name):
        """The port of mx, submission, smtps, pop3, pop3s, imap or imaps: the gate's, or the server's without one."""
        return cls.gate.ports[name] if cls.gate else cls.direct(name)

    @classmethod
    def direct(cls, name):
        return cls.lab.ports["smtp" if name == "mx" else name]

    # -- clients

    def smtp(self, door="mx", port=None, tls=False, user=None):
        """An smtplib session after EHLO; closed at the end of the test."""
        port = port or self.door(door)
        if door == "smtps":
            session = smtplib.SMTP_SSL("localhost", port, "client.example", timeout=TIMEOUT, context=self.lab.tls())
        else:
            session = smtplib.SMTP("localhost", port, "client.example", timeout=TIMEOUT)
        self.addCleanup(session.close)
        session.ehlo()
        if tls:
            session.starttls(context=self.lab.tls())
            session.ehlo()
        if user:
            session.login(user, USERS[user])
        return session

    def pop3(self, user="alice", door="pop3", port=None, tls=False):
        port = port or self.door(door)
        if door == "pop3s":
            session = poplib.POP3_SSL("localhost", port, timeout=TIMEOUT, context=self.lab.tls())
        else:
            session = poplib.POP3("localhost", port, timeout=TIMEOUT)
        self.addCleanup(session.close)
        if tls:
            session.stls(self.lab.tls())
        if user:
            session.user(user)
            session.pass_(USERS[user])
        return session

    def imap(self, user="alice", door="imap", port=None, tls=False):
        port = port or self.door(door)
        if door == "imaps":
            session = imaplib.IMAP4_SSL("localhost", port, ssl_context=self.lab.tls(), timeout=TIMEOUT)
        else:
            session = imaplib.IMAP4("localhost", port, timeout=TIMEOUT)
        self.addCleanup(_close_imap, session)
        if tls:
            session.starttls(self.lab.tls())
        if user:
            session.login(user, USERS[user])
        return session

    def wire(self, door=None, port=None):
        """A bare connection, for what no client library would send."""
        return self.enterContext(Wire(port or self.door(door), self.lab))

    def send(self, raw, to, door="mx", port=None, sender="sender@partner.example", options=(), user=None):
        """Sends octets as they are, over one session; raises smtplib's errors."""
        session = self.smtp(door, port, tls=bool(user) and door != "smtps", user=user)
        answer = transact(session, raw, to, sender, options)
        session.quit()
        return answer


def transact(session, raw, to, sender="sender@partner.example", options=()):
    """One MAIL, RCPT, DATA; returns the last reply's text."""
    for code, text in (session.mail(sender, list(options)), session.rcpt(to)):
        if code // 100 != 2:
            session.rset()
            raise smtplib.SMTPResponseException(code, text)
    code, text = session.data(raw)
    if code // 100 != 2:
        raise smtplib.SMTPDataError(code, text)
    return text.decode(errors="replace")


class Wire:
    """A TCP connection that sends what it is told, byte for byte, and reads lines."""

    def __init__(self, port, lab):
        self.lab = lab
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))
        return self

    def line(self):
        """The next line with its end; what there is at the end of the stream, b"" at last."""
        while b"\n" not in self.buffer:
            octets = self._receive()
            if not octets:
                break
            self.buffer += octets
        line, end, self.buffer = self.buffer.partition(b"\n")
        return line + end

    def octets(self, count):
        while len(self.buffer) < count:
            octets = self._receive()
            if not octets:
                break
            self.buffer += octets
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def rest(self, seconds=1.0):
        """What arrives until the peer closes or is silent for `seconds`."""
        self.socket.settimeout(seconds)
        try:
            with contextlib.suppress(OSError):
                while octets := self.socket.recv(65536):
                    self.buffer += octets
        finally:
            self.socket.settimeout(TIMEOUT)
        taken, self.buffer = self.buffer, b""
        return taken

    def reply(self):
        """An SMTP reply, all its lines; b"" when the peer closed."""
        text = b""
        while line := self.line():
            text += line
            if line[3:4] != b"-":
                break
        return text

    def until(self, start):
        """IMAP: lines up to and with the one that starts with `start` (a tag, or `+`)."""
        text = b""
        while line := self.line():
            text += line
            if line.startswith(start):
                return text
        raise AssertionError(f"connection closed before {start!r}; got {text!r}")

    def multiline(self):
        """POP3: a +OK line and what follows it up to the lone dot, still dot-stuffed."""
        text = self.line()
        if not text.startswith(b"+OK"):
            return text
        while line := self.line():
            text += line
            if line == b".\r\n":
                break
        return text

    def start_tls(self):
        """The TLS handshake, as a client."""
        self.socket = self.lab.tls().wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""
        return self

    def _receive(self):
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            return b""


def _close_imap(session):
    with contextlib.suppress(OSError):
        session.shutdown()


def _telling(function):
    @functools.wraps(function)
    def told(self, *arguments, **names):
        with self._evidence():
            return function(self, *arguments, **names)

    return told


__all__ = ["DOMAIN", "USERS", "Case", "Lab", "Wire", "have_gate", "laboratory", "needs_gate", "transact"]
