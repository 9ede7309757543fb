"""A mail site in one temporary folder: a real Postfix and a real Dovecot as upstream, and Gatepost in front of them.

Guarantees: loopback and high ports only; nothing under /etc is read or written; every process started here has a
session of its own and is ended with it; the folder goes when the lab stops, and a guardian process sees to both when
this process dies in any other way, SIGKILL included. Readiness is seen by connecting, never guessed by sleeping.
Leaves out: installing the packages (install.sh does) and any judgement about what is right (the tests do).
"""

import contextlib
import json
import os
import pwd
import grp
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOMAIN = "example.org"
USERS = {"alice": "alice-secret", "bob": "bob-secret", "carol": "carol-secret"}
MESSAGE_LIMIT = 50 * 1024 * 1024
# Chosen below the kernel's ephemeral range, so that no outgoing connection sits on a port we mean to listen on.
PORTS = range(20000, 32000)
POSTFIX_MASTER = "/usr/lib/postfix/sbin/master"


class LabError(Exception):
    """The lab could not be brought up; says why, with the tail of the log that knows more."""


# ---------------------------------------------------------------------------------------------------------------- lab


class Lab:
    """The upstream: `start()` it, or use it as a context manager. `gate()` puts a Gatepost in front."""

    def __init__(self, keep=bool(os.environ.get("E2E_KEEP"))):
        self.keep = keep
        self.folder = None
        self.ports = {}
        self.postfix = None
        self.dovecot = None
        self.gates = []
        self.guardian = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        need_root()
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="gatepost-lab-"))
            self.folder.chmod(0o755)
            self.guardian = Guardian(self.folder, self.keep)
            for name in ("log", "tmp", "mail", "gate"):
                (self.folder / name).mkdir()
            self.log = self.folder / "log"
            self.mail = self.folder / "mail"
            chown(self.mail, "nobody")
            self.ca = self.folder / "ca.pem"
            make_certificates(self.folder)
            for name in ("smtp", "submission", "smtps", "pop3", "pop3s", "imap", "imaps", "lmtp"):
                self.ports[name] = free_port()
            self._write_dovecot()
            self._write_postfix()
            self.start_dovecot()
            self.start_postfix()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        """Ends everything started here and removes the folder. May be called twice."""
        for gate in self.gates:
            gate.stop()
        self.gates = []
        for name in ("postfix", "dovecot"):
            service = getattr(self, name)
            setattr(self, name, None)
            if service:
                service.end()
        if self.folder and not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.guardian:
            self.guardian.dismiss()
            self.guardian = None

    # -- the two servers

    def start_postfix(self):
        self.postfix = self.spawn(
            [POSTFIX_MASTER, "-c", str(self.folder / "postfix"), "-d"], self.log / "postfix.out"
        )
        for name in ("smtp", "submission", "smtps"):
            self.postfix.wait_port(self.ports[name], [self.log / "postfix.log", self.log / "postfix.out"])

    def stop_postfix(self, hard=False):
        """Ends Postfix; `hard` is SIGKILL for the master and every daemon of it at once."""
        service, self.postfix = self.postfix, None
        service.end(hard=hard)

    def start_dovecot(self):
        self.dovecot = self.spawn(
            [tool("dovecot"), "-F", "-c", str(self.folder / "dovecot" / "dovecot.conf")], self.log / "dovecot.out"
        )
        for name in ("pop3", "pop3s", "imap", "imaps", "lmtp"):
            self.dovecot.wait_port(self.ports[name], [self.log / "dovecot.log", self.log / "dovecot.out"])

    def stop_dovecot(self, hard=False):
        service, self.dovecot = self.dovecot, None
        service.end(hard=hard)

    def gate(self, **overrides):
        """Starts a Gatepost in front; see `Gate` for what may be overridden."""
        gate = Gate(self, len(self.gates), **overrides)
        self.gates.append(gate)
        return gate.start()

    def spawn(self, command, log, env=None):
        return Service(command, log, self.guardian, cwd=self.folder, env=env)

    # -- what has arrived

    def maildir(self, user):
        return self.mail / user / "Maildir"

    def delivered(self, user):
        """Paths of all messages in the user's mailboxes, as files, oldest first."""
        found = []
        for sub in ("new", "cur"):
            found += self.maildir(user).glob(f"{sub}/*")
            found += self.maildir(user).glob(f".*/{sub}/*")
        return sorted(found, key=delivered_at)

    def queued(self):
        """Number of messages in Postfix's queue."""
        queue = self.folder / "postfix" / "queue"
        return sum(
            1
            for name in ("incoming", "active", "deferred", "maildrop")
            for path in (queue / name).rglob("*")
            if path.is_file()
        )

    def wait_delivered(self, user, count, seconds=30):
        """Waits until the user has `count` messages and the queue is empty; returns their paths."""
        wait_until(
            lambda: len(self.delivered(user)) >= count and self.queued() == 0,
            seconds,
            lambda: f"{user} has {len(self.delivered(user))} of {count} messages, {self.queued()} in the queue",
        )
        return self.delivered(user)

    def wait_idle(self, seconds=60):
        """Waits until Postfix's queue is empty, thrice in a row: between two queue folders a message is in neither."""
        streak = 0
        end = time.monotonic() + seconds
        while streak < 3:
            streak = streak + 1 if self.queued() == 0 else 0
            if time.monotonic() > end:
                raise LabError(f"{self.queued()} messages still in Postfix's queue after {seconds} s")
            time.sleep(0.1)

    def postfix_log(self):
        return read(self.log / "postfix.log")

    def empty(self, user):
        """Removes all mail of a user, Dovecot's index with it."""
        shutil.rmtree(self.mail / user, ignore_errors=True)

    # -- talking to it

    def tls(self):
        """A client's TLS settings that trust the lab's CA and nothing else."""
        return ssl.create_default_context(cafile=str(self.ca))

    def run(self, *command, timeout=120, check=True, env=None, **more):
        """Runs a client to its end; returns the CompletedProcess with text output."""
        return run_client([str(word) for word in command], self.guardian, timeout, check, env, self.folder, **more)

    def evidence(self, lines=40):
        """What a failed test should show: where things are and what they logged last."""
        parts = [f"lab: {self.folder}" + ("" if self.keep else " (E2E_KEEP=1 keeps it)")]
        for gate in self.gates:
            parts.append(f"gate config: {gate.config}")
            parts.append(f"gate log {gate.log}, last {lines} lines:\n{tail(gate.log, lines)}")
        for name in ("postfix.log", "dovecot.log"):
            parts.append(f"{name}, last 8 lines:\n{tail(self.log / name, 8)}")
        return "\n".join(parts)

    # -- configuration of the two servers

    def _write_dovecot(self):
        folder = self.folder / "dovecot"
        (folder / "run").mkdir(parents=True)
        (folder / "state").mkdir()
        users = "".join(f"{user}:{{PLAIN}}{password}::::::\n" for user, password in USERS.items())
        (folder / "users").write_text(users)
        (folder / "dovecot.conf").write_text(
            DOVECOT_CONF.format(
                folder=folder, lab=self.folder, log=self.log, mail=self.mail, ports=Names(self.ports)
            )
        )

    def _write_postfix(self):
        folder = self.folder / "postfix"
        queue = folder / "queue"
        queue.mkdir(parents=True)
        for name in ("active bounce corrupt defer deferred flush hold incoming private saved trace").split():
            (queue / name).mkdir(mode=0o700)
            chown(queue / name, "postfix")
        (queue / "pid").mkdir()
        for name, mode in (("public", 0o710), ("maildrop", 0o1730)):
            (queue / name).mkdir()
            chown(queue / name, "postfix", "postdrop")
            (queue / name).chmod(mode)
        (folder / "data").mkdir(mode=0o700)
        chown(folder / "data", "postfix")
        boxes = " ".join(f"{{{user}@{DOMAIN} = {user}/Maildir/}}" for user in USERS)
        (folder / "main.cf").write_text(
            MAIN_CF.format(
                folder=folder, lab=self.folder, log=self.log, mail=self.mail, domain=DOMAIN, boxes=boxes,
                limit=MESSAGE_LIMIT, nobody=pwd.getpwnam("nobody").pw_uid, nogroup=pwd.getpwnam("nobody").pw_gid,
            )
        )
        (folder / "master.cf").write_text(MASTER_CF.format(ports=Names(self.ports)))


