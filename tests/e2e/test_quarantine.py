"""What happens to spam at the SMTP gate: the verdict, the quarantine and its commands, and what the metrics say of it."""

import json
import re
import unittest

from case import Case, needs_gate
from lab import json_objects
from messages import BIG, GTUBE, gtube, ham, lines, phish, trace_field, without_trace

# The catalogue of metric families, without the prefix. `NEEDED` must be there after a few messages.
NEEDED = (
    "build_info sessions sessions_total messages_total judge_seconds message_bytes rule_hits_total bytes_total "
    "upstream_connect_seconds quarantine_messages quarantine_bytes custody_total auth_failures_total"
).split()
KNOWN = {
    *NEEDED,
    *(
        "added_seconds rule_seconds_total probe_seconds upstream_up limit_reached_total learned_total store_seconds "
        "reloads_total certificate_expiry_seconds breaker_open dns_list_dead released_total journal_dropped_rows"
    ).split(),
}
CLASSES = {"ham", "unsure", "spam", "certain", "malware", "unscanned"}
ACTIONS = {"deliver", "stamp", "quarantine", "reject", "defer", "discard", "leave", "move", "withhold"}


@needs_gate
class QuarantineTest(Case):
    def setUp(self):
        self.lab.empty("alice")
        self.lab.empty("bob")
        for held in self.gate.quarantine():
            self.gate.command("quarantine", "delete", "--yes", held["id"], check=False)

    def hold(self, name, to="alice@example.org", raw=None):
        """Sends a GTUBE message; returns its entry in the quarantine's list."""
        reply = self.send(raw or gtube(f"{name}@bulk.example"), to, sender="bulk@bulk.example")
        found = [held for held in self.gate.quarantine() if f"{name}@bulk.example" in json.dumps(held)]
        self.assertEqual(len(found), 1, f"reply {reply}, quarantine {self.gate.quarantine()}")
        return found[0]

    def test_gtube_is_held_and_not_delivered(self):
        held = self.hold("held")
        text = json.dumps(held)
        self.assertIn("alice@example.org", text)
        self.assertIn("bulk@bulk.example", text)
        self.send(ham("after@partner.example"), "alice@example.org")
        self.assertEqual(len(self.lab.wait_delivered("alice", 1)), 1)

    def test_ham_is_stamped_and_delivered(self):
        self.send(ham(), "alice@example.org")
        raw = self.lab.wait_delivered("alice", 1)[0].read_bytes()
        self.assertEqual(trace_field(raw, "X-Spam-Flag"), "NO")
        self.assertRegex(trace_field(raw, "X-Spam-Status"), r"^No, score=-?\d+\.\d required=5\.0")
        self.assertEqual(without_trace(raw).replace(b"\n", b"\r\n"), ham())

    def test_phish_is_stamped_and_delivered(self):
        self.send(phish(), "alice@example.org")
        raw = self.lab.wait_delivered("alice", 1)[0].read_bytes()
        self.assertEqual(trace_field(raw, "X-Spam-Flag"), "YES")
        self.assertGreaterEqual(float(trace_field(raw, "X-Spam-Score")), 5.0)
        self.assertRegex(trace_field(raw, "X-Spam-Level"), r"^\*{5,}")
        self.assertRegex(trace_field(raw, "X-Spam-Status"), r"^Yes, score=\d+\.\d required=5\.0")
        self.assertEqual(without_trace(raw).replace(b"\n", b"\r\n"), phish())

    def test_one_verdict_by_every_way_in(self):
        for name, raw in (("ham", ham()), ("phish", phish())):
            with self.subTest(name):
                self.lab.empty("alice")
                self.lab.empty("bob")
                self.send(raw, "alice@example.org")
                self.send(raw, "alice@example.org", door="submission", user="bob")
                self.send(raw, "alice@example.org", door="smtps", user="bob")
                delivered = [path.read_bytes() for path in self.lab.wait_delivered("alice", 3)]
                scores = {trace_field(message, "X-Spam-Score") for message in delivered}
                self.assertEqual(len(scores), 1, scores)
                (score,) = scores
                scanned = json_objects(self.gate.command("scan", "--json", "-", input=raw.decode()).stdout)[0]
                self.assertEqual(f"{scanned['score']:.1f}", score)
                # By retrieval: the message put into the mailbox behind the gate's back, read by POP3 through the gate.
                self.send(raw, "bob@example.org", port=self.direct("mx"))
                self.lab.wait_delivered("bob", 1)
                got = b"\r\n".join(self.pop3("bob").retr(1)[1])
                seen = trace_field(got, "X-Spam-Score")
                if name == "phish":
                    self.assertEqual(trace_field(got, "X-Spam-Flag"), "YES")
                if seen is not None:
                    self.assertEqual(seen, score)

    def test_release_delivers_the_original(self):
        original = gtube("release@bulk.example")
        held = self.hold("release", raw=original)
        self.gate.command("quarantine", "release", held["id"])
        raw = self.lab.wait_delivered("alice", 1)[0].read_bytes()
        self.assertEqual(without_trace(raw).replace(b"\n", b"\r\n"), original)
        self.assertEqual(trace_field(raw, "Return-Path"), "<bulk@bulk.example>")
        self.assertEqual(trace_field(raw, "Delivered-To"), "alice@example.org")
        self.assertIn(self._state(held["id"]), ("gone", "released"))
        # Released by another process, and counted by the gateway.
        self.assertIn('gatepost_released_total{class="certain"} ', self.gate.http("/metrics")[1])

    def test_release_with_several_recipients_and_odd_bytes(self):
        original = lines("Subject: odd", "Message-ID: <odd@bulk.example>", "", ".", "..", "äöü " + "x" * 3000, GTUBE, ".")
        session = self.smtp()
        session.mail("bulk@bulk.example", ["BODY=8BITMIME"])
        session.rcpt("alice@example.org")
        session.rcpt("bob@example.org")
        self.assertEqual(session.data(original)[0], 250)
        (held,) = self.gate.quarantine()
        self.gate.command("quarantine", "release", held["id"])
        for user in ("alice", "bob"):
            raw = self.lab.wait_delivered(user, 1)[0].read_bytes()
            self.assertEqual(without_trace(raw).replace(b"\n", b"\r\n"), original)

    def test_release_by_another_upstream(self):
        """For what came from an authenticated sender: its own upstream may want a login that only the sender has."""
        session = self.smtp("submission", tls=True, user="bob")
        session.sendmail("bob@example.org", ["alice@example.org"], gtube("outgoing@example.org"))
        (held,) = self.gate.quarantine()
        refused = self.gate.command("quarantine", "release", held["id"], "--via", "nowhere", check=False)
        self.assertEqual(refused.returncode, 1, refused)
        self.assertIn("nowhere", refused.stdout + refused.stderr)
        self.assertEqual(self._state(held["id"]), "held")
        self.gate.command("quarantine", "release", held["id"], "--via", "mx-upstream")
        self.lab.wait_delivered("alice", 1)

    def test_release_while_the_upstream_is_down_keeps_it(self):
        held = self.hold("down")
        self.lab.stop_postfix()
        try:
            done = self.gate.command("quarantine", "release", held["id"], check=False)
            self.assertEqual(done.returncode, 1, done)
        finally:
            self.lab.start_postfix()
        self.assertNotIn(self._state(held["id"]), ("gone", "released"))
        self.gate.command("quarantine", "release", held["id"])
        self.lab.wait_delivered("alice", 1)

    def test_delete(self):
        held = self.hold("delete")
        self.gate.command("quarantine", "delete", "--yes", held["id"])
        self.assertEqual(self._state(held["id"]), "gone")
        self.assertEqual(self.gate.command("quarantine", "release", held["id"], check=False).returncode, 1)
        self.assertEqual(self.lab.delivered("alice"), [])

    def test_show(self):
        held = self.hold("show")
        said = self.gate.command("quarantine", "show", held["id"]).stdout
        for piece in ("alice@example.org", "bulk@bulk.example", "Test of the spam filter"):
            self.assertIn(piece, said)

    def test_list_for_people(self):
        self.hold("people")
        said = self.gate.command("quarantine", "list").stdout
        self.assertIn("bulk@bulk.example", said)

    def test_unknown_ids(self):
        for verb in ("show", "release", "delete"):
            for wrong in ("01900000-0000-7000-8000-000000000000", "../../etc/passwd", "x"):
                with self.subTest(verb=verb, id=wrong):
                    yes = ["--yes"] if verb == "delete" else []
                    done = self.gate.command("quarantine", verb, *yes, wrong, check=False)
                    self.assertIn(done.returncode, (1, 2))
                    self.assertTrue(done.stderr.strip())

    def test_a_large_one_is_held_whole(self):
        original = gtube("large@bulk.example") + b"padding line of this message\r\n" * (BIG // 30)
        held = self.hold("large", raw=original)
        self.gate.command("quarantine", "release", held["id"])
        raw = self.lab.wait_delivered("alice", 1)[0].read_bytes()
        self.assertEqual(without_trace(raw).replace(b"\n", b"\r\n"), original)

    def test_survives_a_restart(self):
        held = self.hold("restart")
        self.gate.stop()
        self.gate.start()
        self.assertIn(held["id"], [entry["id"] for entry in self.gate.quarantine()])

    def _state(self, id):
        for held in self.gate.quarantine():
            if held["id"] == id:
                return "released" if re.search(r'"(state|status)": "released"', json.dumps(held)) else "held"
        return "gone"


@needs_gate
class ActionTest(Case):
    """The other actions of a policy: reject, defer, discard, deliver."""

    def _with(self, **smtp):
        gate = self.lab.gate(policies={"default": {"smtp": smtp}})
        self.addCleanup(gate.stop)
        return gate

    def _send(self, gate, raw):
        session = self.smtp(port=gate.ports["mx"])
        session.mail("bulk@bulk.example")
        session.rcpt("alice@example.org")
        code, text = session.data(raw)
        follow = session.noop()[0]
        self.assertEqual(follow, 250, "the session goes on")
        session.quit()
        self.lab.wait_idle()
        return code, text

    def test_actions(self):
        for action, family, delivered in (
            ("reject", 5, 0), ("defer", 4, 0), ("discard", 2, 0), ("quarantine", 2, 0), ("stamp", 2, 1), ("deliver", 2, 1),
        ):
            with self.subTest(action):
                self.lab.empty("alice")
                gate = self._with(certain=action)
                code, text = self._send(gate, gtube(f"{action}@bulk.example"))
                self.assertEqual(code // 100, family, text)
                found = self.lab.delivered("alice")
                self.assertEqual(len(found), delivered)
                self.assertEqual(len(gate.quarantine()), 1 if action == "quarantine" else 0)
                if delivered:
                    flag = trace_field(found[0].read_bytes(), "X-Spam-Flag")
                    self.assertEqual(flag, "YES" if action == "stamp" else flag)
                if action == "reject":
                    self.assertEqual(code, 550)
                    self.assertIn(b"5.7.1", text)


@needs_gate
class MetricsTest(Case):
    def test_live_and_ready(self):
        self.assertEqual(self.gate.http("/live")[0], 200)
        self.assertEqual(self.gate.http("/ready")[0], 200)
        self.assertEqual(self.gate.http("/nothing")[0], 404)

    def test_families(self):
        self.send(ham(), "alice@example.org")
        self.send(phish(), "alice@example.org")
        self.send(gtube(), "alice@example.org")
        self.send(ham(), "alice@example.org", door="smtps", user="bob")
        self.lab.wait_delivered("alice", 3)
        self.pop3().retr(1)
        session = self.smtp("submission", tls=True)
        session.docmd("AUTH PLAIN AGJvYgB3cm9uZw==")
        self.imap()
        status, text = self.gate.http("/metrics")
        self.assertEqual(status, 200)
        types, samples = parse_metrics(text)
        ours = {name.removeprefix("gatepost_") for name in types if name.startswith("gatepost_")}
        self.assertEqual(sorted(set(NEEDED) - ours), [], "families missing")
        self.assertEqual(sorted(ours - KNOWN), [], "families not in the catalogue")
        self.assertTrue(any(name.startswith("process_") for name in types))
        for name in ("judge_seconds", "message_bytes"):
            self.assertEqual(types[f"gatepost_{name}"], "histogram")
        for name, labels, value in samples:
            listener = labels.get("listener", "mx")
            self.assertIn(listener, self.gate.ports, f"{name} {labels}")
            self.assertIn(labels.get("class", "ham"), CLASSES | {"any"}, f"{name} {labels}")
            self.assertIn(labels.get("action", "stamp"), ACTIONS, f"{name} {labels}")
            self.assertNotIn("example", " ".join(labels.values()), "a peer's value in a label")
        count = {
            (labels["listener"], labels["class"]): value
            for name, labels, value in samples
            if name == "gatepost_messages_total" and value
        }
        self.assertEqual(count.get(("mx", "ham")), 1)
        self.assertEqual(count.get(("mx", "spam")), 1)
        self.assertEqual(count.get(("mx", "certain")), 1)
        self.assertEqual(count.get(("smtps", "ham")), 1)
        single = {name: value for name, labels, value in samples if not labels}
        self.assertEqual(single["gatepost_quarantine_messages"], 1)
        self.assertGreater(single["gatepost_quarantine_bytes"], 100)


def parse_metrics(text):
    """Types by family, and samples as (name, labels, value); raises on a line that is neither."""
    types, samples = {}, []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            types[name] = kind
        elif line and not line.startswith("#"):
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)', line)
            if not match:
                raise AssertionError(f"not a sample: {line}")
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            samples.append((match[1], labels, float(match[3])))
    return types, samples


if __name__ == "__main__":
    unittest.main()
