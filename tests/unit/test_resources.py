"""The grammar of --resources, in text and JSON, with every error text of Mesos."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.errors import ParseError
from portslice.ports import PortSet
from portslice.resources import Resource, Resources


def test_the_usual_text() -> None:
    resources = Resources.parse("cpus:2;mem:1024;disk:10240;ports:[31000-32000];ephemeral_ports:[32768-57344]")
    assert resources.scalar("cpus") == 2
    assert resources.ranges("ports") == ((31000, 32000),)
    assert resources.ports("ports") == PortSet.parse("31000-32000")
    assert resources.ports("ephemeral_ports") == PortSet.parse("32768-57344")
    for absent in (resources.scalar("gpus"), resources.ranges("gpus"), resources.ports("gpus")):
        assert absent is None
    for of_another_type in (resources.scalar("ports"), resources.ranges("cpus")):
        assert of_another_type is None
    assert str(resources) == "cpus:2; mem:1024; disk:10240; ports:[31000-32000]; ephemeral_ports:[32768-57344]"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        (" cpus : 2 ; ; mem:1024\n", "cpus:2; mem:1024"),
        ("cpus(prod):4;cpus(*):2;cpus:1", "cpus(prod):4; cpus:3"),
        ("cpus( prod ):4", "cpus(prod):4"),
        ("ports:[1-5, 3-9]", "ports:[1-9]"),
        ("ports:[6-9,1-5]", "ports:[1-9]"),
        ("ports:[7-9,1-5]", "ports:[1-5, 7-9]"),
        ("ports:[1-2];ports:[3-4];ports(a):[9-9]", "ports:[1-4]; ports(a):[9-9]"),
        ("ports:[]", "ports:[]"),
        ("x:[0-18446744073709551615]", "x:[0-18446744073709551615]"),
        ("bugs:{b, a};bugs:{c}", "bugs:{a, b, c}"),
        ("cpus:0.0015", "cpus:0.002"),
        ("cpus:.5", "cpus:0.5"),
        ("cpus:1e3", "cpus:1000"),
        ("cpus:+1.0", "cpus:1"),
        ("cpus:0.1;cpus:0.2", "cpus:0.3"),
    ],
)
def test_texts_are_read_and_printed(text: str, printed: str) -> None:
    assert str(Resources.parse(text)) == printed


def test_scalars_and_ports_add_up_over_roles() -> None:
    resources = Resources.parse("cpus(a):0.1;cpus(b):0.2;ports(a):[1-3];ports(b):[2-9]")
    assert resources.scalar("cpus") == 0.3
    assert resources.ranges("ports") == ((1, 9),)


def test_the_default_role_is_only_for_what_names_none() -> None:
    assert [r.role for r in Resources.parse("cpus:1;mem(*):1;disk(prod):1", "web")] == ["web", "*", "prod"]


VALUE = "Failed to parse resource {} value {} error {}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpus", "Bad value for resources, missing or extra ':' in cpus"),
        ("cpus:1:2", "Bad value for resources, missing or extra ':' in cpus:1:2"),
        (":4", "Bad value for resources, missing or extra ':' in :4"),
        ("mem:1;cpus", "Bad value for resources, missing or extra ':' in cpus"),
        ("cpus(prod:4", "Bad value for resources, mismatched parentheses in cpus(prod:4"),
        ("cpus)prod(:4", "Bad value for resources, mismatched parentheses in cpus)prod(:4"),
        ("cpus(prod)x:4", "Bad value for resources, mismatched parentheses in cpus(prod)x:4"),
        ("cpus: ", VALUE.format("cpus", " ", "Expecting non-empty string")),
        ("ports:[1-2", VALUE.format("ports", "[1-2", "Mismatched brackets")),
        ("ports:]1-2[", VALUE.format("ports", "]1-2[", "Mismatched brackets")),
        ("bugs:{a,b", VALUE.format("bugs", "{a,b", "Mismatched brackets")),
        ("cpus:4)", VALUE.format("cpus", "4)", "Mismatched brackets")),
        ("ports:[31000]", VALUE.format("ports", "[31000]", 'Expecting one or more "ranges"')),
        ("ports:[31000,31010]", VALUE.format("ports", "[31000,31010]", 'Expecting one or more "ranges"')),
        ("ports:[1-2-3]", VALUE.format("ports", "[1-2-3]", 'Expecting one or more "ranges"')),
        ("ports:[1-a]", VALUE.format("ports", "[1-a]", "Expecting non-negative integers in 'a'")),
        ("ports:[1.5-2]", VALUE.format("ports", "[1.5-2]", "Expecting non-negative integers in '1.5'")),
        (
            "x:[0-18446744073709551616]",
            VALUE.format("x", "[0-18446744073709551616]", "Expecting non-negative integers in '18446744073709551616'"),
        ),
        ("bugs:a{b}", VALUE.format("bugs", "a{b}", "Unexpected '{' found")),
        ("ports:1[2-3]", VALUE.format("ports", "1[2-3]", "Unexpected '[' found")),
        ("bugs:{[1-2]}", VALUE.format("bugs", "{[1-2]}", "Unexpected '[' found")),
        ("cpus:1e-310", VALUE.format("cpus", "1e-310", "Subnormal values not supported")),
        ("cpus:inf", VALUE.format("cpus", "inf", "Infinite values not supported")),
        ("cpus:1e300", VALUE.format("cpus", "1e300", "Infinite values not supported")),
        ("cpus:NaN", VALUE.format("cpus", "NaN", "NaN not supported")),
        ("cpus:many", "Bad type for resource cpus value many type TEXT"),
        ("cpus:1_0", "Bad type for resource cpus value 1_0 type TEXT"),
        ("ports:[5-3]", "Invalid ranges resource: begin > end"),
        ("cpus:-1", "Invalid scalar resource: value <= 0"),
        ("cpus:0.0004", "Invalid scalar resource: value <= 0"),
        ("cpus:0", "Invalid scalar resource: value <= 0"),
        ("bugs:{a,a}", "Invalid set resource: duplicated elements"),
        ("(prod):4", "Empty resource name"),
        ("cpus():4", "Empty role name"),
        ("x:1;x(prod):[1-2]", "Resources with the same name ('x') but different types are not allowed"),
    ],
)
def test_bad_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Resources.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("ports:[31000-65536]", "ports", "Invalid ports resource '[31000-65536]': Range is out of bounds"),
        (
            "ephemeral_ports:[1-2,70000-70001]",
            "ephemeral_ports",
            "Invalid ephemeral ports resource '[1-2, 70000-70001]': Range is out of bounds",
        ),
    ],
)
def test_ranges_that_are_no_ports_are_refused_as_ports_only(text: str, name: str, message: str) -> None:
    resources = Resources.parse(text)
    assert resources.ranges(name)
    with pytest.raises(ParseError) as caught:
        resources.ports(name)
    assert str(caught.value) == message


def scalar(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, **more}


def ranges(name: str, *pairs: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "RANGES", "ranges": {"range": [{"begin": b, "end": e} for b, e in pairs]}, **more}


def names(name: str, *items: Any) -> dict[str, Any]:
    return {"name": name, "type": "SET", "set": {"item": list(items)}}


@pytest.mark.parametrize(
    ("items", "printed"),
    [
        ([], ""),
        ([scalar("cpus", 2), scalar("mem", 1024.5)], "cpus:2; mem:1024.5"),
        ([scalar("cpus", 2, role="prod"), scalar("cpus", 1)], "cpus(prod):2; cpus:1"),
        ([scalar("cpus", 2, reservations=[{"role": "prod"}, {"role": "prod/web"}])], "cpus(prod/web):2"),
        ([ranges("ports", (31000, 32000), (32001, 32002), disk={})], "ports:[31000-32002]"),
        ([names("bugs", "b", "a")], "bugs:{a, b}"),
        ([{"name": "ports", "type": "RANGES", "ranges": {}}], "ports:[]"),
    ],
)
def test_json_is_read(items: list[Any], printed: str) -> None:
    assert str(Resources.parse(f" {json.dumps(items)}\n")) == printed


FORM = "Some JSON resources were not formatted properly: "


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([3], FORM + "'name' is missing or not of the right type"),
        ([{"name": "cpus"}], FORM + "'type' is missing or not of the right type"),
        ([{"name": "cpus", "type": "TEXT"}], FORM + "'TEXT' is not a type of resource"),
        ([scalar("cpus", "2")], FORM + "'value' is missing or not of the right type"),
        ([scalar("cpus", True)], FORM + "'value' is missing or not of the right type"),
        ([scalar("cpus", 10**400)], FORM + "'value' is missing or not of the right type"),
        ([scalar("cpus", 1e300)], FORM + "Infinite values not supported"),
        ([ranges("ports", (1, 2.5))], FORM + "'end' is missing or not of the right type"),
        ([ranges("ports", (-1, 2))], FORM + "'begin' is not a 64-bit unsigned integer"),
        ([names("bugs", 1)], FORM + "'item' holds something else than texts"),
        ([scalar("cpus", -1)], "Invalid scalar resource: value <= 0"),
        ([ranges("ports", (5, 3))], "Invalid ranges resource: begin > end"),
        ([ranges("ports", (1, 5), (3, 9))], "Invalid ranges resource: overlapping ranges"),
        ([ranges("ports", (3, 9), (1, 3))], "Invalid ranges resource: overlapping ranges"),
        ([names("bugs", "a", "a")], "Invalid set resource: duplicated elements"),
        ([scalar("", 1)], "Empty resource name"),
        ([scalar("x", 1), names("x", "a")], "Resources with the same name ('x') but different types are not allowed"),
    ],
)
def test_bad_json_is_refused(items: list[Any], message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Resources.parse(json.dumps(items))
    assert str(caught.value) == message


def test_broken_json_is_not_taken_for_the_text_form() -> None:
    with pytest.raises(ParseError, match=f"^{FORM}"):
        Resources.parse('[{"name": "cpus"')


word = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=4)
bound = st.integers(0, 70000) | st.integers(0, 2**64 - 1)
# The type follows from the name, as a name has one type.
resource = st.one_of(
    st.builds(Resource, word.map("s".__add__), st.integers(1, 10**12).map(lambda n: n / 1000), word | st.just("*")),
    st.builds(
        Resource,
        word.map("r".__add__),
        st.lists(st.tuples(bound, bound).map(lambda p: (min(p), max(p))), max_size=4).map(tuple),
        word | st.just("*"),
    ),
    st.builds(Resource, word.map("n".__add__), st.frozensets(word, max_size=4), word | st.just("*")),
)


@given(st.lists(resource, max_size=6))
def test_what_is_printed_parses_back(items: list[Resource]) -> None:
    resources = Resources.parse("; ".join(map(str, items)))
    assert Resources.parse(str(resources)) == resources
    assert Resources.parse(str(resources)).items == resources.items
    for r in items:
        if isinstance(r.value, tuple):
            union = resources.ranges(r.name)
            assert union is not None
            assert all(any(b <= begin and end <= e for b, e in union) for begin, end in r.value)
        if isinstance(r.value, float):
            same = [o.value for o in items if o.name == r.name and isinstance(o.value, float)]
            assert resources.scalar(r.name) == pytest.approx(sum(same), abs=0.0005)
