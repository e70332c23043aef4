"""Texts that say how strongly they support each value, and vectors whose effects are planted."""

import functools

import numpy as np
import pytest
from planted_loop import ASKED, DECODING, loaded, vector

from valueflow.dose.sweep import Grid, sweep
from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact
from valueflow.evaluate import AnchorEvaluator, Panel
from valueflow.judges import ScriptedJudge
from valueflow.steering.vector import random_like
from valueflow.study import effects as module
from valueflow.study.effects import at_ends, effect_matrix, score_all, side_effects, steered_texts
from valueflow.study.specificity import own_effects
from valueflow.study.tone import Tone, TonePair
from valueflow.typing import Item

VALUES = ("svt/power", "svt/hedonism", "svt/security")
TRUTH = np.array([[6.0, 0.0, -3.0], [1.0, 4.0, 1.0], [5.0, 5.0, 5.0]])
PROMPTS = tuple(ASKED[:16])


def said(numbers, tag):
    return ";".join(f"{x:.3f}" for x in numbers) + f" {tag}"


@functools.cache
def evaluators():
    """One per value; the judge of the i-th reads the i-th number."""
    return {value: _evaluator(value, place) for place, value in enumerate(VALUES)}


def _evaluator(value, place):
    def reads(item):
        return float(item.text.partition(" ")[0].split(";")[place])

    grades = np.linspace(-9.5, 9.5, 39)
    items = tuple(Item(said([g] * 3, f"anchor {i}")) for i, g in enumerate(grades))
    judge = ScriptedJudge(reads, sharpness=1.2, seed=place)
    found = AnchorEvaluator(judge, Panel(value, items, grades), n_windows=6, seed=0)
    graded = [Item(said([g] * 3, f"graded {i}")) for i, g in enumerate(grades)]
    return found.fit(graded, grades.tolist())


