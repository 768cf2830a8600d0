"""`portslice top` without a terminal: rates, sorting, figures, plots, and what is drawn on how large a screen."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.cli import glyphs
from portslice.cli.counters import counters, flattened, per_second
from portslice.cli.glyphs import Look, Size, Style
from portslice.cli.top.controls import DETAILS, HELP, TABLE, Controls
from portslice.cli.top.model import BY_NAME, COLUMNS, WINDOW_SECS, Model, Row, cells, chosen
from portslice.cli.top.view import Status, frame, rows_height, text

UNICODE, ASCII = Style(unicode=True, colour=True), Style(unicode=False, colour=False)
STATUS = Status("0.1.0", "", 1_000_000.0)
numbers = st.integers(0, 2**63)
sizes = st.builds(Size, st.integers(1, 60), st.integers(1, 250))


def overview(name: str, at: float = 1_000_000.0, **members: Any) -> dict[str, Any]:
    return {"name": name, "id": f"id-of-{name}", "timestamp": at, "created": 999_000.0, "command": "true", **members}


overviews = st.fixed_dictionaries(
    {"timestamp": st.floats(1, 1e6)},
    optional={
        "rx_bytes": numbers,
        "tx_bytes": numbers,
        "cpu_secs": st.floats(0, 1e9),
        "tx_limit": st.integers(0, 2**40),
        "mem_bytes": numbers,
        "mem_limit_bytes": numbers,
        "ephemeral_ports": st.just([32768, 33791]),
        "ephemeral_ports_in_use": st.integers(0, 1024),
        "rtt_microsecs_p50": st.floats(0, 1e9),
        "refused": st.dictionaries(st.sampled_from(["foreign_port", "martian_destination"]), numbers),
        "tx_queue": st.fixed_dictionaries({"bytes": numbers, "packets": numbers, "drops": numbers}),
    },
)


def fed(*answers: list[dict[str, Any]]) -> Model:
    model = Model()
    for answer in answers:
        model.feed(answer)
    return model


# Rates


@given(st.lists(overviews, max_size=6))
def test_rates_are_never_negative(readings: list[dict[str, Any]]) -> None:
    """Whatever the counters and the clock do."""
    model = fed(*([{**overview("web"), **reading}] for reading in readings))
    for row in model.rows.values():
        assert all(rate >= 0 for rate in row.rates.values())
        assert all(rate >= 0 for history in row.history.values() for _, rate in history)


def test_rates_are_the_increase_by_the_readings_own_time() -> None:
    first = overview("web", 100.0, rx_bytes=1000, cpu_secs=1.0, refused={"foreign_port": 1}, tx_queue=queue(drops=1))
    second = overview("web", 104.0, rx_bytes=5000, cpu_secs=3.0, refused={"foreign_port": 9}, tx_queue=queue(drops=3))
    (row,) = fed([first], [second]).rows.values()
    assert row.rates == {"rx_bytes": 1000, "cpu_secs": 0.5, "refused": 2, "refused.foreign_port": 2, "drops": 0.5}
    assert text(BY_NAME["cpu"], row) == "50%"


def queue(**members: int) -> dict[str, int]:
    return {"bytes": 0, "packets": 0, "drops": 0, **members}


def test_a_counter_that_went_back_has_no_rate_until_it_was_read_twice() -> None:
    readings = [[overview("web", at, rx_bytes=count)] for at, count in ((1.0, 500), (2.0, 100), (3.0, 150))]
    assert [fed(*readings[:number]).rows["id-of-web"].rates for number in (2, 3)] == [{}, {"rx_bytes": 50}]


def test_another_container_of_the_same_name_begins_anew() -> None:
    model = fed([overview("web", 1.0, rx_bytes=10)], [{**overview("web", 2.0, rx_bytes=90), "id": "another"}])
    assert {key: row.rates for key, row in model.rows.items()} == {"another": {}}


def test_the_same_reading_once_more_changes_nothing() -> None:
    first, second = (overview("web", at, rx_bytes=count) for at, count in ((1.0, 0), (2.0, 100)))
    (row,) = fed([first], [second], [second]).rows.values()
    assert row.rates == {"rx_bytes": 100}
    assert len(row.history["rx_bytes"]) == 1


def test_the_history_is_a_minute_long() -> None:
    model = fed(*([overview("web", float(at), rx_bytes=at)] for at in range(300)))
    times = [at for at, _ in model.rows["id-of-web"].history["rx_bytes"]]
    assert times == [float(at) for at in range(240, 300)]


def test_which_members_of_the_statistics_count() -> None:
    statistics = {
        "timestamp": 1.0,
        "cpus_limit": 1.0,
        "cpus_user_time_secs": 1.0,
        "mem_rss_bytes": 1,
        "net_rx_bytes": 1,
        "net_tx_rate_limit": 1,
        "net_drops": {"foreign_port": 1},
        "net_snmp_statistics": {"ip_stats": {"ReasmTimeout": 1}, "tcp_stats": {"InSegs": 1, "CurrEstab": 1}},
        "net_traffic_control_statistics": [{"id": "bw_limit", "drops": 1, "backlog": 1}],
        "blkio_statistics": {"throttling": [{"device": {"major_number": 8, "minor_number": 0}, "io_serviced": [
            {"op": "READ", "value": 1}]}]},
    }
    assert set(counters(flattened(statistics))) == {
        "cpus_user_time_secs",
        "net_rx_bytes",
        "net_drops.foreign_port",
        "net_snmp_statistics.tcp_stats.InSegs",
        "net_traffic_control_statistics.bw_limit.drops",
        "blkio_statistics.throttling.8:0.io_serviced.READ.value",
    }
    assert per_second({"a": 1}, {"a": 3, "b": 1}, 2) == {"a": 1}
    assert per_second({"a": 1}, {"a": 3}, 0) == {}


# Sorting


@given(st.lists(overviews, max_size=12), st.sampled_from(COLUMNS), st.booleans())
def test_sorting(readings: list[dict[str, Any]], column: Any, reverse: bool) -> None:
    """Known values in order, equal ones by name, unknown ones last, and nothing lost."""
    rows = list(fed([{**overview(f"c{at}"), **each} for at, each in enumerate(readings)]).rows.values())
    order = chosen(reversed(rows), column, reverse=reverse)
    assert sorted(row.id for row in order) == sorted(row.id for row in rows)
    values = [column.value(row) for row in order]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=(column.unit == "text") is reverse)
    if column.unit != "text":
        for first, second in pairwise(order):
            assert column.value(first) != column.value(second) or first.name < second.name


def test_the_filter_takes_any_case_and_any_part() -> None:
    rows = fed([overview(name) for name in ("Web-1", "db", "web-2")]).rows.values()
    assert [row.name for row in chosen(rows, BY_NAME["name"], pattern="WEB")] == ["Web-1", "web-2"]


# Figures


@given(st.floats(0, 2**64) | st.none())
def test_figures_are_short(value: float | None) -> None:
    assert all(len(show(value)) <= 5 for show in (glyphs.bytes_, glyphs.count, glyphs.per_second))


@given(st.floats(0, 9e9))
def test_times_are_short(value: float) -> None:
    assert len(glyphs.microseconds(value)) <= 6


@pytest.mark.parametrize(
    ("show", "value", "shown"),
    [
        (glyphs.bytes_, 999, "999"),
        (glyphs.bytes_, 1000, "1.0K"),
        (glyphs.bytes_, 37500 * 1024, "36.6M"),
        (glyphs.bytes_, 1023 * 1024, "1.0M"),
        (glyphs.count, 99999, "99999"),
        (glyphs.count, 123_456, "123k"),
        (glyphs.per_second, 0.01, "0.1"),
        (glyphs.per_second, 0, "0"),
        (glyphs.per_second, 25.4, "25"),
        (glyphs.percent, 0.004, "0.4%"),
        (glyphs.percent, 1.2, "120%"),
        (glyphs.microseconds, 850, "850us"),
        (glyphs.microseconds, 12_300, "12.3ms"),
        (glyphs.microseconds, 1_500_000, "1.5s"),
        (glyphs.microseconds, None, "-"),
    ],
)
def test_figures(show: Any, value: float | None, shown: str) -> None:
    assert show(value) == shown


@given(st.text(max_size=30), st.integers(0, 20), st.booleans())
def test_texts_fit(written: str, room: int, right: bool) -> None:
    for style in (UNICODE, ASCII):
        assert glyphs.width(glyphs.fitted(glyphs.plain(written, style), room, style, right=right)) == room


# Bars and plots


@given(st.floats(0, 10), st.integers(1, 30))
def test_a_bar_is_as_long_as_its_value(value: float, length: int) -> None:
    for style in (UNICODE, ASCII):
        drawn = glyphs.bar(value, length, style)
        assert len(drawn) == length
        full = sum(mark in "█#" for mark in drawn)
        assert abs(full - min(value, 1) * length) <= 1


@given(st.lists(st.none() | st.floats(0, 1e12), min_size=1, max_size=40), st.integers(1, 4))
def test_a_plot_keeps_the_order_of_its_values(values: list[float | None], height: int) -> None:
    """What is higher is not drawn lower, the highest is at the top, 0 is the thinnest line and nothing else is."""
    for style in (UNICODE, ASCII):
        marks = " ▁▂▃▄▅▆▇█" if style.unicode else " _.:-=+*#"
        lines = glyphs.plot(values, style, height)
        assert [len(line) for line in lines] == [len(values)] * height
        heights = [sum(marks.index(line[at]) for line in lines) for at in range(len(values))]
        for value, drawn in zip(values, heights, strict=True):
            assert (drawn == 0) is (value is None)
            if value is not None:
                assert (drawn == 1) is (value == 0)
        known = [(value, drawn) for value, drawn in zip(values, heights, strict=True) if value is not None]
        by_value = sorted(known)
        assert [drawn for _, drawn in by_value] == sorted(drawn for _, drawn in known)
        if known and by_value[-1][0] > 0:
            assert by_value[-1][1] == height * 8


def test_cells_of_a_history() -> None:
    """Twelve cells of 5 s; a long interval fills all that it spans; before the first reading nothing is known."""
    history = [(72.0, 10.0), (74.0, 30.0), (76.0, 5.0), (91.0, 7.0)]
    assert cells(history, 12, 91.0) == [None] * 7 + [20, 5, 7, 7, 7]


@given(st.lists(st.tuples(st.floats(0, WINDOW_SECS), st.floats(0, 1e9)), max_size=40), st.integers(1, 80))
def test_cells_are_within_the_values(readings: list[tuple[float, float]], number: int) -> None:
    history = sorted(readings)
    drawn = cells(history, number, WINDOW_SECS)
    assert len(drawn) == number
    rates = [rate for _, rate in history]
    assert all(min(rates) * 0.999 <= each <= max(rates) * 1.001 for each in drawn if each is not None)


# The screen


def many(number: int) -> Model:
    return fed(*([overview(f"c{at:04}", now, tx_bytes=at * now, tx_limit=9_000) for at in range(number)] for now in (
        1_000_000.0, 1_000_002.0)))


@given(sizes, st.sampled_from([TABLE, DETAILS, HELP]), st.sampled_from(list(BY_NAME)), st.booleans(), st.booleans())
def test_every_size_is_filled_and_not_more(size: Size, page: str, sort: str, reverse: bool, unicode: bool) -> None:
    controls = Controls(page=page, sort=sort, reverse=reverse, selected="id-of-c0007")
    lines = frame(many(40), controls, STATUS, size, UNICODE if unicode else ASCII)
    assert len(lines) <= max(size.lines, 3)
    for line in lines[2:-1] if page == TABLE else ():
        assert sum(glyphs.width(part) for part, _ in line) <= size.columns + 1  # the blank behind the last column
    if not unicode:
        assert all(part.isascii() for line in lines for part, _ in line)


@pytest.mark.parametrize("style", [UNICODE, ASCII])
def test_names_of_any_script_are_in_line(style: Style) -> None:
    model = fed([overview(name) for name in ("数据库", "web", "naïve")])
    lines = frame(model, Controls(sort="name"), STATUS, Size(24, 80), style)[3:6]
    assert len({sum(glyphs.width(part) for part, _ in line) for line in lines}) == 1
    assert len({glyphs.width(line[0][0]) for line in lines}) == 1
    assert style.unicode or all(part.isascii() for line in lines for part, _ in line)


def test_the_column_that_is_sorted_by_is_there_on_a_narrow_screen() -> None:
    for name, column in BY_NAME.items():
        titles = "".join(part for part, _ in frame(many(3), Controls(sort=name), STATUS, Size(24, 40), UNICODE)[2])
        assert column.title in titles


def test_of_a_thousand_rows_those_are_made_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, size, drawn = many(1000), Size(24, 80), []
    made = Row.fullness
    monkeypatch.setattr(Row, "fullness", lambda row, way: drawn.append(row.name) or made(row, way))  # type: ignore[func-returns-value]
    monkeypatch.setattr(Row, "saturated", False)
    controls = Controls(sort="name", selected="id-of-c0500")
    lines = frame(model, controls, STATUS, size, UNICODE)
    shown = [line[0][0].strip() for line in lines[3:-1]]
    assert len(shown) == rows_height(size) == 20
    assert set(drawn) == set(shown)
    assert shown[-1] == "c0500"


def test_a_full_limit_is_red() -> None:
    model = fed(*([overview("web", now, tx_bytes=int(now * 95), tx_limit=100)] for now in (1.0, 2.0)))
    line = frame(model, Controls(), STATUS, Size(24, 80), UNICODE)[3]
    assert [look & Look.RED for part, look in line if "95%" in part] == [Look.RED]


# The keys


def press(controls: Controls, model: Model, *keys: str) -> str:
    """The name under the cursor."""
    for key in keys:
        rows = chosen(model.rows.values(), BY_NAME[controls.sort], reverse=controls.reverse, pattern=controls.filter)
        controls.press(key, rows, 20)
    rows = chosen(model.rows.values(), BY_NAME[controls.sort], reverse=controls.reverse, pattern=controls.filter)
    return rows[controls.index(rows)].name if rows else ""


def test_the_cursor_stays_on_its_container() -> None:
    model, controls = many(100), Controls()
    assert press(controls, model) == "c0099"
    assert press(controls, model, "down", "down") == "c0097"
    model.feed([overview(f"c{at:04}", 1_000_004.0, tx_bytes=10**9 * (200 - at)) for at in range(100)])
    assert press(controls, model) == "c0097"
    rows = chosen(model.rows.values(), BY_NAME["tx"])
    assert controls.scroll(rows, 20) == 78
    assert press(controls, model, "home") == "c0000"
    assert press(controls, model, "end") == "c0099"
    assert press(controls, model, "pageup", "up") == "c0078"


def test_keys() -> None:
    model, controls = many(3), Controls()
    assert press(controls, model, "N") == "c0000"
    assert press(controls, model, "r") == "c0002"
    assert press(controls, model, "right") == "c0002"
    assert (controls.sort, controls.reverse) == ("tx", False)
    assert press(controls, model, "<") == "c0000"
    assert press(controls, model, "/", "q", "1", "backspace", "backspace", "1", "enter") == "c0001"
    assert (controls.filter, controls.quit) == ("1", False)
    press(controls, model, "enter")
    assert (controls.page, controls.selected) == (DETAILS, "id-of-c0001")
    press(controls, model, "q", "escape")
    assert (controls.page, controls.filter, controls.quit) == (TABLE, "", False)
    press(controls, model, "?", "escape", "+", "+", "-", "p")
    assert (controls.page, controls.interval, controls.paused) == (TABLE, 5.0, True)
    press(controls, model, "q")
    assert controls.quit


@given(st.lists(st.sampled_from(["up", "down", "pageup", "pagedown", "home", "end", "<", ">", "r", "/", "1", "enter",
                                 "escape", "backspace", "p", "+", "-", "h", "q"]), max_size=30))
def test_no_key_breaks_it(keys: list[str]) -> None:
    model, controls = many(5), Controls()
    press(controls, model, *keys)
    assert frame(model, controls, STATUS, Size(10, 60), ASCII)
