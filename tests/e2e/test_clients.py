"""Real clients at every door, with and without TLS: curl, swaks, smtplib, poplib, imaplib, mbsync, fetchmail."""

import base64
import imaplib
import os
import random
import re
import smtplib
import socket
import unittest

from case import USERS, Case, needs_gate, transact
from lab import wait_until
from messages import ham, lines, trace_field, without_trace


class ClientCase(Case):
    def setUp(self):
        for user in USERS:
            self.lab.empty(user)

    def message(self, name):
        return ham(f"{name}@client.example")

    def file(self, name, octets):
        path = self.lab.folder / "tmp" / name
        path.write_bytes(octets)
        return path

    def arrived(self, user="alice", count=1):
        """The messages in the user's mailbox as sent, oldest first."""
        return [read_crlf(path) for path in self.lab.wait_delivered(user, count)]

    def assert_same(self, sent, got):
        self.assertEqual(without_trace(sent), without_trace(got))

    def fill(self, user, count):
        """Puts messages into the mailbox without the gate, one after the other: Postfix keeps no order by itself."""
        session = self.smtp(port=self.direct("mx"))
        made = [self.message(f"fill-{number}") for number in range(count)]
        for number, raw in enumerate(made, 1):
            transact(session, raw, f"{user}@example.org")
            self.lab.wait_delivered(user, number)
        session.quit()
        return made


