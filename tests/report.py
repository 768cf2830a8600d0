"""The table at the end of ``script/test``: every test, and how it went on each kernel.

Input are the JUnit files that pytest wrote and the exit statuses of all runs. The files alone do not tell the truth: a
run that was killed, or that found no test at all, leaves a file without a failure, or none; so such a run counts as a
failure of its own. And a test that skips itself wherever it could run checks nothing, so that is a failure too.

Unit tests run once, on no particular kernel; they are shown by file, those in tests/kernel one by one.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

Outcome = Literal["passed", "failed", "skipped"]
KERNELS = {"native": "this kernel", "debian": "Debian's kernel"}


class Test(NamedTuple):
    """A test by the names that pytest takes on its command line."""

    file: str
    name: str

    @classmethod
    def from_junit(cls, classname: str, name: str) -> "Test":
        """JUnit joins the directories, the module and the class, if any, by dots: ``tests.unit.test_x.TestY``.

        A module that could not even be imported has no class name, and its own name as that of the test.
        """
        parts = classname.split(".") if classname else name.split(".")
        end = next((i for i, part in enumerate(parts, 1) if part.startswith("test_")), len(parts))
        return cls("/".join(parts[:end]) + ".py", "::".join([*parts[end:], name] if classname else ["import"]))

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"

    @property
    def unit(self) -> bool:
        return self.file.startswith("tests/unit/")


@dataclass(frozen=True)
class Result:
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.outcome} ({self.reason})" if self.reason else self.outcome


Results = dict[Test, dict[str, Result]]


def parse(path: Path) -> Iterator[tuple[Test, Result]]:
    """Read one JUnit file.

    An error in a fixture counts as a failure; an expected failure is a skip to JUnit, and to us.
    """
    for case in ElementTree.parse(path).iter("testcase"):
        test = Test.from_junit(case.get("classname", ""), case.get("name", ""))
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            yield test, Result("failed")
        elif skipped is not None:
            yield test, Result("skipped", skipped.get("message", "").partition("\n")[0])
        else:
            yield test, Result("passed")


def collect(path: Path) -> tuple[dict[Test, Result], str]:
    """Results of one run, and what is wrong with its file ("" if nothing).

    A test that fails and whose fixture then cannot be torn down appears twice: the worse result stands.
    """
    results: dict[Test, Result] = {}
    try:
        for test, result in parse(path):
            if test not in results or result.outcome == "failed":
                results[test] = result
    except (OSError, ElementTree.ParseError) as error:
        return {}, f"no results: {error}"
    return results, "" if results else "no test found"


def unrun(results: Results, kernels: Iterable[str]) -> list[Test]:
    """Tests that were skipped on each of `kernels`, or on the only one there is for a unit test."""
    return [
        test
        for test, runs in results.items()
        if all(result.outcome == "skipped" for result in runs.values()) and (test.unit or set(runs) >= set(kernels))
    ]


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    files: dict[str, Counter[Outcome]] = {}
    for test, runs in results.items():
        if test.unit:
            files.setdefault(test.file, Counter()).update(result.outcome for result in runs.values())
    for file, counter in files.items():
        yield file, summary(counter), "-"
    for test, runs in sorted(results.items()):
        if not test.unit:
            yield (str(test), *(str(runs.get(kernel, "-")) for kernel in KERNELS))
        else:
            for result in runs.values():
                if result.outcome != "passed":
                    yield str(test), str(result), "-"


def table(lines: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def summary(counter: Counter[Outcome]) -> str:
    text = f"{counter['passed']} passed, {counter['failed']} failed"
    return f"{text}, {counter['skipped']} skipped" if counter["skipped"] else text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the results of several test runs as one table.")
    parser.add_argument("--check", nargs=2, action="append", default=[], metavar=("NAME", "STATUS"))
    parser.add_argument("--tests", nargs=4, action="append", default=[], metavar=("NAME", "KERNEL", "FILE", "STATUS"))
    parser.add_argument("--complete", action="store_true", help="all kernels took part: a test must have run on one")
    options = parser.parse_args(arguments)

    counter: Counter[Outcome] = Counter()
    lines: list[tuple[str, ...]] = [("test", *KERNELS.values())]
    problems: list[str] = []
    for name, status in options.check:
        outcome: Outcome = "passed" if status == "0" else "failed"
        counter[outcome] += 1
        lines.append((name, outcome, "-"))

    results: Results = {}
    for name, kernel, path, status in options.tests:
        found, problem = collect(Path(path))
        for test, result in found.items():
            results.setdefault(test, {})[kernel] = result
            counter[result.outcome] += 1
        failures = any(result.outcome == "failed" for result in found.values())
        if status != "0" and not problem and not (status == "1" and failures):
            problem = "it did not end in order"
        if problem:
            problems.append(f"{name}: {problem} (exit status {status})")
    if options.complete:
        for test in unrun(results, KERNELS):
            problems.append(f"{test}: ran nowhere")
    counter["failed"] += len(problems)

    print("\n".join(["", *table([*lines, *rows(results)]), "", *(f"ERROR {problem}" for problem in problems)]))
    print(summary(counter))
    return 1 if counter["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
