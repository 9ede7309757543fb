"""Ends and outages: SIGTERM drains, an upstream that is down or dies is told to the client as temporary."""

import contextlib
import os
import random
import re
import signal
import smtplib
import socket
import threading
import time
import unittest

from case import Case, needs_gate, transact
from lab import end_sessions, session_members, wait_until
from messages import ham, trace_field

DRAIN = 45  # seconds a drain may take here at most


@needs_gate
class DrainTest(Case):
    def setUp(self):
        self.lab.empty("alice")
        self.gate.stop()
        self.gate.start()

    def _open_data(self, port):
        session = self.smtp(port=port)
        session.mail("sender@partner.example")
        session.rcpt("alice@example.org")
        session.putcmd("DATA")
        self.assertEqual(session.getreply()[0], 354)
        return session

    def test_sigterm_in_the_middle_of_data(self):
        message = ham("drain@partner.example")
        session = self._open_data(self.gate.ports["mx"])
        session.sock.sendall(message[:100])
        self.gate.terminate()
        wait_until(lambda: not self._welcome("mx"), 10, lambda: "a draining gate still takes new sessions")
        self.assertTrue(self.gate.service.alive(), "ended with a message under way")
        session.sock.sendall(message[100:] + b".\r\n")
        self.assertEqual(session.getreply()[0], 250)
        self.assertEqual(self.gate.service.wait(DRAIN), 0)
        self.assertEqual(len(self.lab.wait_delivered("alice", 1)), 1)

    def test_sigterm_with_idle_sessions_of_every_kind(self):
        self.smtp()
        self.smtp("smtps", user="bob")
        self.pop3()
        session = self.imap()
        session.select("INBOX")
        wire = self.wire("imap")
        wire.line()
        wire.send(b"a LOGIN alice alice-secret\r\nb SELECT INBOX\r\n")
        wire.until(b"b OK")
        wire.send(b"c IDLE\r\n")
        wire.until(b"+")
        began = time.monotonic()
        self.gate.terminate()
        self.assertEqual(self.gate.service.wait(DRAIN), 0)
        self.assertLess(time.monotonic() - began, DRAIN)

    def test_nothing_listens_afterwards_and_it_starts_again(self):
        self.gate.terminate()
        self.assertEqual(self.gate.service.wait(DRAIN), 0)
        for port in self.gate.ports.values():
            with self.assertRaises(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
        self.gate.start()
        self.send(ham("again@partner.example"), "alice@example.org")
        self.lab.wait_delivered("alice", 1)

    def test_sigint_ends_it_too(self):
        os.kill(self.gate.pid, signal.SIGINT)
        self.assertEqual(self.gate.service.wait(DRAIN), 0)

    def _welcome(self, door):
        """Whether a new session is greeted as usual."""
        try:
            with socket.create_connection(("127.0.0.1", self.gate.ports[door]), 2) as probe:
                return probe.recv(1000).startswith(b"220")
        except OSError:
            return False


@needs_gate
class OutageTest(Case):
    def setUp(self):
        self.lab.empty("alice")
        if not self.lab.postfix:
            self.lab.start_postfix()
        if not self.lab.dovecot:
            self.lab.start_dovecot()

    def _first_words(self, door):
        wire = self.wire(door)
        return wire.line() or wire.rest(2)

    def test_upstream_down(self):
        self.lab.stop_postfix()
        self.lab.stop_dovecot()
        wire = self.wire("mx")
        said = wire.reply()
        with contextlib.suppress(ConnectionError):
            wire.send(b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.org>\r\n")
        said += wire.rest(5)
        self.assertRegex(said, rb"(?m)^4(21|51)[ -]")
        self.assertNotRegex(said, rb"(?m)^5\d\d ")
        self.assertRegex(self._first_words("pop3"), rb"^-ERR ")
        self.assertRegex(self._first_words("imap"), rb"^\* BYE ")
        self.assertTrue(self.gate.service.alive())
        # Without a restart of the gate all is well again when the upstream is.
        self.lab.start_postfix()
        self.lab.start_dovecot()

        def back():
            with contextlib.suppress(smtplib.SMTPException, OSError):
                self.send(ham("back@partner.example"), "alice@example.org")
                return True
            return False

        wait_until(back, 30, lambda: "no mail passes after the upstream came back")
        self.lab.wait_delivered("alice", 1)
        self.assertEqual(self.pop3().stat()[0], 1)
        self.assertEqual(self.imap().select()[1], [b"1"])

    def test_upstream_slow_to_greet(self):
        """An upstream that accepts and says nothing: a temporary answer, not a hang."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        gate = self.lab.gate(upstreams={"mx-upstream": {"servers": [f"127.0.0.1:{silent.getsockname()[1]}"]}})
        self.addCleanup(gate.stop)
        wire = self.wire(port=gate.ports["mx"])
        said = wire.rest(45)
        self.assertRegex(said, rb"^(4(21|51)[ -]|$)")

    def test_upstream_lost_between_data_and_verdict(self):
        """Not authenticated: reconnect and replay, or 451; and 250 only if the message is there."""
        for round in range(10):
            with self.subTest(round=round):
                message = ham(f"lost-{round}@partner.example")
                session = self.smtp()
                session.mail("sender@partner.example")
                session.rcpt("alice@example.org")
                session.putcmd("DATA")
                self.assertEqual(session.getreply()[0], 354)
                session.sock.sendall(message[: len(message) // 2])
                self._kill_smtpd()
                session.sock.sendall(message[len(message) // 2 :] + b".\r\n")
                code, text = session.getreply()
                self.assertIn(code, (250, 451, 421), text)
                if code == 250:
                    self._assert_arrived({f"lost-{round}@partner.example"})

    def test_upstream_killed_under_load(self):
        """smtpd daemons die at random instants: every 250 is kept."""
        dice = random.Random(os.environ.get("E2E_SEED", "1"))
        acknowledged, stop = set(), threading.Event()
        threads = [threading.Thread(target=self._load, args=(name, acknowledged, stop)) for name in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                time.sleep(dice.uniform(0.05, 0.4))
                self._kill_smtpd()
            # And all of Postfix at once, queue manager and all.
            self.lab.stop_postfix(hard=True)
            self.lab.start_postfix()
            time.sleep(1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreater(len(acknowledged), 20)
        self._assert_arrived(acknowledged)

    def _load(self, name, acknowledged, stop):
        number = 0
        session = None
        while not stop.is_set():
            number += 1
            id = f"load-{name}-{number}@partner.example"
            try:
                session = session or smtplib.SMTP("127.0.0.1", self.door("mx"), "load.example", timeout=30)
                transact(session, ham(id), "alice@example.org")
                acknowledged.add(id)
            except (smtplib.SMTPException, OSError):
                if session:
                    session.close()
                session = None
                time.sleep(0.02)
        if session:
            session.close()

    def _kill_smtpd(self):
        for pid in session_members({self.lab.postfix.pid}):
            with contextlib.suppress(OSError):
                if open(f"/proc/{pid}/comm").read().strip() == "smtpd":
                    os.kill(pid, signal.SIGKILL)

    def _assert_arrived(self, ids):
        def missing():
            found = {(trace_field(path.read_bytes(), "Message-ID") or "").strip("<>") for path in self.lab.delivered("alice")}
            held = " ".join(str(entry) for entry in self.gate.quarantine())
            return {id for id in ids - found if id not in held}

        try:
            wait_until(lambda: not missing(), 60, lambda: "", step=0.5)
        except Exception:
            self.fail(f"acknowledged and nowhere: {sorted(missing())}")


if __name__ == "__main__":
    unittest.main()
