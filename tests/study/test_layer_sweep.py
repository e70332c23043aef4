"""The heat map's numbers in a planted world where one layer alone steers."""

import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from planted_layers import DECODING, GOOD, PROMPTS, evaluator, loaded, vector
from planted_loop import planted_intensity

from valueflow.dose.arms import Arm
from valueflow.dose.candidates import Candidate, at_layers, candidates
from valueflow.dose.effect import Limits
from valueflow.dose.search import search
from valueflow.dose.sweep import sweep
from valueflow.errors import InvalidInput
from valueflow.study.layer_plot import layer_figure
from valueflow.study.layer_sweep import (
    LayerSweep,
    layer_sweep,
    search_results,
    searched_vector,
    sweep_results,
)
from valueflow.typing import Item

LIMITS = Limits(2.0, degenerate=1.0)
DOSES = (-0.5, -0.25, 0.25, 0.5)
ASKED = PROMPTS


@functools.cache
def found():
    return layer_sweep(
        loaded(),
        at_layers(vector(), [1, 2, GOOD]),
        evaluator(),
        prompts=ASKED,
        coefficients=DOSES,
        placebo_layers=[GOOD],
        decoding=DECODING,
        limits=LIMITS,
        seed=0,
    )


def test_the_planted_layer_changes_most():
    assert list(found().arms) == [1, 2, GOOD] and list(found().placebos) == [GOOD]
    assert found().best() == GOOD
    changes = {layer: e.change for layer, e in found().effects.items()}
    # Noise moves an untrained model too.
    assert changes[GOOD] > 2 * max(abs(changes[1]), abs(changes[2])), changes
    placebo = found().placebos[GOOD]
    ours, theirs = (a.change(-0.5, 0.5) for a in (found().arms[GOOD], placebo))
    assert abs(theirs) < 0.5 * ours, (ours, theirs)


def test_every_cell_is_that_layer_alone_at_that_coefficient():
    assert found().coefficients == (-0.5, -0.25, 0.0, 0.25, 0.5)
    for layer, column in ((1, 0), (GOOD, 3)):
        arms = {"v": at_layers(vector(), [layer])}
        cell = {"v": found().coefficients[column]}
        alone = sweep(loaded(), arms, [cell], ASKED, decoding=DECODING)
        assert found().arms[layer].texts[column] == alone.texts[0]
    zeros = {arm.texts[2] for arm in [*found().arms.values(), *found().placebos.values()]}
    assert len(zeros) == 1


def test_measured_intensities_follow_the_planted_ones():
    arm = found().arms[GOOD]
    truth = np.array([[planted_intensity(Item(t)) for t in row] for row in arm.texts])
    assert np.corrcoef(arm.means, truth.mean(axis=1))[0, 1] > 0.95


@pytest.mark.parametrize("given", [(-0.5, -0.2), (0.5,), (), (0.0,), (-0.5, 0.5, 0.5)])
def test_coefficients_that_show_no_change_are_refused(given):
    with pytest.raises(InvalidInput, match="both sides of 0"):
        layer_sweep(loaded(), vector(), evaluator(), prompts=ASKED, coefficients=given, seed=0)


def test_a_placebo_at_a_layer_that_is_not_swept_is_refused():
    with pytest.raises(InvalidInput, match="no direction at layer 2"):
        layer_sweep(
            loaded(), at_layers(vector(), [1]), evaluator(), prompts=ASKED, placebo_layers=[2],
            seed=0,
        )  # fmt: skip


def test_results_are_json_that_holds_the_measurements():
    results = json.loads(json.dumps(sweep_results(found()), allow_nan=False))
    assert results["best_layer"] == GOOD
    assert [row["layer"] for row in results["layers"]] == [1, 2, GOOD]
    row = results["layers"][2]
    assert row["intensity"] == pytest.approx(found().arms[GOOD].means.tolist())
    assert row["within_limits"]["change"] == pytest.approx(found().effects[GOOD].change)
    assert row["texts"] == [list(texts) for texts in found().arms[GOOD].texts]
    assert results["decoding"]["template"] == "auto"