# --------------------------------------------------------------------------------------------------------------- gate

LISTENERS = {
    # listener: (protocol, TLS mode for clients, upstream TLS mode on encrypted legs, upstream's door)
    "mx": ("smtp", "starttls", "starttls", "smtp"),
    "submission": ("smtp", "starttls", "starttls", "submission"),
    "smtps": ("smtp", "implicit", "implicit", "smtps"),
    "pop3": ("pop3", "starttls", "starttls", "pop3"),
    "pop3s": ("pop3", "implicit", "implicit", "pop3s"),
    "imap": ("imap", "starttls", "starttls", "imap"),
    "imaps": ("imap", "implicit", "implicit", "imaps"),
}
# On clear legs an implicit-TLS listener speaks to the clear port of the same service.
CLEAR_DOOR = {"smtps": "submission", "pop3s": "pop3", "imaps": "imap"}


class Gate:
    """One Gatepost in front of a lab.

    `legs` is `tls` (default) or `clear`: how Gatepost speaks to the upstream. Every other override is merged into the
    configuration: a mapping key by key, `listeners` by the listener's name; None removes a key.
    """

    def __init__(self, lab, number, legs="tls", **overrides):
        self.lab = lab
        self.folder = lab.folder / "gate" / str(number)
        self.config = self.folder / "gatepost.yaml"
        self.log = lab.log / f"gate{number}.log"
        self.store = self.folder / "store"
        self.service = None
        self.ports = {name: free_port() for name in LISTENERS}
        self.metrics_port = free_port()
        self.folder.mkdir(parents=True)
        self.settings = self._settings(legs)
        merge(self.settings, overrides)
        self.config.write_text(to_yaml(self.settings))

    def _settings(self, legs):
        listeners, upstreams = [], {}
        certificate = {"cert": str(self.lab.folder / "gate.pem"), "key": str(self.lab.folder / "gate.key")}
        for name, (protocol, mode, upstream_mode, door) in LISTENERS.items():
            listener = {
                "name": name,
                "protocol": protocol,
                "bind": [f"127.0.0.1:{self.ports[name]}"],
                "tls": {"mode": mode, "certificates": [certificate]},
                "upstream": f"{name}-upstream",
                "policy": "default",
            }
            if protocol == "smtp":
                listener["relay_domains"] = [DOMAIN] if name == "mx" else []
            listeners.append(listener)
            if legs == "clear":
                door = CLEAR_DOOR.get(door, door)
                tls = {"mode": "off"}
            else:
                tls = {"mode": upstream_mode, "verify": "full", "ca": str(self.lab.ca)}
            upstreams[f"{name}-upstream"] = {
                "protocol": protocol,
                "servers": [f"127.0.0.1:{self.lab.ports[door]}"],
                "tls": tls,
            }
        return {
            "listeners": listeners,
            "upstreams": upstreams,
            "policies": {
                "default": {
                    "thresholds": {"unsure": 3.0, "spam": 5.0, "certain": 10.0},
                    "smtp": {"spam": "stamp", "certain": "quarantine"},
                    "pop3": {"spam": "stamp", "certain": "stamp"},
                    "imap": {"spam": "leave", "certain": "leave"},
                }
            },
            "store": {"kind": "embedded", "path": str(self.store)},
            "metrics": {"bind": f"127.0.0.1:{self.metrics_port}"},
        }

    @property
    def pid(self):
        return self.service.pid

    def start(self, ready=True):
        """Starts the process, by default until /ready says 200."""
        binary = gatepost_binary()
        env = dict(os.environ, TMPDIR=str(self.lab.folder / "tmp"), NO_COLOR="1")
        self.service = self.lab.spawn([binary, "run", "-c", str(self.config)], self.log, env=env)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=30):
        def ready():
            if not self.service.alive():
                raise LabError(
                    f"gatepost ended with status {self.service.status()}; config {self.config}, log:\n{tail(self.log, 40)}"
                )
            return self.http("/ready")[0] == 200

        wait_until(ready, seconds, lambda: f"/ready did not say 200; log:\n{tail(self.log, 40)}", step=0.01)

    def kill(self):
        """SIGKILL, at once; returns when the process is gone."""
        self.service.end(hard=True)

    def terminate(self):
        """SIGTERM; does not wait."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self):
        if self.service:
            self.service.end()
            self.service = None

    def http(self, path):
        """Status and body of a GET on the metrics listener; status 0: no answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode(errors="replace")
        except OSError:
            return 0, ""

    def command(self, *arguments, check=True, input=None):
        """Runs `gatepost ARGUMENTS -c CONFIG`; returns the CompletedProcess."""
        return self.lab.run(gatepost_binary(), *arguments, "-c", self.config, check=check, input=input)

    def quarantine(self):
        """The held messages, as `gatepost quarantine list --json` gives them."""
        return json_objects(self.command("quarantine", "list", "--json", "--limit", "1000000").stdout)


