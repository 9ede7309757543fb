#!/usr/bin/env python3
"""`make demo`: a real Postfix and Dovecot, Gatepost in front, three messages through it, and one table of what became of them.

Stays up until Ctrl-C so that one can look around; with --once it ends by itself, with status 0 only if ham was
delivered unflagged, phish delivered flagged, GTUBE held back, and `gatepost scan` says the same of all three.
Leaves nothing: the lab removes processes and folder, however this ends.
"""

import imaplib
import json
import os
import poplib
import signal
import sys
import textwrap
import time
import unicodedata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lab as laboratory
from lab import DOMAIN, USERS, Lab, LabError, have_gate, json_objects
from messages import gtube, ham, phish, trace_field

READER = "alice"
MESSAGES = [
    # name, message, listener, how it is said, swaks options, class expected
    ("ham", ham("demo-ham@partner.example"), "mx", "SMTP with STARTTLS", ["-tls"], {"ham"}),
    ("phish", phish("demo-phish@bank-login.example"), "submission", "submission, STARTTLS, AUTH PLAIN",
     ["-tls", "--auth", "PLAIN", "--auth-user", "bob", "--auth-password", USERS["bob"]], {"spam"}),
    ("GTUBE", gtube("demo-gtube@bulk.example"), "smtps", "SMTPS, AUTH LOGIN",
     ["-tlsc", "--auth", "LOGIN", "--auth-user", "bob", "--auth-password", USERS["bob"]], {"certain"}),
]


class Outcome:
    """What became of one message, as servers and clients tell it."""

    def __init__(self, name, raw, way, expected):
        self.name, self.raw, self.way, self.expected = name, raw, way, expected
        self.id = trace_field(raw, "Message-ID").strip("<>")
        self.reply = ""
        self.copies = {}  # which client → the message as it was read
        self.held = None
        self.scan = None

    @property
    def stamped(self):
        return next((raw for raw in self.copies.values()), None)

    def verdict(self):
        if self.held:
            return str(self.held.get("class", "?"))
        flag = self.stamped and trace_field(self.stamped, "X-Spam-Flag")
        if flag is None:
            return "none (no gate)" if not have_gate() else "?"
        if self.scan and (flag == "YES") == (self.scan["class"] in ("spam", "certain", "malware")):
            return self.scan["class"]
        return "spam" if flag == "YES" else "ham"

    def score(self):
        if self.held:
            value = self.held.get("score", self.held.get("points"))
            return f"{float(value):.1f}" if value is not None else "?"
        return (self.stamped and trace_field(self.stamped, "X-Spam-Score")) or "–"

    def happened(self):
        if self.held:
            return "quarantined; the sender was told 250"
        if not self.copies:
            return f"refused or lost: {self.reply}"
        flag = trace_field(self.stamped, "X-Spam-Flag")
        return f"delivered with X-Spam-Flag: {flag}" if flag else "delivered"

    def place(self):
        places = []
        if self.held:
            places.append(f"quarantine {self.held['id']}")
        if self.copies:
            places.append(f"{READER}'s INBOX, read by " + ", ".join(self.copies))
        return "; ".join(places) or "nowhere"

    def complaints(self):
        """Every expectation that does not hold."""
        flag = self.stamped and trace_field(self.stamped, "X-Spam-Flag")
        wanted_readers = 0 if have_gate() and self.name == "GTUBE" else 4
        if len(self.copies) != wanted_readers:
            yield f"{self.name}: read by {len(self.copies)} clients instead of {wanted_readers}"
        if not have_gate():
            return
        if self.name == "GTUBE" and not self.held:
            yield "GTUBE: not in the quarantine"
        if self.name != "GTUBE" and self.held:
            yield f"{self.name}: in the quarantine"
        if self.name == "ham" and flag == "YES":
            yield "ham: flagged as spam"
        if self.name == "phish" and flag != "YES":
            yield f"phish: X-Spam-Flag is {flag}, not YES"
        if not self.scan or self.scan["class"] not in self.expected:
            yield f"{self.name}: `gatepost scan` says {self.scan and self.scan['class']}, not {' or '.join(self.expected)}"
        if self.scan and f"{self.scan['score']:.1f}" != self.score():
            yield f"{self.name}: `gatepost scan` says {self.scan['score']:.1f}, the gate said {self.score()}"