def test_a_search_is_json_too_and_the_vector_remembers_it():
    chosen = search(
        loaded(),
        {"mean_difference": vector()},
        candidates([(2,), (GOOD,)], scopes=("all",)),
        evaluator(),
        prompts=ASKED,
        decoding=DECODING,
        limits=LIMITS,
        seed=0,
    )
    results = json.loads(json.dumps(search_results(chosen), allow_nan=False))
    assert results["winner"]["layers"] == [GOOD] and results["winner"]["kept"]
    assert [len(rung["tried"]) for rung in results["rungs"]] == [2]
    kept = searched_vector(chosen)
    assert kept.layers == (GOOD,)
    assert kept.provenance["search"]["prompts"] == ASKED
    assert kept.provenance["search"]["winner"]["candidate"] == Candidate((GOOD,)).name
    assert "rungs" not in kept.provenance["search"]


def made():
    """Two layers and a random direction; 9 numbers that say which cell they are of."""

    def arm(start, broken=()):
        means = np.array([start, start + 1.0, start + 2.0])
        return Arm(
            coefficients=(-0.4, 0.0, 0.4),
            intensities=means[:, None] * np.ones((1, 4)),
            damage=np.array([[0.9], [0.0], [0.3]]) * np.ones((1, 4)),
            degenerate=tuple(1.0 if c in broken else 0.0 for c in (-0.4, 0.0, 0.4)),
            outside=(0.0,) * 3,
            second=None,
            texts=(("a",) * 4,) * 3,
        )

    arms = {8: arm(-4.0), 12: arm(2.0, broken=(0.4,))}
    sweep = found()
    return LayerSweep("svt/power", arms, {12: arm(-1.0)}, Limits(0.7), sweep.decoding, {})


@pytest.fixture(scope="module")
def axes():
    return layer_figure(made()).axes


def cells(panel):
    """Height -> the row's numbers."""
    return {
        round(float(mesh.get_coordinates()[0, 0, 1]), 3): np.ma.filled(
            mesh.get_array().astype(float), np.nan
        ).ravel()
        for mesh in panel.collections
    }


def test_rows_stand_at_their_names_with_their_numbers(axes):
    names = [t.get_text() for t in axes[0].get_yticklabels()]
    assert names == ["random, layer 12", "layer 8", "layer 12"]
    centres = axes[0].get_yticks()
    intensity, damage = cells(axes[0]), cells(axes[1])
    for name, centre in zip(names, centres, strict=True):
        start = {"random, layer 12": -1.0, "layer 8": -4.0, "layer 12": 2.0}[name]
        height = round(centre - 0.5, 3)
        np.testing.assert_allclose(intensity[height], [start, start + 1, start + 2])
        np.testing.assert_allclose(damage[height], [0.9, 0.0, 0.3])
    # The random direction stands apart from the layers.
    assert centres[1] - centres[0] > 1.3 and centres[2] - centres[1] == 1


def test_cells_beyond_a_limit_are_hatched_in_both_panels(axes):
    expected = {(0.0, "damage"): 3, (2.0, "loops"): 1}
    for panel in axes[:2]:
        hatched = [p for p in panel.patches if p.get_hatch()]
        columns = [p.get_x() for p in hatched]
        assert columns.count(0.0) == expected[0.0, "damage"]
        assert columns.count(2.0) == expected[2.0, "loops"]
        assert len(hatched) == 4


def test_colours_are_even_on_both_sides_of_neutral(axes):
    for mesh in axes[0].collections:
        assert mesh.norm.vmin == -mesh.norm.vmax == pytest.approx(-4.0)
    assert {m.norm.vmax for m in axes[1].collections} == {1.4}


def test_numbers_are_written_in_their_cells(axes):
    said = {(t.get_position()[0], round(t.get_position()[1], 3)): t.get_text()
            for t in axes[0].texts}  # fmt: skip
    assert said[0.5, 0.5] == "−4.0" and said[1.5, 1.5] == "3.0"
    assert {t.get_text() for t in axes[1].texts} == {"0.9", "0.0", "0.3"}


def test_what_was_not_ranked_is_blank():
    whole = made()
    whole.arms[8].intensities[:] = math.nan
    panel = layer_figure(whole).axes[0]
    assert np.isnan(cells(panel)[0.0]).all()
    assert not [t for t in panel.texts if round(t.get_position()[1], 3) == 0.5]
    silent = replace(whole, arms={8: whole.arms[8]}, placebos={})
    assert silent.best() is None
    assert sweep_results(silent)["layers"][0]["intensity"] == [None] * 3
    layer_figure(silent)
