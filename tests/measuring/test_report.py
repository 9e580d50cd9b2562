"""The report shows what was found, beside what is aimed at."""

from xml.etree import ElementTree as ET

import pytest
from benchmarks import aims, contest
from benchmarks.findings import Findings
from benchmarks.report import page, sheets
from benchmarks.sheets import Sheet, figure
from made_up import WORK, findings, opened, overloaded, result


def cells(text: str, *start: str) -> list[str]:
    """Return the cells of the line of a Markdown table that begins with these."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (found,) = (line for line in lines if tuple(line[: len(start)]) == start)
    return found


def test_the_page_has_every_finding():
    text = page(findings(), "picture.svg")
    assert "- machine: an abacus" in text
    assert "](picture.svg)" in text
    assert cells(text, "get by id", "64", "convostore")[3:] == [
        *("6,276", "157", "314", "78.5", "52.3", "0.16 (0.16-0.16)", "6.37 (6.37-6.37)", "≥ 6 met"),
    ]
    assert cells(text, "cache hit", "64", "cashews")[9] == "0.90 (0.90-0.90)"
    assert cells(text, "get by id", "10,000", "convostore")[10:] == [
        "5.00",
        "5.00",
        "100",
        "50.0",
        "all, p99 < 10 ms met",
    ]
    assert cells(text, "get by id", "overload")[2:8] == ["4,000", "18", "2", "0", "0", "0"]
    assert cells(text, "get by id", "after")[8:] == ["4,000", "4,000 300 100", "128", "back after 2 s, ≤ 5 s met"]
    assert cells(text, "append", "1", "200,000")[5] == "1.00 (1.00-1.00)"
    assert cells(text, "get by id", "1", "10,000")[3:5] == ["1,111", "2,222"]
    assert cells(text, "convostore", "10,000")[2:] == ["60.0", "61.0", "1.0"]
    assert cells(text, "convostore", "47,619")[-1] == "≥ 0.9 met"
    assert cells(text, "session")[1:] == ["3", "321"]
    assert cells(text, "empty at first")[3:] == ["40.0%", "50.0", "1,000", ""]
    assert cells(text, "filled before")[3:] == ["2.0%", "100", "500", "≤ 0.05 met"]


@pytest.mark.parametrize(
    ("tails", "verdict"),
    [
        ([0.2, 0.1], "back after 0 s, ≤ 5 s met"),
        ([0.1, 0.1, 0.3, 0.1], "back after 3 s, ≤ 5 s met"),
        ([*[1.0] * 6, 0.1], "back after 6 s, ≤ 5 s MISSED"),
        ([0.1, 0.1, 0.3], "not back, ≤ 5 s MISSED"),
        ([0.1, float("nan")], "not back, ≤ 5 s MISSED"),
    ],
)
def test_an_overload_is_over_when_no_later_second_is_slow(tails, verdict):
    assert aims.overload_verdict(overloaded(*tails)) == verdict


def test_tables_are_well_formed():
    for sheet in sheets(findings()):
        assert {len(row) for row in sheet.rows} == {len(sheet.headings)}
        assert sheet.for_terminal().row_count == len(sheet.rows)


def test_what_was_not_measured_is_left_out():
    assert list(sheets(Findings())) == []


@pytest.mark.parametrize(
    ("callers", "speed", "verdict"),
    [(1, 1.0, "≤ 1.08 met"), (1, 0.9, "≤ 1.08 MISSED"), (64, 6.0, "≥ 6 met"), (64, 5.9, "≥ 6 MISSED"), (16, 1.0, "")],
)
def test_a_result_is_held_to_its_aim(callers, speed, verdict):
    assert aims.verdict(result(contest.GET, callers, contest.OURS, speed)) == verdict
    assert aims.verdict(result(contest.GET, callers, "somebody else", speed)) == ""


def test_a_long_tail_misses_its_aim():
    slow, quick = result("slow", 1, contest.OURS, 0.8), result("quick", 1, contest.OURS, 0.9)
    assert aims.tail_verdict([slow, quick]) == "MISSED by slow"
    assert aims.tail_verdict([quick]) == "met by all"


def test_the_open_loop_misses_its_aim_by_time_or_by_a_call_not_served():
    in_time = opened(contest.GET, contest.OURS, 10_000, 0.009)
    too_late = opened(contest.GET, contest.OURS, 10_000, 0.011)
    one_lost = opened(contest.GET, contest.OURS, 10_000, 0.009)
    one_lost.tally.arrived += 1
    verdicts = [aims.open_verdict(one.case, 10_000, one.contestant, one.tally) for one in (in_time, too_late, one_lost)]
    assert [verdict.split()[-1] for verdict in verdicts] == ["met", "MISSED", "MISSED"]


def test_a_cell_cannot_break_a_table():
    sheet = Sheet("title", ("a", "b"), rows=[("x | y", "1")])
    assert sheet.markdown().splitlines()[-1] == "| x \\| y | 1 |"


def test_figures_have_three_digits():
    assert [figure(value) for value in (0.1234, 1.234, 12.34, 123.4, 12345.6)] == [
        *("0.12", "1.23", "12.3", "123", "12,346"),
    ]


@pytest.mark.parametrize(
    ("found", "expected", "times"),
    [(findings(), "6.37", len(WORK) + 5), (Findings(), "not measured", 4)],
)
def test_the_picture_shows_what_was_found(found, expected, times):
    pytest.importorskip("matplotlib", reason="the picture is drawn by a library of the extra `bench`")
    from benchmarks.chart import draw  # noqa: PLC0415 - needs it

    text = draw(found)
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own
    assert text.count(f"<!-- {expected} -->") == times
    assert text == draw(found)  # the same findings, the same file