def gatepost_binary():
    binary = os.environ.get("GATEPOST") or str(REPOSITORY / "target" / "debug" / "gatepost")
    if not os.access(binary, os.X_OK):
        raise LabError(f"no gatepost binary at {binary}\n  fix: `cargo build`, or name one in GATEPOST")
    return os.path.abspath(binary)


def have_gate():
    """Whether tests go through a gate (default) or straight to the real servers (E2E_GATE=off)."""
    return os.environ.get("E2E_GATE", "on") not in ("off", "0", "no")


# ---------------------------------------------------------------------------------------------------------- processes


class Service:
    """A process in a session of its own, with all that it starts."""

    def __init__(self, command, log, guardian, cwd=None, env=None):
        self.name = Path(command[0]).name
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=cwd, env=env
            )
        self.pid = self.process.pid
        self.guardian = guardian
        guardian.watch(self.pid)

    def alive(self):
        return self.process.poll() is None

    def status(self):
        return self.process.poll()

    def wait(self, seconds):
        """Waits for the process to end by itself; returns its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} (pid {self.pid}) did not end within {seconds} s") from None

    def wait_port(self, port, logs, seconds=30):
        def listening():
            if not self.alive():
                said = "\n".join(f"{log}:\n{tail(log, 20)}" for log in logs)
                raise LabError(f"{self.name} ended with status {self.status()} while starting\n{said}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(listening, seconds, lambda: f"{self.name} does not listen on {port}", step=0.02)

    def end(self, hard=False, seconds=5):
        """Ends the process and its session: SIGTERM first unless `hard`, SIGKILL after `seconds`."""
        if not hard and self.alive():
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        end_sessions({self.pid})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.guardian.forget(self.pid)


def session_members(sessions):
    """Pids of all living processes whose session id is one of `sessions`."""
    members = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        state, _parent, _group, session = stat[stat.rindex(")") + 2 :].split()[:4]
        if int(session) in sessions and state not in "ZX":
            members.append(int(entry))
    return members


def end_sessions(sessions, seconds=5):
    """SIGKILL to all members of the sessions until none is left."""
    end = time.monotonic() + seconds
    while members := session_members(sessions):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise LabError(f"processes {members} cannot be ended")
        time.sleep(0.005)


class Guardian:
    """A small process that outlives ours just long enough to end the sessions it was told of and remove the folder.

    It learns of our death by the end of its standard input, so it needs no cooperation: SIGKILL will do.
    """

    def __init__(self, folder, keep):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "guard", str(folder), "keep" if keep else "remove"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def watch(self, session):
        self._tell(f"+{session}")

    def forget(self, session):
        self._tell(f"-{session}")

    def dismiss(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()

    def _tell(self, line):
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()


def guard(folder, keep):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sessions = set()
    for line in sys.stdin:
        (sessions.add if line[0] == "+" else sessions.discard)(int(line[1:]))
    end_sessions(sessions)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def run_client(command, guardian, timeout, check, env, cwd, input=None, text=True):
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True, env=env, cwd=cwd, text=text, errors="replace" if text else None,
    )
    guardian.watch(process.pid)
    try:
        stdout, stderr = process.communicate(input, timeout)
    except BaseException:
        end_sessions({process.pid})
        process.wait()
        raise
    finally:
        guardian.forget(process.pid)
    done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
    if check and done.returncode:
        raise LabError(f"{' '.join(command)}\nended with {done.returncode}\n{stdout}\n{stderr}")
    return done


# ------------------------------------------------------------------------------------------------------- small pieces


class Names:
    """Lets a template say `{ports.smtp}`."""

    def __init__(self, mapping):
        self.__dict__.update(mapping)


def need_root():
    if os.geteuid() != 0:
        raise LabError(
            "Postfix and Dovecot start as root and change to users of their own.\n"
            "  fix: run this as root, or with sudo"
        )


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin")
    if not path:
        raise LabError(f"{name} is not installed\n  fix: tests/e2e/install.sh")
    return path


def chown(path, user, group=None):
    os.chown(path, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid if group else pwd.getpwnam(user).pw_gid)


_taken = set()


def free_port():
    """A port nobody listens on, never given out twice by this process."""
    for port in random.sample(PORTS, 500):
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise LabError("no free port found between 20000 and 32000")


def wait_until(condition, seconds, problem, step=0.05):
    """Polls `condition` until it holds; after `seconds` raises LabError with what `problem()` says."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"after {seconds} s: {problem()}")
        time.sleep(step)


