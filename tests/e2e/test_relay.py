"""Gatepost sits on an address the upstream trusts, and must never open the upstream's relay."""

import unittest

from case import Case, needs_gate, transact
from messages import ham

# The lab's Postfix takes mail for anywhere from 127.0.0.0/8, as real ones do from their gateway. Each of these must be
# refused by the gate, and the upstream must not even hear of it.
FOREIGN = [
    ("foreign domain", "victim@foreign.example"),
    ("foreign domain in capitals", "victim@FOREIGN.EXAMPLE"),
    ("subdomain of ours", "victim@sub.example.org"),
    ("ours as a prefix", "victim@example.org.foreign.example"),
    ("ours as a suffix", "victim@notexample.org"),
    ("percent hack", "victim%foreign.example@example.org"),
    ("percent hack, no domain", "victim%foreign.example"),
    ("source route", "@example.org:victim@foreign.example"),
    ("source route of two", "@example.org,@mail.example.org:victim@foreign.example"),
    ("quoted local part", '"victim@foreign.example"@example.org'),
    ("quoted local part, no domain", '"victim@foreign.example"'),
    ("two at signs", "victim@foreign.example@example.org"),
    ("two at signs, ours first", "alice@example.org@foreign.example"),
    ("bang path", "foreign.example!victim@example.org"),
    ("bang path, no domain", "foreign.example!victim"),
    ("address literal", "victim@[192.0.2.1]"),
    ("loopback literal", "alice@[127.0.0.1]"),
    ("IPv6 literal", "alice@[IPv6:::1]"),
    ("trailing dot", "victim@foreign.example."),
    ("no domain", "victim"),
    ("empty domain", "victim@"),
    ("empty local part", "@foreign.example"),
    ("percent and at", "victim%foreign.example@mail.example.org"),
    ("space before at", '"victim @foreign.example" @example.org'),
    ("comment", "victim@foreign.example(comment@example.org)"),
    ("backslash", "victim\\@foreign.example@example.org"),
    ("semicolon", "victim@foreign.example;alice@example.org"),
    ("comma", "victim@foreign.example,alice@example.org"),
    ("angle brackets inside", "victim@foreign.example><alice@example.org"),
    ("full-width dot", "alice@example\uff0eorg"),
]


class RelayTest(Case):
    def _attempt(self, door, recipient, port=None):
        """The reply to a raw RCPT for the recipient, and what the upstream's log says of it."""
        before = len(self.lab.postfix_log())
        wire = self.wire(door, port)
        wire.reply()
        wire.send(b"EHLO client.example\r\nMAIL FROM:<relay@evil.example>\r\n")
        wire.reply()
        wire.reply()
        wire.send(f"RCPT TO:<{recipient}>\r\n".encode())
        reply = wire.reply()
        wire.send(b"QUIT\r\n")
        wire.rest(2)
        return reply, self.lab.postfix_log()[before:]

    @needs_gate
    def test_mx_refuses_and_the_upstream_never_hears(self):
        self._refused("mx", [*FOREIGN])

    @needs_gate
    def test_submission_refuses_everybody_without_a_password(self):
        self._refused("submission", [*FOREIGN, ("our own user", "alice@example.org"), ("postmaster", "postmaster")])

    def _refused(self, door, table):
        for name, recipient in table:
            with self.subTest(door=door, name=name, recipient=recipient):
                reply, log = self._attempt(door, recipient)
                self.assertEqual(reply[:1], b"5", reply)
                for trace in ("victim", "to=<", "RCPT"):
                    self.assertNotIn(trace, log, "the upstream heard of it")

    @needs_gate
    def test_refused_after_a_good_recipient_too(self):
        before = len(self.lab.postfix_log())
        session = self.smtp()
        session.mail("relay@evil.example")
        self.assertEqual(session.rcpt("alice@example.org")[0], 250)
        self.assertEqual(session.rcpt("victim@foreign.example")[0] // 100, 5)
        self.assertEqual(session.data(ham("mixed@evil.example"))[0], 250)
        session.quit()
        self.lab.wait_delivered("alice", 1)
        self.assertNotIn("victim", self.lab.postfix_log()[before:])

    @needs_gate
    def test_starttls_gives_no_right_to_relay(self):
        session = self.smtp(tls=True)
        session.mail("relay@evil.example")
        self.assertEqual(session.rcpt("victim@foreign.example")[0] // 100, 5)

    def test_without_the_gate_the_upstream_would_relay(self):
        """The yardstick: the upstream trusts our address, so that only the gate stands in between."""
        reply, _ = self._attempt("mx", "victim@foreign.example", self.direct("mx"))
        self.assertEqual(reply[:3], b"250")

    def test_our_domain_passes(self):
        for recipient in ("alice@example.org", "ALICE@EXAMPLE.ORG", "alice+detail@Example.Org", '"alice"@example.org'):
            with self.subTest(recipient):
                reply, _ = self._attempt("mx", recipient)
                self.assertEqual(reply[:3], b"250", reply)

    def test_authenticated_users_may_send_anywhere(self):
        for number, (door, tls) in enumerate((("submission", True), ("smtps", False))):
            with self.subTest(door):
                session = self.smtp(door, tls=tls, user="bob")
                transact(session, ham(f"out-{number}@example.org"), f"friend{number}@foreign.example", "bob@example.org")
                session.quit()
                self.lab.wait_idle()
                self.assertIn(f"to=<friend{number}@foreign.example>", self.lab.postfix_log())

    def test_a_failed_login_gives_no_right_to_relay(self):
        session = self.smtp("submission", tls=True)
        self.assertEqual(session.docmd("AUTH PLAIN AGJvYgB3cm9uZw==")[0], 535)
        session.mail("bob@example.org")
        code = session.rcpt("victim@foreign.example")[0]
        if self.gate:
            self.assertEqual(code // 100, 5)


if __name__ == "__main__":
    unittest.main()
