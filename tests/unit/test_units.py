"""Bytes and Duration: the vectors and texts of Mesos, and print-parse round trips."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.errors import ParseError
from portslice.units import INT64_MAX, UINT64_MAX, Bytes, Duration, parse_unsigned


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0B", 0),
        ("2000B", 2000),
        ("1KB", 1024),
        ("1kb", 1024),
        ("37500KB", 38_400_000),
        ("64Mb", 64 << 20),
        ("2GB", 2 << 30),
        ("1TB", 1 << 40),
        ("18446744073709551615B", UINT64_MAX),
        ("000000000000000000000000001KB", 1024),
    ],
)
def test_bytes_are_read(text: str, value: int) -> None:
    assert Bytes.parse(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.5MB", "Fractional bytes '1.5MB'"),
        (".5MB", "Fractional bytes '.5MB'"),
        ("1XB", "Unknown bytes unit 'XB'"),
        ("1xb", "Unknown bytes unit 'XB'"),
        ("1 KB", "Unknown bytes unit ' KB'"),
        ("100", "Invalid bytes '100'"),
        ("", "Invalid bytes ''"),
        ("MB", "Failed to convert '' to number"),
        ("-1MB", "Failed to convert '' to number"),
        ("18446744073709551616B", "Failed to convert '18446744073709551616' to number"),
        ("16777216TB", "Invalid bytes '16777216TB': more than 64 bits can hold"),
        ("٣KB", "Failed to convert '' to number"),
    ],
)
def test_bad_bytes_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Bytes.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0B"),
        (2000, "2000B"),
        (1024, "1KB"),
        (38_400_000, "37500KB"),
        (3 << 40, "3TB"),
        ((1 << 40) + 1, "1099511627777B"),
    ],
)
def test_bytes_print_with_the_largest_exact_unit(value: int, text: str) -> None:
    assert str(Bytes(value)) == text
    assert f"{Bytes(value)}" == text


def test_bytes_are_numbers_in_json() -> None:
    assert json.dumps(Bytes(2048)) == "2048"


@given(st.integers(0, UINT64_MAX).map(Bytes))
def test_bytes_round_trip(value: Bytes) -> None:
    assert Bytes.parse(str(value)) == value


@given(st.integers(0, 2**14), st.sampled_from([1, 2**10, 2**20, 2**30, 2**40]))
def test_round_bytes_print_short(count: int, factor: int) -> None:
    printed = str(Bytes(count * factor))
    assert Bytes.parse(printed) == count * factor
    assert len(printed) <= len(f"{count}KB")  # never longer than with the unit they are a multiple of


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0ns", 0),
        ("1us", 1_000),
        ("20ms", 20_000_000),
        ("15secs", 15 * 10**9),
        ("0.29secs", 290_000_000),
        (".5secs", 500_000_000),
        ("5.secs", 5 * 10**9),
        ("1mins", 60 * 10**9),
        ("1.5hrs", 5400 * 10**9),
        ("10days", 864_000 * 10**9),
        ("1weeks", 604_800 * 10**9),
        ("9223372036854775807ns", INT64_MAX),
    ],
)
def test_durations_are_read(text: str, ns: int) -> None:
    assert Duration.parse(text) == Duration(ns)


RANGE = "Argument out of the range that a Duration can represent due to int64_t's size limit"
UNITS = "supported units are 'ns', 'us', 'ms', 'secs', 'mins', 'hrs', 'days', and 'weeks'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "Invalid duration '100'"),
        ("", "Invalid duration ''"),
        ("abc", "Failed to convert '' to number"),
        ("1.2.3secs", "Failed to convert '1.2.3' to number"),
        (".secs", "Failed to convert '.' to number"),
        ("5x", f"Unknown duration unit 'x'; {UNITS}"),
        ("5Secs", f"Unknown duration unit 'Secs'; {UNITS}"),
        ("5 secs", f"Unknown duration unit ' secs'; {UNITS}"),
        ("9223372036854775808ns", RANGE),
        ("9" * 5000 + "ns", RANGE),
    ],
)
def test_bad_durations_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        Duration.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0ns"),
        (1, "1ns"),
        (1_500, "1500ns"),
        (1_500_000, "1500us"),
        (1_500_001, "1.500001ms"),
        (3_141_592_653, "3.141592653secs"),
        (3_140_000_000, "3140ms"),
        (15 * 10**9, "15secs"),
        (60 * 10**9, "1mins"),
        (5400 * 10**9, "90mins"),
        (10 * 3600 * 10**9, "10hrs"),
        (28 * 3600 * 10**9 + 1800 * 10**9, "1.1875days"),
        (864_000 * 10**9, "10days"),
        (14 * 86_400 * 10**9, "2weeks"),
        (INT64_MAX, "9223372036854775807ns"),
    ],
)
def test_durations_print_as_in_mesos(ns: int, text: str) -> None:
    assert str(Duration(ns)) == text


@given(st.integers(0, INT64_MAX) | st.integers(0, 10**7).map(lambda n: n * 10**9) | st.integers(0, 10**12))
def test_durations_round_trip(ns: int) -> None:
    assert Duration.parse(str(Duration(ns))) == Duration(ns)


def test_durations_compare_and_count_seconds() -> None:
    assert Duration.parse("20ms") < Duration.parse("1secs")
    assert Duration.parse("20ms").seconds == 0.02


@pytest.mark.parametrize("text", ["", " 1", "+1", "-1", "1_0", "0x10", "²", "65536", "9" * 5000])
def test_parse_unsigned_takes_digits_only(text: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_unsigned(text, 65535)
    assert str(caught.value) == f"Failed to convert '{text}' to number"
