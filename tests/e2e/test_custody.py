"""The promise of custody, by force: the gate is killed at random instants under load, and no acknowledged message is lost.

15 kills as a rule, 200 with E2E_ALL=1 (`make test-all`); E2E_KILLS=N and E2E_SEED=N choose others.
"""

import collections
import json
import os
import random
import smtplib
import threading
import time
import unittest

from case import Case, needs_gate, transact
from messages import gtube, ham, lines, phish, trace_field

SENDERS = 6
KILLS = int(os.environ.get("E2E_KILLS", 200 if os.environ.get("E2E_ALL") else 15))


@needs_gate
class CustodyTest(Case):
    def test_kill_9(self):
        seed = os.environ.get("E2E_SEED") or str(random.SystemRandom().randrange(10**6))
        dice = random.Random(seed)
        load = Load(self.gate.ports["mx"], seed)
        load.start()
        try:
            for kill in range(KILLS):
                # Short and long lives: from "just ready" to "well under way".
                time.sleep(dice.choice([0.0, 0.01, 0.05]) + dice.expovariate(8))
                self.gate.kill()
                self.gate.start()
            time.sleep(0.5)
        finally:
            load.stop()
        self.lab.wait_idle(120)
        counts = collections.Counter()
        for path in self.lab.delivered("alice"):
            counts[(trace_field(path.read_bytes(), "Message-ID") or "").strip("<>")] += 1
        held = collections.Counter()
        for entry in self.gate.quarantine():
            held.update(id for id in load.ids_in(json.dumps(entry)))
        lost = [id for id in load.acknowledged if not counts[id] and not held[id]]
        by_class = collections.Counter(id.split("-")[0] for id in load.acknowledged)
        twice = sum(1 for id in load.acknowledged if counts[id] + held[id] > 1)
        print(
            f"{KILLS} kills, seed {seed}: {load.tried} tried, {len(load.acknowledged)} acknowledged {dict(by_class)}, "
            f"{len(counts)} in the mailbox, {len(held)} held, {twice} more than once, {len(lost)} lost … ",
            end="", flush=True,
        )
        self.assertEqual(lost, [], f"acknowledged and nowhere, seed {seed}")
        self.assertGreater(len(load.acknowledged), KILLS, "hardly any load")
        for kind in ("ham", "phish", "gtube", "large"):
            self.assertGreater(by_class[kind], 0, f"no {kind} among the acknowledged")
        # GTUBE is never in the mailbox and ham never in the quarantine, also where a crash came in between.
        self.assertEqual([id for id in counts if id.startswith("gtube")], [])
        self.assertEqual([id for id in held if not id.startswith("gtube")], [])
        self._check_the_store()

    def _check_the_store(self):
        """What the quarantine lists after all these crashes can be shown."""
        for entry in self.gate.quarantine()[:20]:
            self.assertIn("Test of the spam filter", self.gate.command("quarantine", "show", entry["id"]).stdout)


class Load:
    """Senders in threads, each with its own stream of messages; remembers what was acknowledged with 2xx."""

    def __init__(self, port, seed):
        self.port, self.seed = port, seed
        self.acknowledged = []
        self.tried = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(SENDERS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(60)

    def ids_in(self, text):
        """The Message-IDs of ours that `text` mentions."""
        start = text.find("gtube-"), text.find("ham-"), text.find("phish-"), text.find("large-")
        for at in start:
            if at >= 0:
                yield text[at:].split("@custody.example")[0] + "@custody.example"

    def _send(self, sender):
        dice = random.Random(f"{self.seed}-{sender}")
        session, number = None, 0
        while not self.ended.is_set():
            number += 1
            kind = dice.choices(["ham", "phish", "gtube", "large"], [5, 3, 3, 1])[0]
            id = f"{kind}-{sender}-{number}@custody.example"
            with self.lock:
                self.tried += 1
            try:
                session = session or smtplib.SMTP("127.0.0.1", self.port, "load.example", timeout=30)
                transact(session, MAKERS[kind](id), "alice@example.org", sender=f"{kind}@custody.example")
                with self.lock:
                    self.acknowledged.append(id)
                if dice.random() < 0.2:
                    session.quit()
                    session = None
            except (smtplib.SMTPException, OSError):
                if session:
                    session.close()
                session = None
                time.sleep(0.01)
        if session:
            session.close()


MAKERS = {
    "ham": ham,
    "phish": phish,
    "gtube": gtube,
    "large": lambda id: ham(id) + lines("a line of a longer report, as people send them") * 5_000,
}


if __name__ == "__main__":
    unittest.main()