def delivered_at(path):
    """Second and microsecond in a Maildir file's name, as Postfix and Dovecot write them."""
    second, _, rest = path.name.partition(".")
    micros = re.search(r"M(\d+)", rest)
    return int(second) if second.isdigit() else 0, int(micros[1]) if micros else 0, path.name


def read(path):
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def tail(path, lines):
    return "\n".join(read(path).splitlines()[-lines:]) or "(empty)"


def json_objects(text):
    """JSON written as one array or as one object a line."""
    text = text.strip()
    if not text:
        return []
    if text.startswith("["):
        return json.loads(text)
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def merge(settings, overrides):
    for key, value in overrides.items():
        if value is None:
            settings.pop(key, None)
        elif key == "listeners":
            for listener in settings["listeners"]:
                merge(listener, value.get(listener["name"], {}))
        elif isinstance(value, dict) and isinstance(settings.get(key), dict):
            merge(settings[key], value)
        else:
            settings[key] = value


def to_yaml(value, indent=0):
    """Mappings and lists in block style, everything inside a list item of scalars in JSON, which YAML reads too."""
    pad = "  " * indent
    lines = []
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict) and inner and any(isinstance(leaf, (dict, list)) for leaf in inner.values()):
                lines.append(f"{pad}{key}:\n{to_yaml(inner, indent + 1)}")
            elif isinstance(inner, list) and inner and isinstance(inner[0], dict):
                items = [to_yaml(item, indent + 2) for item in inner]
                lines.append(f"{pad}{key}:")
                lines += [f"{pad}  - {item.lstrip()}" for item in items]
            else:
                lines.append(f"{pad}{key}: {flow(inner)}")
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


