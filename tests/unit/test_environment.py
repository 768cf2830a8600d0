"""The environment script, run by the real shell."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portslice.containers.environment import script
from portslice.errors import ContainerError

ENV = "/usr/bin/env"

values = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40)
names = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0="), min_size=1, max_size=12),
)


def taken_on(environment: dict[str, str]) -> dict[str, str]:
    """What a command sees that is started by the script, by a shell with variables of its own."""
    text = script(environment, ENV, [ENV])
    result = subprocess.run(
        ["sh", "-c", 'cd / && exec sh -s -- "$@"', "sh", "-0"],
        input=text.encode(),
        env={"PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    entries = [entry.decode().partition("=") for entry in result.stdout.split(b"\0")[:-1]]
    return {name: value for name, _, value in entries}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, values, max_size=6))
def test_is_exactly_what_was_asked_for(environment: dict[str, str]) -> None:
    assert taken_on(environment) == environment


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"A": "two  blanks", "B": "line\nline\n", "C": "it's \"quoted\" $HOME `id` \\", "D": ""},
        {"PATH": "/nowhere", "PWD": "/not/here", "OLDPWD": "", "IFS": "/e", "HOME": "~"},
        {"OPTIND": "x", "LINENO": "x", "PPID": "x", "PS4": "$(false)", "_": "x", "ENV": "/dev/full"},
        {"a.b": "1", "with blank": "2", "BASH_FUNC_f%%": "() { :; }", "1": "3", "-i": "4", "-": "5", "ä": "ö"},
    ],
)
def test_awkward_names_and_values(environment: dict[str, str]) -> None:
    assert taken_on(environment) == environment


@pytest.mark.parametrize("environment", [{"": "x"}, {"a=b": "x"}, {"a\0": "x"}, {"a": "\0"}])
def test_what_no_process_can_have_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ContainerError, match="Bad environment variable"):
        script(environment, ENV, [ENV])