def grid(effect, *, seed):
    """Low, unsteered, high: the effect is split evenly about the level of each prompt."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 1.5, (len(PROMPTS), 3))
    texts = [
        tuple(said(level[p] + share * effect, f"text {cell} {p}") for p in range(len(PROMPTS)))
        for cell, share in enumerate((-0.5, 0.0, 0.5))
    ]
    cells = ({"vector": -0.2}, {}, {"vector": 0.3})
    nll = np.tile(np.array([[1.4], [1.0], [1.6]]), len(PROMPTS))
    broken = np.zeros((3, len(PROMPTS)), dtype=bool)
    broken[2, :4] = True
    return Grid(cells, PROMPTS, tuple(texts), nll, broken)


def grids():
    return {value: grid(TRUTH[i], seed=i) for i, value in enumerate(VALUES)}


def test_a_planted_matrix_is_recovered_by_size():
    found = effect_matrix(score_all(grids(), evaluators()), VALUES)
    assert np.abs(found.means - TRUTH).max() < 1.0
    assert (np.abs(found.means - TRUTH) < 1.3 * found.half_widths).mean() >= 8 / 9
    own = own_effects(found)
    assert own[0].largest and own[1].largest
    # The third moves all values alike: whichever is largest, it stands out by nothing.
    assert abs(own[2].margin) < 1.0


@pytest.mark.slow
def test_scores_are_kept_and_not_made_twice(tmp_path, monkeypatch):
    first = score_all(grids(), evaluators(), folder=tmp_path)
    scored = []
    before = module._scored

    def counted(*arguments):
        scored.append(arguments)
        return before(*arguments)

    monkeypatch.setattr(module, "_scored", counted)
    again = score_all(grids(), evaluators(), folder=tmp_path)
    assert not scored
    assert all(np.array_equal(first[v], again[v]) for v in VALUES)
    changed = grids() | {"svt/hedonism": grid(TRUTH[0], seed=9)}
    score_all(changed, evaluators(), folder=tmp_path)
    assert len(scored) == 1
    (tmp_path / "svt-power.json").write_text("{")
    with pytest.raises(ArtifactError, match="delete it"):
        score_all(grids(), evaluators(), folder=tmp_path)


def test_a_judge_that_reads_ahead_gets_all_texts_at_once(monkeypatch):
    told = evaluators()
    judge = told["svt/power"].judge
    asked = []
    ahead = lambda items: asked.append(len(items))
    monkeypatch.setattr(judge, "read_ahead", ahead, raising=False)
    score_all({"svt/power": grid(TRUTH[0], seed=0)}, told)
    assert asked == [3 * len(PROMPTS)]


class Tones:
    """Embeds "good" one way and "bad" the other, whatever else is said."""

    def embed(self, texts):
        signs = np.array([("good" in t) - 1.0 * ("bad" in t) for t in texts])
        rest = np.array([[len(t) % 7, len(t) % 3] for t in texts]) / 10
        rows = np.column_stack([signs, rest])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)).astype(np.float32)


def test_what_else_changed_is_told():
    pairs = [TonePair("?", f"good {x}", f"bad {x}") for x in ("soup", "rain", "tea", "trains")]
    texts = (("bad it is", "bad"), ("one two", "three four"), ("good one two three", "good five"))
    made = Grid(
        ({"vector": -0.2}, {}, {"vector": 0.3}),
        PROMPTS[:2],
        texts,
        np.array([[1.5, 2.5], [1.0, 2.0], [1.25, np.nan]]),
        np.array([[True, False], [False, False], [True, True]]),
    )
    found = side_effects(made, Tone(Tones(), pairs))
    assert found.ends == (-0.2, 0.3)
    assert found.words == (2.0, 2.0, 3.0)
    assert found.words_change[0] == 1.0 and found.words_change[1] == pytest.approx(0, abs=1e-9)
    assert found.degenerate == (0.5, 0.0, 1.0)
    assert found.damage == (0.5, 0.25)
    assert found.tone[0] < -0.5 < 0.5 < found.tone[2]
    assert found.tone_change[0] == pytest.approx(found.tone[2] - found.tone[0])
    assert np.isnan(side_effects(made).tone_change[0])


def test_ends_are_the_outermost_coefficients_in_the_range():
    cells = tuple({"vector": c} for c in (-0.4, -0.2, 0.0, 0.2, 0.4))
    texts = tuple((f"{cell['vector']}",) * 2 for cell in cells)
    made = Grid(cells, PROMPTS[:2], texts, np.zeros((5, 2)), np.zeros((5, 2), dtype=bool))
    assert [row[0] for row in at_ends(made, (-0.35, 0.4)).texts] == ["-0.2", "0.0", "0.4"]
    with pytest.raises(InvalidInput, match="both sides"):
        at_ends(made, (-0.1, 0.4))


def test_steered_texts_are_those_of_a_sweep_and_survive_a_kill(tmp_path, monkeypatch):
    vectors = {"one": vector(), "two": random_like(vector(), seed=1)}
    ends = {"one": (-0.3, 0.3), "two": (-0.2, 0.4)}
    prompts = list(PROMPTS[:3])
    asked = {"prompts": prompts, "folder": tmp_path, "decoding": DECODING}
    made = []

    def killed(*arguments, **options):
        made.append(arguments[1])
        if len(made) == 3:
            raise KeyboardInterrupt
        return sweep(*arguments, **options)

    monkeypatch.setattr("valueflow.study.kept.sweep", killed)
    with pytest.raises(KeyboardInterrupt):
        steered_texts(loaded(), vectors, ends, **asked)
    made[:] = []
    found = steered_texts(loaded(), vectors, ends, **asked)
    assert len(made) == 1 and list(made[0]) == ["vector"]
    for name, own in vectors.items():
        low, high = ends[name]
        cells = [{"v": low}, {}, {"v": high}]
        oracle = sweep(loaded(), {"v": own}, cells, prompts, decoding=DECODING)
        assert found[name].texts == oracle.texts
        assert found[name].nll == pytest.approx(oracle.nll, abs=1e-4)
    with pytest.raises(StaleArtifact, match="vectors"):
        steered_texts(loaded(), {"one": vectors["two"]}, ends, **asked)
    with pytest.raises(InvalidInput, match="either side of 0"):
        steered_texts(loaded(), vectors, {"one": (0.1, 0.3)}, **asked)