def send(lab, doors, outcome, door, options):
    path = lab.folder / "tmp" / f"{outcome.name}.eml"
    path.write_bytes(outcome.raw)
    sender = trace_field(outcome.raw, "From").split("<")[-1].rstrip(">")
    done = lab.run(
        "swaks", "--server", "127.0.0.1", "--port", doors[door], *options, "--tls-verify", "--tls-ca-path", lab.ca,
        "--from", sender, "--to", f"{READER}@{DOMAIN}", "--ehlo", "client.example", "--data", f"@{path}",
        "--timeout", "30", check=False,
    )
    replies = [line[4:].strip() for line in done.stdout.splitlines() if line.startswith(("<-  ", "<~  ", "<** ", "<~* "))]
    outcome.reply = next((reply for reply in reversed(replies) if not reply.startswith("221")), done.stderr.strip())


def read_back(lab, doors):
    """All messages of the reader's INBOX, by client: curl and Python, POP3 and IMAP."""
    user, password = READER, USERS[READER]
    tls = lab.tls()
    found = {}

    session = poplib.POP3("localhost", doors["pop3"], timeout=30)
    session.stls(tls)
    session.user(user)
    session.pass_(password)
    count = session.stat()[0]
    found["Python by POP3"] = [b"\r\n".join(session.retr(number)[1]) + b"\r\n" for number in range(1, count + 1)]
    session.quit()

    session = imaplib.IMAP4_SSL("localhost", doors["imaps"], ssl_context=tls, timeout=30)
    session.login(user, password)
    count = int(session.select("INBOX", readonly=True)[1][0])
    found["Python by IMAPS"] = [session.fetch(str(n), "(BODY.PEEK[])")[1][0][1] for n in range(1, count + 1)]
    session.logout()

    for name, url in (
        ("curl by POP3S", f"pop3s://localhost:{doors['pop3s']}/{{}}"),
        ("curl by IMAP", f"imap://localhost:{doors['imap']}/INBOX/;MAILINDEX={{}}"),
    ):
        found[name] = []
        for number in range(1, count + 1):
            path = lab.folder / "tmp" / "read-back"
            lab.run("curl", "-sS", "--ssl-reqd", "--cacert", lab.ca, "--user", f"{user}:{password}", "-o", path, url.format(number))
            found[name].append(path.read_bytes())
    return found


def collect(lab, gate, doors, outcomes):
    for client, messages in read_back(lab, doors).items():
        for raw in messages:
            id = (trace_field(raw, "Message-ID") or "").strip("<>")
            for outcome in outcomes:
                if outcome.id == id:
                    outcome.copies[client] = raw
    if not gate:
        return
    held = gate.quarantine()
    for outcome in outcomes:
        outcome.held = next((entry for entry in held if outcome.id in json.dumps(entry)), None)
        path = lab.folder / "tmp" / f"{outcome.name}.eml"
        outcome.scan = next(iter(json_objects(gate.command("scan", "--json", path).stdout)), None)


# ------------------------------------------------------------------------------------------------------------ telling


def table(titles, rows, widths):
    """A table with wrapped cells."""

    def width(text):
        return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)

    def line(cells):
        wrapped = [textwrap.wrap(cell, limit, break_on_hyphens=False) or [""] for cell, limit in zip(cells, widths)]
        for number in range(max(map(len, wrapped))):
            parts = [cell[number] if number < len(cell) else "" for cell in wrapped]
            yield "│ " + " │ ".join(part + " " * (limit - width(part)) for part, limit in zip(parts, widths)) + " │"

    def rule(left, middle, right):
        return left + middle.join("─" * (limit + 2) for limit in widths) + right

    out = [rule("┌", "┬", "┐"), *line(titles)]
    for row in rows:
        out += [rule("├", "┼", "┤"), *line(row)]
    return "\n".join([*out, rule("└", "┴", "┘")])


