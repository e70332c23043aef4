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
    turned = {i: torch.tensor([a, 0.0]).cos() * 1.0 for i, a in angles.items()}
    turned = {
        i: torch.tensor([torch.tensor(a).cos().item(), torch.tensor(a).sin().item()])
        for i, a in angles.items()
    }
    return SteeringVector("v", turned, norms or dict.fromkeys(angles, 2.0), {"model": {"model": 1}})


def test_layer_sets_are_singles_windows_and_the_middle_half_once_each():
    half = middle_layers(12)
    sets = layer_sets(12)
    singles = [s for s in sets if len(s) == 1]
    assert singles == [(i,) for i in half]
    windows = [s for s in sets if len(s) == 3]
    assert windows == [(i, i + 1, i + 2) for i in half[:-2]]
    assert sets[-1] == tuple(half) and len(sets) == len(set(sets))
    # Three layers are their own window and middle half: named once.
    assert layer_sets(5) == [(2,), (3,), (2, 3)]
    assert layer_sets(30, stride=5, window=1, middle=False) == [(8,), (13,), (18,)]


@pytest.mark.parametrize("given", [{"stride": 0}, {"window": 0}])
def test_sets_of_nothing_are_refused(given):
    with pytest.raises(InvalidInput, match="stride and window of 1 or more"):
        layer_sets(12, **given)


def test_candidates_are_all_combinations_with_readable_names():
    found = candidates([(4,), [6, 5], (5, 6), (1, 3)], scopes=("all", "last"), estimators=("lda",))
    assert [c.name for c in found[:3]] == [
        "layer 4, all, lda",
        "layers 5-6, all, lda",
        "layers 1,3, all, lda",
    ]
    assert len(found) == len({c.name for c in found}) == 6


@pytest.mark.parametrize(
    "given", [{"layers": []}, {"layers": [()]}, {"layers": [(1,)], "scopes": ("some",)}]
)
def test_no_candidates_and_unknown_scopes_are_refused(given):
    with pytest.raises(InvalidInput):
        candidates(**given)


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
    assert reach(vector({1: 0.0, 2: torch.pi / 2})) == pytest.approx(2**0.5)
    assert reach(vector({1: 0.0, 2: 0.0}, {1: 3.0, 2: 6.0})) == pytest.approx(1.5)
    assert reach(vector({1: 0.0, 2: torch.pi})) == 1  # opposed: not nothing


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
