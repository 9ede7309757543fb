#!/usr/bin/env python3
"""Runs the end-to-end tests: one progress line each, failures at the end, and a last line `N passed, N failed`.

    run.py [--all] [--list] [PATTERN…]     PATTERN: part of a test's name, such as `custody` or `test_relay`

--all adds what takes long (200 kills instead of 15). Exit status: 0 all passed, 1 some failed, 2 could not start.
"""

import os
import signal
import sys
import time
import unittest
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))


class Result(unittest.TestResult):
    def __init__(self, total):
        super().__init__()
        self.total = total
        self.bad = {}
        self.skips = 0
        self.started = time.monotonic()

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()
        print(f"[{self.testsRun:3}/{self.total}] {name_of(test)} … ", end="", flush=True)

    def stopTest(self, test):
        super().stopTest(test)
        skipped = self.skipped and self.skipped[-1][0] is test
        word = "FAILED" if name_of(test) in self.bad else "skipped" if skipped else "ok"
        print(f"{word} ({time.monotonic() - self.began:.1f} s)", flush=True)

    def addFailure(self, test, problem):
        super().addFailure(test, problem)
        self._note(test, self.failures[-1][1])

    def addError(self, test, problem):
        super().addError(test, problem)
        self._note(test, self.errors[-1][1])

    def addSubTest(self, test, subtest, problem):
        super().addSubTest(test, subtest, problem)
        if problem:
            label = subtest._subDescription()
            self._note(test, f"{label}\n{self._exc_info_to_string(problem, subtest)}")

    def _note(self, test, text):
        self.bad.setdefault(name_of(test), []).append(text)


def name_of(test):
    return test.id() if hasattr(test, "id") else str(test)


def each(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from each(item)
        else:
            yield item


def main(arguments):
    if "--all" in arguments:
        os.environ["E2E_ALL"] = "1"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    patterns = [word for word in arguments if not word.startswith("-")]
    if unknown := [word for word in arguments if word.startswith("-") and word not in ("--all", "--list")]:
        print(f"unknown option {unknown[0]}\n{__doc__}", file=sys.stderr)
        return 2
    tests = list(each(unittest.defaultTestLoader.discover(str(FOLDER), "test_*.py", str(FOLDER))))
    chosen = [test for test in tests if not patterns or any(word in name_of(test) for word in patterns)]
    if "--list" in arguments:
        print("\n".join(name_of(test) for test in chosen))
        return 0
    if not chosen:
        print(f"no test matches {patterns}", file=sys.stderr)
        return 2

    import lab

    if lab.have_gate():
        try:
            lab.gatepost_binary()
        except lab.LabError as problem:
            print(problem, file=sys.stderr)
            return 2
    result = Result(len(chosen))
    unittest.TestSuite(_by_class(chosen)).run(result)
    for name, texts in result.bad.items():
        print(f"\n{'=' * 100}\nFAILED {name}\n{'-' * 100}")
        print("\n".join(texts[:5]))
        if len(texts) > 5:
            print(f"… and {len(texts) - 5} more in this test")
    failed = len(result.bad)
    skipped = len(result.skipped)
    took = time.monotonic() - result.started
    passed = max(0, result.testsRun - skipped - sum(1 for test in chosen if name_of(test) in result.bad))
    note = f" ({skipped} skipped)" if skipped else ""
    print(f"\n{took:.0f} s{note}\n{passed} passed, {failed} failed")
    return 1 if failed else 0


def _by_class(tests):
    """One suite a class: a class's lab is up only while its tests run."""
    suites = {}
    for test in tests:
        suites.setdefault(type(test), unittest.TestSuite()).addTest(test)
    return suites.values()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