def show(outcomes):
    rows = [[o.name, o.way, o.verdict(), o.score(), o.happened(), o.place()] for o in outcomes]
    print()
    print(table(["message", "went in by", "verdict", "score", "what happened", "where it is now"], rows, [7, 20, 8, 6, 26, 42]))


def show_addresses(lab, gate, doors):
    print("\nEverything listens on 127.0.0.1 (certificate for localhost, CA " + str(lab.ca) + "):")
    names = {
        "mx": "SMTP, STARTTLS", "submission": "submission, STARTTLS + AUTH", "smtps": "SMTPS, AUTH", "pop3": "POP3, STLS",
        "pop3s": "POP3S", "imap": "IMAP, STARTTLS", "imaps": "IMAPS",
    }
    rows = [
        [text, f"localhost:{doors[name]}", f"localhost:{lab.ports['smtp' if name == 'mx' else name]}"]
        for name, text in names.items()
    ]
    print(table(["service", "through Gatepost", "the real server"], rows, [28, 18, 18]))
    print("users      " + ", ".join(f"{user} / {password}" for user, password in USERS.items()) + f"   (@{DOMAIN})")
    if gate:
        print(f"metrics    http://127.0.0.1:{gate.metrics_port}/metrics   (also /live and /ready)")
        print(f"config     {gate.config}")
        print(f"gate's log {gate.log}")
        print(f"try        {laboratory.gatepost_binary()} quarantine list -c {gate.config}")
    print(f"mailboxes  {lab.mail}")


def main(arguments):
    once = "--once" in arguments
    if unknown := [word for word in arguments if word != "--once"]:
        print(f"unknown option {unknown[0]}\n{__doc__}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Lab(keep=False) as lab:
            print("Started a real Postfix and Dovecot in " + str(lab.folder), flush=True)
            gate = lab.gate() if have_gate() else None
            doors = gate.ports if gate else lab.ports | {"mx": lab.ports["smtp"]}
            print("Started Gatepost in front of them" if gate else "E2E_GATE=off: no gate, straight to the servers", flush=True)
            try:
                status = play(lab, gate, doors)
            except (LabError, OSError, poplib.error_proto, imaplib.IMAP4.error) as problem:
                raise LabError(f"{type(problem).__name__}: {problem}\n{lab.evidence()}") from problem
            if once:
                return status
            show_addresses(lab, gate, doors)
            print("\nUp. Ctrl-C ends it and removes all of it.", flush=True)
            watch(lab, gate)
            return status
    except KeyboardInterrupt:
        print("\nEnded; nothing of it is left.")
        return 130 if once else 0
    except LabError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1


def play(lab, gate, doors):
    """Sends, reads back, prints; returns the exit status."""
    outcomes = []
    for name, raw, door, way, options, expected in MESSAGES:
        outcome = Outcome(name, raw, f"{way}, swaks", expected)
        print(f"Sending {name} by {way} …", flush=True)
        send(lab, doors, outcome, door, options)
        outcomes.append(outcome)
    lab.wait_idle()
    print("Reading back by POP3 and IMAP, with curl and Python …", flush=True)
    collect(lab, gate, doors, outcomes)
    show(outcomes)
    complaints = [text for outcome in outcomes for text in outcome.complaints()]
    for text in complaints:
        print(f"NOT AS EXPECTED  {text}")
    if complaints:
        print(lab.evidence())
    else:
        print("All as expected.")
    return 1 if complaints else 0


def watch(lab, gate):
    """Waits; if one of the three servers ends by itself, says so."""
    while True:
        for name, service in (("Postfix", lab.postfix), ("Dovecot", lab.dovecot), ("Gatepost", gate and gate.service)):
            if service and not service.alive():
                raise LabError(f"{name} ended by itself with status {service.status()}\n{lab.evidence()}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
