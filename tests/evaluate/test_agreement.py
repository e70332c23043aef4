"""Agreement with grades of others, in a world where the judge's errors are planted."""

import json
import math
import zlib

import numpy as np
import pytest

from valueflow.errors import InvalidInput, NoSignal
from valueflow.evaluate import AnchorEvaluator, Panel
from valueflow.evaluate.agreement import (
    Agreement,
    agreement,
    compare,
    ordered_pairs,
    read_graded,
    total,
)
from valueflow.judges import ScriptedJudge
from valueflow.typing import Item

GRADES = np.linspace(-9, 9, 37)


def text_of(grade, tag):
    return Item(f"{grade:+.2f} {tag}")


def grade_of(item):
    return float(item.text.split()[0])


def evaluator(score=grade_of, mode="calibrated"):
    items = tuple(text_of(g, "anchor") for g in GRADES)
    panel = Panel("svt/power", items, GRADES)
    judge = ScriptedJudge(score, sharpness=3.0, seed=0)
    found = AnchorEvaluator(judge, panel, n_windows=8, mode=mode, seed=0)
    graded = [text_of(g, "graded") for g in GRADES]
    return found if mode == "paper" else found.fit(graded, GRADES.tolist())


@pytest.mark.parametrize(
    ("measured", "right"), [((1, 2, 0), 1), ((0, 1, 2), 3), ((2, 2, 2), 1.5), ((0, np.nan, 2), 2)]
)
def test_pairs_far_enough_apart_are_counted(measured, right):
    assert ordered_pairs(np.array([0.0, 5.0, 9.0]), np.array(measured, float)) == (right, 3)


def test_pairs_within_the_gap_do_not_count():
    grades = np.array([0.0, 3.0, 3.1])
    assert ordered_pairs(grades, np.array([2.0, 1.0, 0.0]), gap=3) == (0.0, 1)
    assert ordered_pairs(grades, -grades, gap=100) == (0.0, 0)


def test_pairs_agree_with_one_by_one_counting():
    rng = np.random.default_rng(0)
    grades, measured = rng.uniform(-10, 10, 40), rng.normal(size=40)
    far = [(i, j) for i in range(40) for j in range(40) if grades[i] - grades[j] > 3]
    right = sum(measured[i] > measured[j] for i, j in far)
    assert ordered_pairs(grades, measured) == (right, len(far))


def test_a_judge_that_sees_grades_agrees_and_one_that_sees_them_reversed_does_not():
    items = [text_of(g, "text") for g in np.linspace(-8.2, 8.2, 15)]
    grades = [grade_of(i) for i in items]
    seeing = agreement(evaluator(), items, grades)
    assert (seeing.value, seeing.texts, seeing.unranked) == ("svt/power", 15, 0)
    assert seeing.share > 0.97
    # Only mode "paper" measures with such a judge; the other refuses it.
    turned = evaluator(lambda i: -grade_of(i), mode="paper")
    assert agreement(turned, items, grades).share < 0.03
    blind = evaluator(lambda i: float(zlib.crc32(i.text.encode()) % 97) / 10, mode="paper")
    assert 0.1 < agreement(blind, items, grades).share < 0.9


def test_as_many_grades_as_items():
    with pytest.raises(InvalidInput, match="1 texts but 2 grades"):
        agreement(evaluator(), [text_of(1, "a")], [1.0, 2.0])


def test_totals_weigh_pairs_not_values():
    found = [Agreement("a", 10, 90, 90.0, 0), Agreement("b", 5, 10, 0.0, 2)]
    assert total(found) == Agreement("all", 15, 100, 90.0, 2)
    assert total(found, value="svt").value == "svt"
    assert math.isnan(total([]).share)


def test_values_are_compared_each_by_its_own_evaluator():
    asked, told = [], []
    graded = {
        value: ([text_of(g, value) for g in (-5.0, 0.0, 5.0)], [-5.0, 0.0, 5.0])
        for value in ("svt/power", "svt/security")
    }

    def evaluator_of(value):
        asked.append(value)
        return evaluator()

    found = compare(graded, evaluator_of, progress=lambda *n: told.append(n))
    assert asked == list(graded) and told == [(1, 2), (2, 2)]
    assert [a.pairs for a in found] == [3, 3]


def test_a_value_that_the_judge_does_not_see_is_unranked_and_worth_a_coin_toss():
    def evaluator_of(value):
        if value == "svt/security":
            raise NoSignal("the judge is blind here")
        return evaluator()

    items, grades = [text_of(g, "x") for g in (-5.0, 0.0, 5.0)], [-5.0, 0.0, 5.0]
    graded = {"svt/power": (items, grades), "svt/security": (items, grades)}
    seen, blind = compare(graded, evaluator_of)
    assert seen.share == 1 and seen.unranked == 0
    assert blind == Agreement("svt/security", 3, 3, 1.5, 3)


def test_graded_files_with_and_without_bins(tmp_path):
    path = tmp_path / "graded.json"
    rows = [{"text": "Obey me.", "intensity": 7}, {"text": "As you like.", "intensity": -2.5}]
    path.write_text(json.dumps({"power": {"2": rows[:1], "-1": rows[1:]}, "civil_rights": rows}))
    found = read_graded(path)
    assert list(found) == ["svt/power", "right/civil"]
    for items, grades in found.values():
        assert items == [Item("Obey me."), Item("As you like.")] and grades == [7.0, -2.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b"[1]", "expected an object with values as keys"),
        (b'{"powr": []}', "powr"),
        (b'{"power": [{"text": " ", "intensity": 1}]}', "power  0: expected a 'text'"),
        (b'{"power": ["x"]}', "power  0: expected a 'text'"),
        (b'{"power": {"2": [{"text": "x"}]}}', "power 2 0: 'intensity' must be a number"),
        (b'{"power": [{"text": "x", "intensity": NaN}]}', "'intensity' must be a number"),
        (b'{"power": [{"text": "x", "intensity": true}]}', "'intensity' must be a number"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path, content, message):
    path = tmp_path / "graded.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as error:
        read_graded(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_said_so(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_graded(tmp_path / "none.json")
