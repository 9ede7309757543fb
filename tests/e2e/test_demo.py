"""The demo leaves nothing behind: no process, no port, no file; whether it ends by itself, by a signal or by a failure."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import lab as laboratory

DEMO = Path(__file__).with_name("demo.py")
UP = "Ctrl-C ends it"


class DemoTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="gatepost-demo-test-"))
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.ports = []
        self.process = None
        self.addCleanup(self._end)

    def _end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def start(self, *arguments, **env):
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(DEMO), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=dict(os.environ, TMPDIR=str(self.folder), **env),
        )
        return self.process

    def read_until(self, words):
        text = ""
        for line in self.process.stdout:
            text += line
            if words in line:
                self.ports += map(int, re.findall(r"(?:localhost|127\.0\.0\.1):(\d+)", text))
                return text
        self.fail(f"the demo ended before it said {words!r}:\n{text}")

    def assert_nothing_left(self, seconds=15):
        """Also waits: after SIGKILL the guardian needs a moment."""
        end = time.monotonic() + seconds
        while left := self._left():
            if time.monotonic() > end:
                self.fail("left behind: " + "; ".join(left))
            time.sleep(0.1)

    def _left(self):
        yet = [f"file {path}" for path in self.folder.iterdir()]
        yet += [f"process {pid}: {why}" for pid, why in users_of(self.folder)]
        for port in self.ports:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                yet.append(f"port {port}")
        return yet

    def test_once(self):
        text, _ = self.start("--once").communicate(timeout=120)
        self.assertEqual(self.process.returncode, 0, text)
        for word in ("ham", "phish", "GTUBE", "All as expected."):
            self.assertIn(word, text)
        self.assert_nothing_left()

    def test_signals_while_up(self):
        for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
            with self.subTest(number.name):
                self.ports = []
                self.start()
                text = self.read_until(UP)
                self.assertGreaterEqual(len(self.ports), 7, text)
                self.assertTrue(self._left(), "the test would not see what is left")
                self.process.send_signal(number)
                self.process.communicate(timeout=60)
                self.assertEqual(self.process.returncode, status)
                self.assert_nothing_left()

    def test_signals_while_starting(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for delay in (0.1, 0.6, 1.2, 2.0):
                with self.subTest(number.name, delay=delay):
                    self.ports = []
                    self.start("--once")
                    time.sleep(delay)
                    self.process.send_signal(number)
                    self.process.communicate(timeout=60)
                    self.assert_nothing_left()

    @unittest.skipUnless(laboratory.have_gate(), "is about the gate itself")
    def test_a_gate_that_does_not_start(self):
        text, _ = self.start("--once", GATEPOST="/bin/false").communicate(timeout=120)
        self.assertEqual(self.process.returncode, 1, text)
        self.assertIn("gatepost.yaml", text)
        self.assert_nothing_left()

    def test_a_server_that_dies(self):
        self.start()
        self.read_until(UP)
        for pid, _ in users_of(self.folder):
            with contextlib.suppress(OSError):
                if Path("/proc", str(pid), "comm").read_text().strip() == "master":
                    os.kill(pid, signal.SIGKILL)
        text, _ = self.process.communicate(timeout=60)
        self.assertEqual(self.process.returncode, 1, text)
        self.assertIn("Postfix ended by itself", text)
        self.assert_nothing_left()


def users_of(folder):
    """Living processes that have their working folder, an open file or an argument below `folder`."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        process = Path("/proc", entry)
        with contextlib.suppress(OSError):
            places = [os.readlink(process / "cwd")]
            places += [os.readlink(link) for link in (process / "fd").iterdir()]
            places += (process / "cmdline").read_text(errors="replace").split("\0")
            if match := next((place for place in places if str(folder) in place), None):
                found.append((int(entry), match))
    return found


if __name__ == "__main__":
    unittest.main()
