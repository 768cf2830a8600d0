"""What the documents say exists: commands parse, flags are declared, paths are there, both languages say the same."""

import ast
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from portslice.agent.flags import AgentFlags
from portslice.cli import main
from portslice.engines.master.flags import MasterFlags
from portslice.flags import load

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
PAGES = (f"docs/{each.name}" for each in (ROOT / "docs").glob("*.md"))
DOCUMENTS = (*READMES, "CONTRIBUTING.md", "CHANGELOG.md", *PAGES)


def _text(document: str) -> str:
    return (ROOT / document).read_text()


def _blocks(document: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", _text(document), re.M | re.S)


def _inline(document: str) -> list[str]:
    prose = re.sub(r"^```.*?^```", "", _text(document), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", prose)


def _command_lines(document: str) -> list[list[str]]:
    """Every command of the fenced blocks, as a shell would split it."""
    lines = "".join(_blocks(document)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def _known_flags() -> set[str]:
    """Flags of the agent and the master, of all other commands, and of the scripts."""
    names = {*AgentFlags.__dataclass_fields__, *MasterFlags.__dataclass_fields__, "max_executors_per_slave"}
    flags = {f"--{no}{name}" for name in names for no in ("", "no-")}
    sources = [*(ROOT / "src/portslice/cli").rglob("*.py"), *(ROOT / "script").iterdir()]
    for source in sources:
        flags |= set(re.findall(r"--[a-z][a-z-]+", source.read_text()))
    return flags


def _help(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """What `portslice COMMAND --help` prints."""
    try:
        status = main.main([*command, "--help"])
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    output = capsys.readouterr()
    assert status == 0, output.err
    return output.out


def _commands(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r"^    ([a-z]+) ", _help(capsys).partition("commands:")[2].partition("examples:")[0], re.M)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_command_lines_have_known_flags(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    for program, *arguments in _command_lines(document):
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        flags = [word.partition("=")[0] for word in own if word.startswith("-")]
        if program == "portslice" and own[0] == "agent":
            load(AgentFlags, own[1:], {})
        elif program == "portslice" and own[0] == "master":
            load(MasterFlags, own[1:], {})
        elif program == "portslice":
            known = _help(capsys, own[0])
            assert [flag for flag in flags if not re.search(rf"{flag}\b", known)] == [], own
        elif program.startswith("script/"):
            assert os.access(ROOT / program, os.X_OK), program
            usage = (ROOT / program).read_text().partition("\n\n")[0]
            assert [flag for flag in flags if flag not in usage] == [], program


@pytest.mark.parametrize("document", DOCUMENTS)
def test_inline_commands_exist(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {*_commands(capsys), "COMMAND"}
    for code in _inline(document):
        program, _, rest = code.partition(" ")
        if program == "portslice" and rest:
            assert rest.split()[0] in known, code


@pytest.mark.parametrize("document", DOCUMENTS)
def test_flags_exist(document: str) -> None:
    known = _known_flags()
    for code in (each for each in _inline(document) if not each.startswith(("mypy", "ruff"))):
        for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9_-]+", code):
            assert flag in known, code


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document: str) -> None:
    words = {word for code in _inline(document) for word in code.split()}
    paths = {word for word in words if re.match(r"(src|bench|bpf|docs|tests|script)/", word)}
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", _text(document)))
    paths |= {os.path.relpath(ROOT / Path(document).parent / link, ROOT) for link in links}
    paths |= {word for line in _command_lines(document) for word in line if word.startswith(("script/", "tests/"))}
    assert [path for path in sorted(paths) if not _exists(path)] == []


def _exists(path: str) -> bool:
    """A file, or a test in a file by pytest's name for it."""
    file, _, test = path.partition("::")
    return (ROOT / file).exists() and (not test or f"\ndef {test}(" in (ROOT / file).read_text())


def test_both_readmes_say_the_same() -> None:
    english, chinese = ([_shape(line) for line in _text(each).splitlines()] for each in READMES)
    assert Counter(english) == Counter(chinese)
    assert _command_lines(READMES[0]) == _command_lines(READMES[1])
    assert Counter(_inline(READMES[0])) == Counter(_inline(READMES[1]))


def _shape(line: str) -> str:
    """What kind of line it is: a heading of a level, a row of a table, an item, or other."""
    found = re.match(r"#+ |\| *|- |\d+\. ", line)
    return found[0].strip() if found else ""


def test_every_command_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    listed = re.findall(r"^\| `portslice (\w+)` \|", _text("README.md"), re.M)
    assert sorted(listed) == sorted(_commands(capsys))


def test_every_statement_on_security_names_its_test() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    tests = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.M)}
    named = re.findall(r"`(test_\w+)`", _text("docs/security.md"))
    assert set(named) - tests == set()
    rows = re.findall(r"^\|(?!--).*\|$", _text("docs/security.md"), re.M)
    assert [row for row in rows if "`test_" not in row and "shown by" not in row] == []


def test_imports_point_down() -> None:
    """The floors as the table in docs/architecture.md has them, top first; those of a row share a floor."""
    rows = re.findall(r"^\| (`src/[^|]*) \|", _text("docs/architecture.md").partition("## The packet")[0], re.M)
    floors = [re.findall(r"src/portslice/(\w+)", row) for row in rows]
    level = {name: number for number, names in enumerate(floors) for name in names}
    level["demo"] = level["cli"]  # a command, its story, and the client that the story uses
    seen = set()
    for path in (ROOT / "src/portslice").rglob("*.py"):
        here = path.relative_to(ROOT / "src/portslice").parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        seen.add(here)
        for there in _imports(path):
            assert level[here] <= level[there], f"{path} imports portslice.{there}"
    assert seen == set(level)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            words = node.module.split(".")
            if node.level == 0 and words[0] == "portslice":
                names = words[1:2] or [alias.name for alias in node.names]
                yield from (name for name in names if not name.startswith("__"))
