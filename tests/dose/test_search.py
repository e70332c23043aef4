import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
from planted_layers import DECODING, GOOD, PROMPTS, evaluator, loaded, vector

from valueflow.dose.candidates import Candidate, at_layers, candidates
from valueflow.dose.effect import Limits, effect_within
from valueflow.dose.search import plan, planned_rows, search
from valueflow.dose.sweep import sweep
from valueflow.errors import InvalidInput

LIMITS = Limits(2.0, degenerate=1.0)
TRIED = candidates([(1,), (2,), (GOOD,)], scopes=("all", "last"))


@functools.cache
def found(seed=0):
    return search(
        loaded(),
        {"mean_difference": vector()},
        TRIED,
        copy.deepcopy(evaluator()),  # the planted judge's noise goes on from call to call
        prompts=PROMPTS,
        decoding=DECODING,
        limits=LIMITS,
        first_prompts=2,
        seed=seed,
    )


def test_the_planted_layer_and_scope_win():
    assert found().winner.candidate == Candidate((GOOD,), "all")
    assert found().vector.layers == (GOOD,)
    assert found().decoding.positions == "all"
    change, error = found().lead
    assert change > 2 * error > 0
    assert found().winner.best > 0.95
    assert found().winner.effect.change > 3


def test_rungs_halve_candidates_and_double_prompts_none_of_them_twice():
    rungs = found().rungs
    assert [(len(r.tried), len(r.prompts)) for r in rungs] == [(6, 2), (3, 4), (2, 8)]
    assert [p for r in rungs for p in r.prompts] == PROMPTS
    for before, after in zip(rungs, rungs[1:], strict=False):
        assert {t.candidate for t in before.tried if t.kept} == {t.candidate for t in after.tried}
    assert [t.kept for t in rungs[-1].tried].count(True) == 1


def test_every_measurement_is_kept_and_is_what_it_says():
    for rung in found().rungs:
        changes = [t.effect.change for t in rung.tried]
        assert changes == sorted(changes, reverse=True)
        for tried in rung.tried:
            assert tried.effect == effect_within(tried.arm, LIMITS)
            assert len(tried.arm.texts[0]) == len(rung.prompts)
        assert sum(t.best for t in rung.tried) == pytest.approx(1)
    tried = found().rungs[1].tried[1]
    c = tried.candidate
    cell = {"v": tried.arm.coefficients[0]}
    alone = sweep(
        loaded(),
        {"v": at_layers(vector(), c.layers)},
        [cell],
        found().rungs[1].prompts,
        decoding=replace(DECODING, positions=c.positions),
    )
    assert alone.texts[0] == tried.arm.texts[0]


def test_doses_follow_what_the_rung_before_could_bear():
    first = {t.candidate: t for t in found().rungs[0].tried}
    for tried in found().rungs[1].tried:
        before = first[tried.candidate]
        end = before.effect.coefficient if before.effect.bounded else 0.9
        assert tried.arm.coefficients == pytest.approx([-1.2 * end, -0.6 * end, 0, 0.6 * end,
                                                        1.2 * end])  # fmt: skip


@pytest.mark.slow
def test_the_rows_are_those_stated_before(monkeypatch):
    generated = []
    real = sweep

    def counted(*args, **options):
        grid = real(*args, **options)
        generated.append(grid.nll.size)
        return grid

    monkeypatch.setattr("valueflow.dose.search.sweep", counted)
    again = found.__wrapped__()
    assert sum(generated) == again.rows == planned_rows(plan(6, 14, first=2))
    assert len(generated) <= 2 * 3  # one call a scope and rung
    # And the same seed gives the same search.
    assert again.winner.candidate == found().winner.candidate
    assert again.winner.effect == found().winner.effect
    assert [t.candidate for t in again.rungs[1].tried] == [
        t.candidate for t in found().rungs[1].tried
    ]
    assert np.array_equal(again.rungs[0].redrawn, found().rungs[0].redrawn)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((28, 24, 3), [(28, 3), (14, 6), (7, 15)]),
        ((2, 24, 3), [(2, 24)]),
        ((3, 24, 3), [(3, 3), (2, 21)]),
        ((100, 3, 3), [(100, 3)]),
        ((8, 14, 2), [(8, 2), (4, 4), (2, 8)]),
    ],
)
def test_plans(given, expected):
    n, prompts, first = given
    assert plan(n, prompts, first=first) == expected
    assert sum(size for _, size in expected) == prompts


def test_planned_rows_by_hand():
    # 3 doses on both sides and the unsteered answer, then 2.
    assert planned_rows([(4, 3), (2, 5)]) == 3 * (6 * 4 + 1) + 5 * (4 * 2 + 1)


@pytest.mark.parametrize("given", [(1, 24, 3), (4, 2, 3), (4, 24, 1)])
def test_plans_of_nothing_are_refused(given):
    with pytest.raises(InvalidInput, match="2 or more candidates"):
        plan(given[0], given[1], first=given[2])


def test_prompts_that_repeat_are_refused():
    with pytest.raises(InvalidInput, match="repeat"):
        search(
            loaded(), {"mean_difference": vector()}, TRIED, evaluator(),
            prompts=[*PROMPTS, PROMPTS[0]], seed=0,
        )  # fmt: skip
