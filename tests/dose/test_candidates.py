import math

import pytest
import torch

from valueflow.dose.candidates import (
    Candidate,
    at_layers,
    candidates,
    check_candidates,
    layer_sets,
    reach,
)
from valueflow.errors import InvalidInput
from valueflow.steering.directions import middle_layers
from valueflow.steering.vector import SteeringVector, intervention


def vector(angles, norms=None):
    """Directions in a plane, by layer."""
    turned = {i: torch.tensor([math.cos(a), math.sin(a)]) for i, a in angles.items()}
    return SteeringVector("v", turned, norms or dict.fromkeys(angles, 2.0), {"model": {"model": 1}})


def test_layer_sets_are_singles_windows_and_all_once_each():
    half = middle_layers(12)
    sets = layer_sets(half)
    assert [s for s in sets if len(s) == 1] == [(i,) for i in half]
    windows = [(i, i + 1, i + 2) for i in half[:-2]]
    assert [s for s in sets if len(s) == 3] == windows
    assert sets[-1] == tuple(half) and len(sets) == len(set(sets)) == 7 + 5 + 1
    # Two layers have no window, and three are their own: named once.
    assert layer_sets([3, 2]) == [(2,), (3,), (2, 3)]
    assert layer_sets([1, 2, 3])[-1] == (1, 2, 3) and len(layer_sets([1, 2, 3])) == 4
    assert layer_sets(range(8, 23), stride=5, window=1)[:3] == [(8,), (13,), (18,)]


@pytest.mark.parametrize(
    ("layers", "given"), [([1, 2], {"stride": 0}), ([1, 2], {"window": 0}), ([], {})]
)
def test_sets_of_nothing_are_refused(layers, given):
    with pytest.raises(InvalidInput, match="stride and window of 1 or more"):
        layer_sets(layers, **given)


def test_candidates_are_all_combinations_with_readable_names():
    found = candidates([(4,), [6, 5], (5, 6), (1, 3)], scopes=("all", "last"), estimators=("lda",))
    assert [c.name for c in found[:3]] == [
        "layer 4, all, lda",
        "layers 5-6, all, lda",
        "layers 1,3, all, lda",
    ]
    assert len(found) == len({c.name for c in found}) == 6


@pytest.mark.parametrize("given", [{"layers": []}, {"layers": [(2,), ()]}, {"scopes": ()}])
def test_no_candidates_are_refused(given):
    with pytest.raises(InvalidInput, match="one or more sets of layers"):
        candidates(**({"layers": [(1,)]} | given))


def test_at_layers_adds_what_the_whole_vector_adds_there():
    whole = vector({1: 0.3, 2: 1.0, 5: 2.0}, {1: 1.0, 2: 3.0, 5: 7.0})
    part = at_layers(whole, [5, 1])
    assert part.layers == (1, 5)
    full, cut = (intervention([v], [[0.4]]).deltas() for v in (whole, part))
    assert set(cut) == {1, 5} and all(torch.equal(cut[i], full[i]) for i in cut)
    assert part.provenance == {"model": {"model": 1}, "at_layers": [1, 5]}
    with pytest.raises(InvalidInput, match="no direction at layer 3"):
        at_layers(whole, [1, 3])


def test_reach_is_what_additions_add_up_to():
    assert reach(vector({4: 0.7})) == pytest.approx(1)
    assert reach(vector({4: 0.7, 5: 0.7, 6: 0.7})) == pytest.approx(3)
    assert reach(vector({1: 0.0, 2: math.pi / 2})) == pytest.approx(2**0.5)
    assert reach(vector({1: 0.0, 2: 0.0}, {1: 3.0, 2: 6.0})) == pytest.approx(1.5)
    assert reach(vector({1: 0.0, 2: math.pi})) == 1  # opposed: not nothing


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([Candidate((1,))], "two or more different candidates"),
        ([Candidate((1,))] * 2, "two or more different candidates"),
        ([Candidate((1,)), Candidate((7,))], r"layers \[7\]"),
        ([Candidate((1,)), Candidate((3,))], "no direction at layer 3"),
        ([Candidate((1,)), Candidate((1,), "all", "pca")], "vectors of .'mean_difference'. alone"),
    ],
)
def test_candidates_that_cannot_be_tried_are_refused(given, says):
    with pytest.raises(InvalidInput, match=says):
        check_candidates(given, {"mean_difference": vector({1: 0.0, 2: 0.0})}, 4)
