"""The end of ``script/test``: a table of every test and how it went on each kernel, and then what failed.

Input are the JUnit files that pytest wrote and the exit statuses of all runs. The files alone do not tell the truth: a
run that was killed, or that found no test at all, leaves a file without a failure, or none; so such a run counts as a
failure of its own. And a test that skips itself wherever it could run checks nothing, so that is a failure too.

Unit tests run once, on no particular kernel; they are shown by file, those in tests/kernel one by one.

What failed may be run again by itself (``script/test`` does): a machine that is busy with something else is late, and a
test with it. Such a test counts as passed, and is told apart as flaky, with how it failed at first: it may be a race of
the program's own.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

Outcome = Literal["passed", "failed", "skipped"]
_SHOWN_LINES = 40
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
    """
    :param first: how it failed before it was run again.
    """

    outcome: Outcome
    reason: str = ""
    traceback: str = ""
    first: "Result | None" = None

    def __str__(self) -> str:
        if self.first is not None:
            return f"failed, then {self.outcome}"
        return f"{self.outcome} ({self.reason})" if self.outcome == "skipped" and self.reason else self.outcome


Results = dict[Test, dict[str, Result]]


def parse(path: Path) -> Iterator[tuple[Test, Result]]:
    """Read one JUnit file.

    An error in a fixture counts as a failure; an expected failure is a skip to JUnit, and to us.
    """
    for case in ElementTree.parse(path).iter("testcase"):
        test = Test.from_junit(case.get("classname", ""), case.get("name", ""))
        skipped = case.find("skipped")
        problem = next((each for each in case if each.tag in ("failure", "error")), None)
        if problem is not None:
            yield test, Result("failed", problem.get("message", "").partition("\n")[0], problem.text or "")
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


def failures(results: Results) -> Iterator[str]:
    """How each test failed: the end of what pytest says. They come last, since the end of a log is what people see."""
    for test, runs in sorted(results.items()):
        for kernel, result in runs.items():
            where = str(test) if test.unit else f"{test} on {KERNELS[kernel]}"
            if result.first is not None and result.outcome == "passed":
                yield from _told("FLAKY", where, result.first)
            elif result.outcome == "failed":
                yield from _told("FAILED", where, result)


def _told(how: str, where: str, result: Result) -> Iterator[str]:
    yield f"{how} {where}: {result.reason}"
    yield from (f"    {line}" for line in result.traceback.splitlines()[-_SHOWN_LINES:])


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
    parser.add_argument("--again", nargs=3, action="append", default=[], metavar=("NAME", "KERNEL", "FILE"))
    parser.add_argument("--failed", metavar="FILE", help="print only which tests failed, and end")
    parser.add_argument("--complete", action="store_true", help="all kernels took part: a test must have run on one")
    options = parser.parse_args(arguments)

    if options.failed is not None:
        found, _ = collect(Path(options.failed))
        for test, result in found.items():
            if result.outcome == "failed":
                print(test)
        return 0

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
        failed = any(result.outcome == "failed" for result in found.values())
        if status != "0" and not problem and not (status == "1" and failed):
            problem = "it did not end in order"
        if problem:
            problems.append(f"{name}: {problem} (exit status {status})")
    for _, kernel, path in options.again:
        for test, result in collect(Path(path))[0].items():
            first = results[test][kernel]
            results[test][kernel] = replace(result, first=first)
            counter[first.outcome] -= 1
            counter[result.outcome] += 1
    if options.complete:
        for test in unrun(results, KERNELS):
            problems.append(f"{test}: ran nowhere")
    counter["failed"] += len(problems)

    errors = (f"ERROR {problem}" for problem in problems)
    print("\n".join(["", *table([*lines, *rows(results)]), "", *failures(results), *errors]))
    flaky = sum(run.outcome == "passed" and run.first is not None for runs in results.values() for run in runs.values())
    print(summary(counter) + (f", {flaky} flaky" if flaky else ""))
    return 1 if counter["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
