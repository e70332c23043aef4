"""What a finished loop tells: its examples, and what the demo prints of it."""

from dataclasses import replace

import numpy as np
import pytest

from valueflow.cli.demo import _show
from valueflow.dose.sweep import Grid
from valueflow.study.runner import EXAMPLE_TARGETS, Loop

PROMPTS = ("What now?", "Who decides?", "And then?")


@pytest.fixture
def loop(calibration, verified):
    cells = ({"vector": 0.0}, *({"vector": row.coefficient} for row in verified))
    texts = tuple(
        tuple(f"[bold]answer[/bold] to {p} at row {i}" for p in PROMPTS) for i in range(len(cells))
    )
    shape = (len(cells), len(PROMPTS))
    grid = Grid(cells, PROMPTS, texts, np.ones(shape), np.zeros(shape, dtype=bool))
    return Loop("svt/power", calibration, verified, grid, 12.0, "abcd")


def test_examples_are_the_texts_of_the_targets_shown(loop, verified):
    examples = loop.examples(2)
    assert [e["prompt"] for e in examples] == list(PROMPTS[:2])
    targets = [row.target for row in verified]
    for column, example in enumerate(examples):
        assert [a["target"] for a in example["answers"]] == list(EXAMPLE_TARGETS)
        for answer in example["answers"]:
            row = targets.index(answer["target"])
            assert answer["text"] == loop.grid.texts[row + 1][column]
            assert answer["coefficient"] == verified[row].coefficient


def test_the_demo_prints_targets_answers_and_both_judges(loop, verified, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _show(loop, {"model": "tiny", "layer": 9})
    out = capsys.readouterr().out
    for row in verified:
        assert f"{row.achieved:+.2f}" in out and f"{row.coefficient:+.3f}" in out
    assert "unreachable" in out and "Spearman" in out and "never saw graded texts" in out
    assert "vector +10.3; random directions (4) mean size " in out
    assert "; label-shuffled (3) mean size " in out
    for kind, name in (("random", "random directions"), ("shuffled", "label-shuffled")):
        assert f"{name} {loop.calibration.span_ratio(kind):.1f}" in out
        assert f"mean size {loop.calibration.placebo_change(kind):.1f}" in out
    # Markup in a model's answer is text.
    assert "[bold]answer[/bold]" in out


def test_the_demo_says_nothing_of_placebos_that_were_not_measured(loop, capsys):
    alone = replace(loop, calibration=replace(loop.calibration, placebos={}))
    _show(alone, {"model": "tiny", "layer": 9})
    out = capsys.readouterr().out
    assert "change over the usable range: vector +10.3\n" in out
    assert "random" not in out and "theirs" not in out