PLAIN_SCALAR = re.compile(r"[A-Za-z][A-Za-z0-9-]*|/[A-Za-z0-9._/-]+")


def flow(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(flow(inner) for inner in value) + "]"
    if isinstance(value, str) and PLAIN_SCALAR.fullmatch(value) and value not in ("on", "off", "yes", "no"):
        return value
    return json.dumps(value)


def make_certificates(folder):
    """A throw-away CA and, signed by it, one certificate for the upstream and one for the gate."""
    extensions = folder / "tmp" / "server.ext"
    extensions.write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90", "-subj",
        "/CN=Gatepost lab CA", "-keyout", folder / "ca.key", "-out", folder / "ca.pem",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )
    for name in ("server", "gate"):
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN=lab {name}",
            "-keyout", folder / f"{name}.key", "-out", folder / "tmp" / "server.csr",
        )
        _openssl(
            "x509", "-req", "-in", folder / "tmp" / "server.csr", "-CA", folder / "ca.pem", "-CAkey",
            folder / "ca.key", "-set_serial", str(random.getrandbits(64)), "-days", "90", "-extfile", extensions,
            "-out", folder / f"{name}.pem",
        )
        (folder / f"{name}.key").chmod(0o600)


def _openssl(*arguments):
    done = subprocess.run(
        [tool("openssl"), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise LabError(f"openssl {arguments[0]}: {done.stderr}")


# ------------------------------------------------------------------------------------------------------ configuration

DOVECOT_CONF = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {log}/dovecot.log
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <{lab}/server.pem
ssl_key = <{lab}/server.key
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 digest-md5 apop scram-sha-1 scram-sha-256
auth_failure_delay = 0
mail_location = maildir:{mail}/%n/Maildir
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 1000
pop3_no_flag_updates = no
recipient_delimiter = +
postmaster_address = postmaster@example.org
hostname = mail.example.org
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%n {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={mail}/%n
}}
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Junk {{
    special_use = \\Junk
    auto = subscribe
  }}
  mailbox Sent {{
    special_use = \\Sent
    auto = subscribe
  }}
}}
service imap-login {{
  process_limit = 1000
  inet_listener imap {{
    port = {ports.imap}
  }}
  inet_listener imaps {{
    port = {ports.imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  process_limit = 1000
  inet_listener pop3 {{
    port = {ports.pop3}
  }}
  inet_listener pop3s {{
    port = {ports.pop3s}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {ports.lmtp}
  }}
}}
service auth {{
  unix_listener {lab}/dovecot/sasl {{
    mode = 0600
    user = postfix
  }}
}}
service anvil {{
  # No waiting after a wrong password: the tests give many.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {log}/postfix.log
maillog_file_prefixes = {lab}
myhostname = mail.{domain}
mydomain = {domain}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
message_size_limit = {limit}
virtual_mailbox_limit = 0
mailbox_size_limit = 0
recipient_delimiter = +
# Mail for the domain goes into Maildir; mail for anywhere else is accepted from 127.0.0.0/8, as behind a careless
# gateway, and thrown away: nothing leaves this machine, and the log says what would have been relayed.
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {mail}
virtual_mailbox_maps = inline:{{ {boxes} }}
virtual_minimum_uid = 1
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nogroup}
virtual_transport = virtual
default_transport = discard:
relay_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
alias_maps =
alias_database =
local_recipient_maps =
# Bytes stay as they came.
local_header_rewrite_clients =
disable_mime_output_conversion = yes
smtputf8_enable = yes
# Tests fail on purpose, often and from one address.
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_soft_error_limit = 1000
smtpd_junk_command_limit = 10000
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
default_process_limit = 200
# A daemon that is killed comes back at once.
service_throttle_time = 1
smtpd_tls_security_level = may
smtpd_tls_cert_file = {lab}/server.pem
smtpd_tls_key_file = {lab}/server.key
smtpd_tls_auth_only = no
smtpd_sasl_type = dovecot
smtpd_sasl_path = {lab}/dovecot/sasl
smtpd_sasl_security_options = noanonymous
"""

MASTER_CF = """\
127.0.0.1:{ports.smtp}       inet  n - n - - smtpd
127.0.0.1:{ports.submission} inet  n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
127.0.0.1:{ports.smtps}      inet  n - n - - smtpd
  -o syslog_name=postfix/smtps
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
tlsmgr     unix  - - n 1000? 1 tlsmgr
rewrite    unix  - - n - - trivial-rewrite
bounce     unix  - - n - 0 bounce
defer      unix  - - n - 0 bounce
trace      unix  - - n - 0 bounce
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n - - proxymap
error      unix  - - n - - error
retry      unix  - - n - - error
discard    unix  - - n - - discard
virtual    unix  - n n - - virtual
lmtp       unix  - - n - - lmtp
anvil      unix  - - n - 1 anvil
showq      unix  n - n - - showq
postlog    unix-dgram n - n - 1 postlogd
"""


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "guard":
        guard(sys.argv[2], sys.argv[3] == "keep")
    else:
        sys.exit(f"usage: {sys.argv[0]} guard FOLDER keep|remove; everything else is for `import lab`")