class SmtpClientTest(ClientCase):
    def curl(self, url, message, *options):
        self.lab.run(
            "curl", "-sS", "--url", url, "--mail-from", "sender@partner.example", "--mail-rcpt", "alice@example.org",
            "-T", self.file("curl.eml", message), "--cacert", self.lab.ca, *options,
        )

    def test_curl(self):
        door, login = self.door, ["--user", f"bob:{USERS['bob']}"]
        table = [
            ("mx in the clear", f"smtp://localhost:{door('mx')}", []),
            ("mx by STARTTLS", f"smtp://localhost:{door('mx')}", ["--ssl-reqd"]),
            ("submission in the clear", f"smtp://localhost:{door('submission')}", login),
            ("submission by STARTTLS", f"smtp://localhost:{door('submission')}", ["--ssl-reqd", *login]),
            ("smtps", f"smtps://localhost:{door('smtps')}", login),
            ("smtps, initial response", f"smtps://localhost:{door('smtps')}", ["--sasl-ir", *login]),
            ("smtps, LOGIN", f"smtps://localhost:{door('smtps')}", ["--login-options", "AUTH=LOGIN", *login]),
            ("smtps, CRAM-MD5", f"smtps://localhost:{door('smtps')}", ["--login-options", "AUTH=CRAM-MD5", *login]),
        ]
        for number, (name, url, options) in enumerate(table, 1):
            with self.subTest(name):
                message = self.message(f"curl-{number}") + b".\r\n..\r\n"
                self.curl(url, message, *options)
                self.assert_same(message, self.arrived(count=number)[-1])

    def test_swaks(self):
        number = 0
        for door, tls in (("submission", ["-tls"]), ("smtps", ["-tlsc"])):
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                with self.subTest(door=door, mechanism=mechanism):
                    number += 1
                    message = self.message(f"swaks-{number}")
                    done = self.lab.run(
                        "swaks", "--server", "127.0.0.1", "--port", self.door(door), *tls, "--tls-verify",
                        "--tls-ca-path", self.lab.ca, "--auth", mechanism, "--auth-user", "bob", "--auth-password",
                        USERS["bob"], "--from", "bob@example.org", "--to", "alice@example.org", "--ehlo", "pc.example",
                        "--data", "@" + str(self.file("swaks.eml", message)), "--timeout", "30",
                    )
                    self.assertIn("235 ", done.stdout)
                    # swaks ends the message with an empty line of its own
                    self.assert_same(message + b"\r\n", self.arrived(count=number)[-1])

    def test_swaks_wrong_password(self):
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            with self.subTest(mechanism):
                done = self.lab.run(
                    "swaks", "--server", "127.0.0.1", "--port", self.door("submission"), "-tls", "--auth", mechanism,
                    "--auth-user", "bob", "--auth-password", "wrong", "--from", "bob@example.org", "--to",
                    "alice@example.org", "--timeout", "30", check=False,
                )
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("535 ", done.stdout)

    def test_swaks_pipelined(self):
        message = self.message("pipelined")
        self.lab.run(
            "swaks", "--server", "127.0.0.1", "--port", self.door("mx"), "--pipeline", "--from", "a@partner.example",
            "--to", "alice@example.org,bob@example.org", "--data", "@" + str(self.file("swaks.eml", message)),
        )
        self.assert_same(message + b"\r\n", self.arrived("alice")[0])
        self.assert_same(message + b"\r\n", self.arrived("bob")[0])

    def test_smtplib(self):
        table = [
            ("mx", {}), ("mx", {"tls": True}), ("submission", {"user": "bob"}),
            ("submission", {"tls": True, "user": "carol"}), ("smtps", {"user": "carol"}),
        ]
        for number, (door, how) in enumerate(table, 1):
            with self.subTest(door=door, **how):
                message = self.message(f"smtplib-{number}")
                session = self.smtp(door, **how)
                transact(session, message, "alice@example.org")
                session.quit()
                self.assert_same(message, self.arrived(count=number)[-1])

    def test_many_messages_in_one_session(self):
        session = self.smtp(tls=True)
        sent = []
        for number in range(20):
            sent.append(self.message(f"session-{number}"))
            transact(session, sent[-1], "alice@example.org")
            if number % 5 == 0:
                self.assertEqual(session.rset()[0], 250)
            if number % 7 == 0:
                self.assertEqual(session.noop()[0], 250)
        session.quit()
        ids = {trace_field(raw, "Message-ID") for raw in self.arrived(count=20)}
        self.assertEqual(ids, {trace_field(raw, "Message-ID") for raw in sent})

    def test_ehlo_offers_only_what_can_be_carried(self):
        session = self.smtp()
        for word in ("pipelining", "8bitmime", "smtputf8", "enhancedstatuscodes", "size", "starttls"):
            self.assertIn(word, session.esmtp_features)
        session = self.smtp(tls=True)
        self.assertNotIn("starttls", session.esmtp_features)
        if self.gate:
            self.assertNotIn("chunking", session.esmtp_features)
            self.assertNotIn("binarymime", session.esmtp_features)
            without = self.smtp(port=self.direct("mx"))
            self.assertLess(int(session.esmtp_features["size"]), int(without.esmtp_features["size"]))

    def test_commands_of_every_kind(self):
        session = self.smtp()
        table = [
            ("NOOP", 250), ("noop with text", 250), ("RSET", 250), ("VRFY alice@example.org", 252),
            ("EXPN list", 502), ("HELP", 502), ("HELO other.example", 250), ("EHLO other.example", 250),
            ("NONSENSE", 502), ("DATA", 503), ("RCPT TO:<alice@example.org>", 503), ("MAIL FROM:<a@b.example> SIZE=1000", 250),
            ("MAIL FROM:<a@b.example>", 503), ("DATA", 554), ("RCPT TO:<nobody-here@example.org>", 550),
            ("RCPT TO:<alice@example.org> NOTIFY=NEVER", 250), ("RSET", 250), ("MAIL FROM:<>", 250),
            ("MAIL FROM:<a@b.example> SIZE=999999999", 552), ("RSET", 250), ("QUIT", 221),
        ]
        said = [(command, session.docmd(command)[0]) for command, _ in table]
        families = [(command, code // 100) for command, code in said]
        # HELP and EXPN may be answered by either side; families are what clients go by.
        expected = [(command, code // 100) for command, code in table]
        for got, wanted in zip(families, expected):
            if wanted[0] not in ("HELP", "EXPN list"):
                self.assertEqual(got, wanted)

    def test_pipelining_by_hand(self):
        wire = self.wire("mx")
        wire.reply()
        wire.send(b"EHLO client.example\r\n")
        wire.reply()
        message = self.message("by-hand")
        wire.send(
            b"MAIL FROM:<a@partner.example>\r\nRCPT TO:<alice@example.org>\r\n"
            b"RCPT TO:<unknown@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
        )
        codes = [wire.reply()[:3] for _ in range(5)]
        self.assertEqual(codes, [b"250", b"250", b"550", b"250", b"354"])
        wire.send(message, b".\r\nMAIL FROM:<>\r\nRSET\r\nQUIT\r\n")
        self.assertEqual([wire.reply()[:3] for _ in range(4)], [b"250", b"250", b"250", b"221"])
        self.assertEqual(wire.rest(5), b"")
        for user in ("alice", "bob"):
            self.assert_same(message, self.arrived(user)[0])

    def test_data_octet_by_octet(self):
        wire = self.wire("mx")
        wire.reply()
        wire.send(b"EHLO client.example\r\n")
        wire.reply()
        message = lines("Subject: slow", "", "..", ".x", "end")
        for command in (b"MAIL FROM:<a@partner.example>\r\n", b"RCPT TO:<alice@example.org>\r\n", b"DATA\r\n"):
            for octet in command:
                wire.send(bytes([octet]))
            self.assertIn(wire.reply()[:1], b"23")
        for octet in re.sub(rb"(?m)^\.", b"..", message) + b".\r\n":
            wire.send(bytes([octet]))
        self.assertEqual(wire.reply()[:3], b"250")
        self.assert_same(message, self.arrived()[0])

    def test_too_large(self):
        session = self.smtp()
        size = int(session.esmtp_features["size"])
        self.assertEqual(session.mail("a@partner.example", [f"SIZE={size + 1}"])[0], 552)
        session.rset()
        session.mail("a@partner.example")
        session.rcpt("alice@example.org")
        session.putcmd("DATA")
        self.assertEqual(session.getreply()[0], 354)
        line = b"x" * 998 + b"\r\n"
        try:
            for _ in range(size // 1000 + 2):
                session.sock.sendall(line)
            session.sock.sendall(b".\r\n")
            code = session.getreply()[0]
        except (OSError, smtplib.SMTPServerDisconnected):
            code = 552
        self.assertEqual(code, 552)
        self.assertEqual(self.lab.delivered("alice"), [])

    @needs_gate
    def test_a_received_line_says_who(self):
        message = self.message("received")
        session = self.smtp(tls=True)
        transact(session, message, "alice@example.org")
        raw = self.arrived()[0]
        # Postfix's own is first, ours second.
        found = re.findall(rb"(?m)^Received: (?:.*\r\n)(?:[ \t].*\r\n)*", raw)
        self.assertGreaterEqual(len(found), 2, raw[:1500])
        self.assertIn(b"client.example", found[1])
        self.assertIn(b"127.0.0.1", found[1])
        self.assertIn(b"TLS", found[1])

    @needs_gate
    def test_spam_headers_from_outside_are_removed(self):
        forged = lines("X-Spam-Flag: NO", "X-Spam-Score: -99", "x-spam-status: No", " folded", "X-Gatepost: forged")
        message = forged + self.message("forged")
        self.send(message, "alice@example.org")
        raw = self.arrived()[0]
        self.assertNotIn(b"-99", raw)
        self.assertNotIn(b"forged\r\n", raw.replace(b"forged@client.example", b""))
        self.assertNotIn(b" folded", raw)
        self.assertEqual(raw.lower().count(b"x-spam-flag:"), 1)


class Pop3ClientTest(ClientCase):
    def test_curl(self):
        sent = self.fill("alice", 3)
        for name, url, options in (
            ("clear", f"pop3://localhost:{self.door('pop3')}", []),
            ("STLS", f"pop3://localhost:{self.door('pop3')}", ["--ssl-reqd"]),
            ("pop3s", f"pop3s://localhost:{self.door('pop3s')}", []),
            ("APOP", f"pop3://localhost:{self.door('pop3')}", ["--login-options", "AUTH=+APOP"]),
            ("CRAM-MD5", f"pop3://localhost:{self.door('pop3')}", ["--login-options", "AUTH=CRAM-MD5"]),
            ("AUTH PLAIN", f"pop3s://localhost:{self.door('pop3s')}", ["--login-options", "AUTH=PLAIN"]),
        ):
            with self.subTest(name):
                common = ["curl", "-sS", "--cacert", self.lab.ca, "--user", f"alice:{USERS['alice']}", *options]
                listing = self.lab.run(*common, f"{url}/").stdout.split()
                self.assertEqual(listing[0::2], ["1", "2", "3"])
                for number, raw in enumerate(sent, 1):
                    path = self.lab.folder / "tmp" / "retr"
                    self.lab.run(*common, "-o", path, f"{url}/{number}")
                    self.assert_same(raw, path.read_bytes())

    def test_poplib(self):
        sent = self.fill("alice", 5)
        for door, tls in (("pop3", False), ("pop3", True), ("pop3s", False)):
            with self.subTest(door=door, tls=tls):
                session = self.pop3(door=door, tls=tls)
                count, size = session.stat()
                self.assertEqual(count, 5)
                listing = [line.split() for line in session.list()[1]]
                self.assertEqual(sum(int(octets) for _, octets in listing), size)
                self.assertEqual(len({line.split()[1] for line in session.uidl()[1]}), 5)
                for number, raw in enumerate(sent, 1):
                    got = b"\r\n".join(session.retr(number)[1]) + b"\r\n"
                    self.assert_same(raw, got)
                    top = b"\r\n".join(session.top(number, 2)[1]) + b"\r\n"
                    header, body = without_trace(raw).split(b"\r\n\r\n", 1)
                    self.assert_same(header + b"\r\n\r\n" + b"".join(body.splitlines(True)[:2]), top)
                self.assertTrue(session.noop().startswith(b"+OK"))
                session.dele(1)
                self.assertEqual(session.stat()[0], 4)
                session.rset()
                self.assertEqual(session.stat()[0], 5)
                session.quit()

    def test_dele_is_kept_by_quit_only(self):
        self.fill("alice", 3)
        session = self.pop3()
        session.dele(2)
        session.close()
        session = self.pop3()
        self.assertEqual(session.stat()[0], 3)
        uids = [line.split()[1] for line in session.uidl()[1]]
        session.dele(2)
        session.quit()
        session = self.pop3()
        self.assertEqual([line.split()[1] for line in session.uidl()[1]], [uids[0], uids[2]])

    def test_apop(self):
        self.fill("alice", 1)
        for tls in (False, True):
            with self.subTest(tls=tls):
                session = self.pop3(user=None, tls=tls)
                self.assertIsNotNone(session.timestamp.search(session.welcome), "no APOP challenge in the greeting")
                session.apop("alice", USERS["alice"])
                self.assertEqual(session.stat()[0], 1)
                session.quit()

    def test_capabilities(self):
        session = self.pop3(user=None)
        capabilities = session.capa()
        for word in ("TOP", "UIDL", "STLS", "USER", "SASL", "PIPELINING"):
            self.assertIn(word, capabilities)
        self.assertIn("CRAM-MD5", capabilities["SASL"])
        session.stls(self.lab.tls())
        self.assertNotIn("STLS", session.capa())

    def test_wrong_password_then_right(self):
        wire = self.wire("pop3")
        wire.line()
        wire.send(b"USER alice\r\nPASS wrong\r\n")
        self.assertTrue(wire.line().startswith(b"+OK"))
        self.assertTrue(wire.line().startswith(b"-ERR"))
        wire.send(b"USER alice\r\nPASS alice-secret\r\nSTAT\r\nQUIT\r\n")
        self.assertEqual([wire.line()[:3] for _ in range(4)], [b"+OK"] * 4)

    def test_pipelining_by_hand(self):
        sent = self.fill("alice", 4)
        wire = self.wire("pop3")
        wire.line()
        wire.send(
            b"USER alice\r\nPASS alice-secret\r\nSTAT\r\nLIST\r\nRETR 1\r\nNOOP\r\nLIST 2\r\nUIDL\r\nRETR 9\r\n"
            b"TOP 2 0\r\nRETR 3\r\nDELE 4\r\nRSET\r\nNONSENSE\r\nRETR 4\r\nQUIT\r\n"
        )
        self.assertEqual([wire.line()[:3] for _ in range(3)], [b"+OK"] * 3)
        self.assertEqual(wire.multiline().count(b"\r\n"), 6)
        self._assert_message(sent[0], wire.multiline())
        self.assertTrue(wire.line().startswith(b"+OK"))
        self.assertTrue(wire.line().startswith(b"+OK 2 "))
        self.assertEqual(wire.multiline().count(b"\r\n"), 6)
        self.assertTrue(wire.line().startswith(b"-ERR"))
        self.assertTrue(wire.multiline().startswith(b"+OK"))
        self._assert_message(sent[2], wire.multiline())
        self.assertEqual([wire.line()[:3] for _ in range(3)], [b"+OK", b"+OK", b"-ER"])
        self._assert_message(sent[3], wire.multiline())
        self.assertTrue(wire.line().startswith(b"+OK"))
        self.assertEqual(wire.rest(5), b"")

    def _assert_message(self, sent, response):
        body = response.split(b"\r\n", 1)[1]
        self.assertTrue(body.endswith(b"\r\n.\r\n"))
        self.assert_same(sent, re.sub(rb"(?m)^\.", b"", body[:-3]))

    def test_auth_by_hand(self):
        wire = self.wire("pop3")
        wire.line()
        wire.send(b"AUTH CRAM-MD5\r\n")
        self.assertTrue(wire.line().startswith(b"+ "))
        wire.send(b"*\r\n")
        self.assertTrue(wire.line().startswith(b"-ERR"))
        wire.send(b"AUTH PLAIN\r\n")
        self.assertTrue(wire.line().startswith(b"+ "))
        wire.send(b"AGFsaWNlAGFsaWNlLXNlY3JldA==\r\n")
        self.assertTrue(wire.line().startswith(b"+OK"))
        wire.send(b"QUIT\r\n")
        self.assertTrue(wire.line().startswith(b"+OK"))


class ImapClientTest(ClientCase):
    def test_curl(self):
        sent = self.fill("alice", 3)
        for name, url, options in (
            ("clear", f"imap://localhost:{self.door('imap')}", []),
            ("STARTTLS", f"imap://localhost:{self.door('imap')}", ["--ssl-reqd"]),
            ("imaps", f"imaps://localhost:{self.door('imaps')}", []),
            ("AUTH LOGIN", f"imap://localhost:{self.door('imap')}", ["--login-options", "AUTH=LOGIN"]),
            ("CRAM-MD5", f"imap://localhost:{self.door('imap')}", ["--login-options", "AUTH=CRAM-MD5"]),
            ("initial response", f"imaps://localhost:{self.door('imaps')}", ["--sasl-ir", "--login-options", "AUTH=PLAIN"]),
        ):
            with self.subTest(name):
                common = ["curl", "-sS", "--cacert", self.lab.ca, "--user", f"alice:{USERS['alice']}", *options]
                self.assertIn("INBOX", self.lab.run(*common, f"{url}/").stdout)
                found = self.lab.run(*common, f"{url}/INBOX", "-X", "SEARCH ALL").stdout
                self.assertIn("1 2 3", found)
                for number, raw in enumerate(sent, 1):
                    path = self.lab.folder / "tmp" / "fetch"
                    self.lab.run(*common, "-o", path, f"{url}/INBOX/;MAILINDEX={number}")
                    self.assert_same(raw, path.read_bytes())
                message = self.message("curl-append")
                self.lab.run(*common, "-T", self.file("append.eml", message), f"{url}/Sent")
                session = self.imap(port=self.direct("imap"))
                _, (count,) = session.select("Sent", readonly=True)
                self.assertEqual(session.fetch(count, "(BODY.PEEK[])")[1][0][1], message)

    def test_imaplib(self):
        sent = self.fill("alice", 4)
        for door, tls in (("imap", False), ("imap", True), ("imaps", False)):
            with self.subTest(door=door, tls=tls):
                session = self.imap(door=door, tls=tls)
                self.assertEqual(session.select("INBOX")[1], [b"4"])
                self.assertEqual(session.search(None, "SUBJECT", "minutes")[1], [b"1 2 3 4"])
                for number, raw in enumerate(sent, 1):
                    parts = session.fetch(str(number), "(UID RFC822.SIZE FLAGS BODY.PEEK[])")[1]
                    self.assert_same(raw, parts[0][1])
                    self.assertIn(b"RFC822.SIZE %d " % len(parts[0][1]), parts[0][0])
                box = f"Box-{door}-{tls}"
                ok(self, session.create(box))
                ok(self, session.copy("1:2", box))
                self.assertEqual(session.uid("SEARCH", None, "ALL")[0], "OK")
                uid = session.uid("SEARCH", None, "ALL")[1][0].split()[2].decode()
                ok(self, session.uid("COPY", uid, box))
                ok(self, session.uid("STORE", uid, "+FLAGS", "(\\Flagged)"))
                self.assertIn(b"\\Flagged", session.uid("FETCH", uid, "(FLAGS)")[1][0])
                ok(self, session.uid("STORE", uid, "-FLAGS", "(\\Flagged)"))
                self.assertEqual(session.select(box)[1], [b"3"])
                ok(self, session.store("1", "+FLAGS", "(\\Deleted)"))
                self.assertEqual(session.expunge()[1], [b"1"])
                ok(self, session.close())
                ok(self, session.delete(box))
                ok(self, session.logout(), "BYE")

    def test_authenticate(self):
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            with self.subTest(mechanism):
                session = self.imap(user=None, tls=True)
                self.assertIn(f"AUTH={mechanism}", session.capabilities)
                if mechanism == "CRAM-MD5":
                    ok(self, session.login_cram_md5("alice", USERS["alice"]))
                elif mechanism == "PLAIN":
                    ok(self, session.authenticate("PLAIN", lambda _: b"\0alice\0alice-secret"))
                else:
                    answers = iter([b"alice", b"alice-secret"])
                    ok(self, session.authenticate("LOGIN", lambda _: next(answers)))
                ok(self, session.select("INBOX"))
        session = self.imap(user=None)
        with self.assertRaises(imaplib.IMAP4.error):
            session.authenticate("PLAIN", lambda _: b"\0alice\0wrong")
        with self.assertRaises(imaplib.IMAP4.error):
            session.login("alice", "wrong")
        ok(self, session.login("alice", USERS["alice"]))

    def test_capabilities(self):
        """What the gate shows is a part of what the server shows, and the necessary is there."""
        through, without = self.imap(user=None), self.imap(user=None, port=self.direct("imap"))
        self.assertLessEqual(set(through.capabilities) - {"STARTTLS"}, set(without.capabilities))
        for word in ("IMAP4REV1", "STARTTLS", "AUTH=PLAIN"):
            self.assertIn(word, through.capabilities)
        for session in (through, without):
            session.login("alice", USERS["alice"])
        inside = set(through.capability()[1][0].split())
        self.assertLessEqual(inside, set(without.capability()[1][0].split()))
        for word in (b"IDLE", b"UIDPLUS", b"MOVE", b"NAMESPACE", b"SPECIAL-USE"):
            self.assertIn(word, inside)
        if self.gate:
            # What would let mail or commands pass unseen.
            for word in (b"COMPRESS=DEFLATE", b"NOTIFY", b"URLAUTH", b"CATENATE"):
                self.assertNotIn(word, inside)

    def test_append_of_20_megabytes(self):
        body = base64.encodebytes(random.Random(20).randbytes(15_000_000)).replace(b"\n", b"\r\n")
        raw = lines("Subject: large", "Content-Transfer-Encoding: base64", "") + body
        self.assertGreater(len(raw), 20_000_000)
        for door, tls in (("imap", False), ("imaps", False)):
            with self.subTest(door=door):
                session = self.imap(door=door, tls=tls)
                ok(self, session.append("Sent", "(\\Seen)", None, raw))
                _, (count,) = session.select("Sent", readonly=True)
                got = session.fetch(count, "(BODY.PEEK[])")[1][0][1]
                self.assertEqual(len(got), len(raw))
                self.assertTrue(got == raw, "the 20 MB came back changed")
                part = session.fetch(count, "(BODY.PEEK[]<1000000.5000>)")[1][0][1]
                self.assertEqual(part, raw[1_000_000:1_005_000])

    def test_literals_by_hand(self):
        wire = self.wire("imap")
        wire.line()
        wire.send(b"a LOGIN {5}\r\n")
        self.assertTrue(wire.line().startswith(b"+"))
        wire.send(b"alice {12}\r\n")
        self.assertTrue(wire.line().startswith(b"+"))
        wire.send(b"alice-secret\r\n")
        self.assertIn(b"a OK", wire.until(b"a "))
        wire.send(b"b SELECT {5+}\r\nINBOX\r\n")
        self.assertIn(b"b OK", wire.until(b"b "))
        # A literal that looks like commands must stay a literal.
        trap = b"x LOGOUT\r\ny SELECT {999999999}\r\n. STARTTLS\r\n"
        wire.send(b"c APPEND Sent {%d+}\r\n" % len(trap), trap, b"\r\n")
        self.assertIn(b"c OK", wire.until(b"c "))
        wire.send(b"d APPEND Sent (\\Seen) {%d}\r\n" % len(trap))
        self.assertTrue(wire.line().startswith(b"+"))
        wire.send(trap, b"\r\n")
        self.assertIn(b"d OK", wire.until(b"d "))
        wire.send(b"e EXAMINE Sent\r\nf FETCH 1:2 BODY.PEEK[]\r\n")
        self.assertIn(b"e OK", wire.until(b"e "))
        self.assertEqual(wire.until(b"f ").count(trap), 2)
        # Neither does a command come out of one that the server overlooks, its grammar having failed before it.
        for broken in (b'SELECT foo" bar"', b"APPEND )"):
            wire.send(b"z %s {23+}\r\nz CREATE Overlooked\r\n\r\n\r\ny NOOP\r\n" % broken)
            self.assertIn(b"z BAD", wire.until(b"z "))
            self.assertNotIn(b"z ", wire.until(b"y "))
        wire.send(b'x LIST "" Overlooked\r\n')
        self.assertNotIn(b"Overlooked", wire.until(b"x "))
        wire.send(b"g NOOP\r\nh LOGOUT\r\n")
        self.assertIn(b"g OK", wire.until(b"g "))
        self.assertIn(b"h OK", wire.until(b"h "))
        self.assertEqual(wire.rest(5), b"")

    def test_pipelined_tags(self):
        self.fill("alice", 3)
        wire = self.wire("imap")
        wire.line()
        wire.send(b"a LOGIN alice alice-secret\r\n")
        wire.until(b"a ")
        wire.send(b"b SELECT INBOX\r\n")
        wire.until(b"b ")
        tags = [b"t%d" % number for number in range(40)]
        wire.send(b"".join(tag + b" FETCH 1:3 (FLAGS BODY.PEEK[])\r\n" for tag in tags), b"end NOOP\r\n")
        said = wire.until(b"end ")
        for tag in tags:
            self.assertRegex(said, rb"(?m)^" + tag + rb" OK")
        self.assertEqual(len(re.findall(rb"(?m)^\* \d+ FETCH", said)), 120)

    def test_idle_by_hand(self):
        for door, tls in (("imap", False), ("imap", True), ("imaps", True)):
            with self.subTest(door=door, tls=tls):
                self.lab.empty("alice")
                wire = self.wire(door)
                if door == "imaps":
                    wire.start_tls()
                wire.line()
                if door == "imap" and tls:
                    wire.send(b"s STARTTLS\r\n")
                    wire.until(b"s OK")
                    wire.start_tls()
                wire.send(b"a LOGIN alice alice-secret\r\nb SELECT INBOX\r\n")
                wire.until(b"b OK")
                for count in (1, 2):
                    wire.send(b"i%d IDLE\r\n" % count)
                    wire.until(b"+")
                    self.send(self.message(f"idle-{count}"), "alice@example.org", port=self.direct("mx"))
                    self.assertIn(b"* %d EXISTS\r\n" % count, wire.until(b"* %d EXISTS" % count))
                    wire.send(b"DONE\r\n")
                    wire.until(b"i%d OK" % count)
                wire.send(b"c LOGOUT\r\n")
                wire.until(b"c OK")

    def test_half_close(self):
        """A client that closes its sending side still gets the answers."""
        wire = self.wire("imap")
        wire.line()
        wire.send(b"a LOGIN alice alice-secret\r\nb LIST \"\" *\r\nc LOGOUT\r\n")
        wire.socket.shutdown(socket.SHUT_WR)
        said = wire.until(b"c OK")
        self.assertIn(b"\nb OK", said)


class SyncTest(ClientCase):
    def mbsync(self, door, kind):
        folder = self.lab.folder / "tmp" / f"mbsync-{door}-{kind}"
        (folder / "mail").mkdir(parents=True, exist_ok=True)
        config = folder / "mbsyncrc"
        tls = f"SSLType {kind}\nCertificateFile {self.lab.ca}\n" if kind != "None" else "SSLType None\n"
        config.write_text(
            f"IMAPStore far\nHost localhost\nPort {self.door(door)}\nUser alice\nPass {USERS['alice']}\n{tls}"
            f"Timeout 60\n\nMaildirStore near\nPath {folder}/mail/\nInbox {folder}/mail/INBOX\nSubFolders Verbatim\n\n"
            f"Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nRemove Both\nExpunge Both\nSync All\n"
            f"SyncState *\nCopyArrivalDate yes\n"
        )
        self.lab.run("mbsync", "-c", config, "-V", "all", env=dict(os.environ, HOME=str(folder)))
        return folder / "mail"

    def test_mbsync_both_directions(self):
        for door, kind in (("imap", "None"), ("imap", "STARTTLS"), ("imaps", "IMAPS")):
            with self.subTest(door=door, kind=kind):
                self.lab.empty("alice")
                sent = self.fill("alice", 12)
                near = self.mbsync(door, kind)
                found = sorted((near / "INBOX").glob("*/*"))
                self.assertEqual(sorted(without_trace(without_tuid(read_crlf(path))) for path in found), sorted(sent))
                self.assertTrue((near / "Junk").is_dir())
                # Something new, a flag, a deletion and a new folder from the near side …
                fresh = self.message("from-near")
                (near / "INBOX" / "new" / "1.near").write_bytes(fresh.replace(b"\r\n", b"\n"))
                found[0].rename(near / "INBOX" / "cur" / (re.sub(r":.*", "", found[0].name) + ":2,FS"))
                found[1].rename(near / "INBOX" / "cur" / (re.sub(r":.*", "", found[1].name) + ":2,T"))
                for sub in ("cur", "new", "tmp"):
                    (near / "Projects" / sub).mkdir(parents=True)
                # … and something new from the far side, in one run.
                self.send(self.message("from-far"), "alice@example.org", port=self.direct("mx"))
                self.lab.wait_delivered("alice", 13)
                self.mbsync(door, kind)
                session = self.imap(port=self.direct("imap"))
                self.assertEqual(session.select("INBOX", readonly=True)[1], [b"13"])
                self.assertEqual(len(session.search(None, "FLAGGED")[1][0].split()), 1)
                (position,) = session.search(None, "HEADER", "Message-ID", "from-near")[1][0].split()
                got = session.fetch(position.decode(), "(BODY.PEEK[])")[1][0][1]
                self.assertEqual(without_tuid(got), fresh)
                self.assertIn(b"Projects", b" ".join(session.list()[1]))
                self.assertEqual(len(list((near / "INBOX").glob("[cn]*/*"))), 13)

    def fetchmail(self, protocol, door, tls):
        folder = self.lab.folder / "tmp" / f"fetchmail-{door}-{tls}"
        folder.mkdir(exist_ok=True)
        box = folder / "box"
        script = folder / "deliver"
        script.write_text(f"#!/bin/sh\ncat > {box}.$$ && mv {box}.$$ {box}.done.$$\n")
        script.chmod(0o755)
        ssl = {
            "none": "sslproto ''",
            "starttls": f"sslproto 'TLS1.2+' sslcertfile '{self.lab.ca}' sslcertck sslcommonname 'localhost'",
            "implicit": f"ssl sslcertfile '{self.lab.ca}' sslcertck sslcommonname 'localhost'",
        }[tls]
        config = folder / "fetchmailrc"
        config.write_text(
            f"set no bouncemail\npoll localhost proto {protocol} port {self.door(door)} auth password timeout 60\n"
            f"  user 'alice' password '{USERS['alice']}' fetchall no rewrite mda '{script}' {ssl}\n"
        )
        config.chmod(0o600)
        env = dict(os.environ, HOME=str(folder), FETCHMAILHOME=str(folder))
        self.lab.run("fetchmail", "--nodetach", "--nosyslog", "-f", config, env=env)
        return [read_crlf(path) for path in folder.glob("box.done.*")]

    def test_fetchmail(self):
        for protocol, door, tls in (
            ("pop3", "pop3", "none"), ("pop3", "pop3", "starttls"), ("pop3", "pop3s", "implicit"),
            ("imap", "imap", "none"), ("imap", "imap", "starttls"), ("imap", "imaps", "implicit"),
        ):
            with self.subTest(protocol=protocol, tls=tls):
                self.lab.empty("alice")
                sent = self.fill("alice", 6)
                got = self.fetchmail(protocol, door, tls)
                # fetchmail puts its own Received on top, below the server's Return-Path.
                self.assertEqual(sorted(without_trace(raw) for raw in got), sorted(sent))
                wait_until(lambda: not self.lab.delivered("alice"), 10, lambda: "fetchmail left mail on the server")


def ok(case, answer, status="OK"):
    case.assertEqual(answer[0], status, answer)
    return answer[1]


def without_tuid(raw):
    """Without the line by which mbsync finds its own upload again."""
    return re.sub(rb"X-TUID: .*\r\n", b"", raw)


def read_crlf(path):
    return path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


if __name__ == "__main__":
    unittest.main()
