"""The page of a comparison: every number in its column, totals as counted by hand."""

import dataclasses

import pytest
from compared import est, reached, summary

from valueflow.study.compare_page import HEAD, compare_page, write_compare_page

POWER, FACE = summary("svt/power"), summary("svt/face", 1.0)


def rows(page):
    return [
        dict(zip(HEAD, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        for line in page.splitlines()[2:]
        if line.startswith("|")
    ]


def test_every_number_stands_in_its_column():
    asked = tuple({"status": status} for status in ("ok", "unreachable", "ok"))
    active = dataclasses.replace(POWER.ways["activation"], kept=est(5.0), error=1.25, targets=asked)
    measured = dataclasses.replace(POWER, ways=dict(POWER.ways) | {"activation": active})
    (row,) = rows(compare_page([measured], limit=0.7))
    assert row == {
        "value": "power",
        "unsteered": "+0.2",
        "prompting": "levels",
        "range, prompting": "3.0 ± 0.5",
        "range, activation": "7.0 ± 0.5",
        "range, both": "9.5 ± 0.5",
        "activation - prompting, 95%": "+4.0 [+3.5, +4.5]",
        "within the limit: prompting, activation": "3.0, 5.0",
        "damage of activation, - / +": "0.30 / 0.90",
        "error: prompting, activation": "0.50 (0), 1.25 (2)",
        "random directions": "–",
        "words without values": "–",
    }


def test_totals_count_means_intervals_and_what_kept_the_limit():
    far = dataclasses.replace(reached(-4.0, 3.0), kept=est(1.0), error=1.5)
    narrow = dataclasses.replace(
        FACE,
        ways=dict(FACE.ways) | {"activation": far},
        differences={"activation - levels": est(0.2)},
        placebos={"random 1": est(-1.0), "random 2": est(2.0), "placebo texts": est(-0.4)},
    )
    page = compare_page([POWER, narrow], limit=0.7)
    assert "for 2 of 2 values (1 with an interval above 0)" in page
    assert "within a damage of 0.7 on these prompts for 1." in page
    assert "activation steering: 1.00 (2 values)" in page and "prompting: 0.50 (2" in page
    assert rows(page)[1]["random directions"] == "1.5"
    assert rows(page)[1]["words without values"] == "0.4"


def test_what_was_not_measured_is_a_dash_and_counts_nowhere(tmp_path):
    nan = float("nan")
    unranked = dataclasses.replace(reached(nan, nan), error=nan)
    empty = dataclasses.replace(POWER, prompting="", ways={"activation": unranked}, differences={})
    page = compare_page([empty, FACE], limit=0.7)
    assert "for 1 of 1 values" in page and "nan" not in page
    assert rows(page)[0]["range, activation"] == "–" and rows(page)[0]["range, prompting"] == "–"
    write_compare_page([empty, FACE], tmp_path / "page.md", limit=0.7)
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page


def test_no_values_make_an_empty_table():
    assert rows(compare_page([], limit=0.7)) == []


@pytest.mark.parametrize("value", ["svt/power", "power"])
def test_a_value_has_its_own_name(value):
    (row,) = rows(compare_page([dataclasses.replace(POWER, value=value)], limit=0.7))
    assert row["value"] == "power"
