import functools
import math

import pytest
import torch

from valueflow.errors import InvalidInput, UnknownName
from valueflow.hives.labels import labels_for
from valueflow.theories import get_theory, theories
from valueflow.theories.levels import paths_of, shared_levels

ALL_NODES = [value.id for theory in theories() for value in theory.values]
SOME = ["svt/hedonism", "svt/power-resources", "svt/power", "svt/face", "svt/humility",
        "svt/universalism-nature", "svt/growth", "mft/care-caring", "mft/care-harm",
        "mft/liberty-oppression", "duty/justice", "duty/fidelity", "right/privacy"]  # fmt: skip


@functools.cache
def heights(node):
    """Levels of a node and of each node above it, by the longest way up."""
    theory = get_theory(node.split("/")[0])
    above = {}
    parents = theory.value(node).parents
    for parent in parents:
        above |= heights(parent)
    return above | {node: 1 + max((above[parent] for parent in parents), default=0)}


def shared_by_common_nodes(a, b):
    """The deepest node that is above, or is, both: no path is compared."""
    common = heights(a).keys() & heights(b).keys()
    return max((heights(a)[node] for node in common), default=0)


def test_shared_levels_equal_the_deepest_common_node_for_all_pairs_of_a_mixed_set():
    labels = labels_for(SOME, [1] * len(SOME))
    for i, a in enumerate(SOME):
        for j, b in enumerate(SOME):
            assert labels.shared_levels[i, j] == shared_by_common_nodes(a, b), (a, b)


@pytest.mark.parametrize("theory", ["svt", "mft", "duty"])
def test_shared_levels_equal_the_deepest_common_node_in_whole_theories(theory):
    nodes = [node for node in ALL_NODES if node.startswith(f"{theory}/")]
    for a in nodes:
        for b in nodes:
            assert shared_levels(a, b) == shared_by_common_nodes(a, b), (a, b)


@pytest.mark.parametrize(
    ("first", "second", "levels"),
    [
        ("svt/power", "svt/power", 3),
        ("svt/power-resources", "svt/power-dominance", 3),
        ("svt/power-resources", "svt/power", 3),
        ("svt/power", "svt/achievement", 2),
        ("svt/power", "svt/security", 1),
        ("svt/power", "svt/benevolence", 0),
        # Two parents: as near to either side as its own siblings there.
        ("svt/hedonism", "svt/stimulation", 2),
        ("svt/hedonism", "svt/power", 2),
        ("svt/humility", "svt/benevolence", 2),
        ("svt/humility", "svt/tradition", 2),
        ("svt/face", "svt/security", 2),
        ("svt/face", "svt/humility", 2),
        ("svt/face", "svt/hedonism", 2),
        ("mft/care-harm", "mft/fairness-cheating", 0),
        ("mft/care-caring", "mft/care-kindness", 1),
        ("duty/justice", "duty/justice", 1),
        ("duty/justice", "duty/fidelity", 0),
        ("right/civil", "right/political", 1),
        ("svt/benevolence", "duty/beneficence", 0),
        ("svt/tradition", "mft/authority-tradition", 0),
    ],
)
def test_levels_that_values_share(first, second, levels):
    labels = labels_for([first, second], [1, -1])
    assert labels.shared_levels[0, 1] == labels.shared_levels[1, 0] == levels


def test_a_value_with_two_parents_keeps_both_paths():
    labels = labels_for(["hedonism", "duty/justice"], [1, 0])
    assert labels.paths[0] == (
        ("svt/growth", "svt/openness-to-change", "svt/hedonism"),
        ("svt/self-protection", "svt/self-enhancement", "svt/hedonism"),
    )
    assert labels.paths[1] == (("duty/justice",),)
    assert labels.depth == 3 and labels_for(["justice"], [1]).depth == 1


def test_the_diagonal_is_the_number_of_levels_of_the_text():
    labels = labels_for(SOME, [1] * len(SOME))
    assert labels.shared_levels.diagonal().tolist() == [len(paths_of(v)[0]) for v in SOME]


def test_names_are_resolved_and_facts_kept():
    labels = labels_for(["Care/Harm", "pvq/power"], [1, -1], [7.5, float("nan")])
    assert labels.values == ("mft/care-harm", "svt/power")
    assert labels.theories == ("mft", "svt")
    assert labels.directions.tolist() == [1, -1]
    assert labels.intensities[0] == 7.5 and math.isnan(labels.intensities[1])
    assert len(labels) == 2
    assert labels_for(["power"], [1]).intensities.isnan().all()


def test_directions_are_same_opposite_or_neither():
    labels = labels_for(["power"] * 4, [1, -1, 0, 0])
    same, opposite = labels.same_direction, labels.opposite_direction
    assert opposite.nonzero().tolist() == [[0, 1], [1, 0]]
    assert (same & ~torch.eye(4, dtype=torch.bool)).nonzero().tolist() == [[2, 3], [3, 2]]


def test_a_value_and_its_facet_share_levels_without_being_the_same():
    labels = labels_for(["power", "power-resources", "power", "duty/justice"], [1] * 4)
    assert labels.same_value[0].tolist() == [True, False, True, False]
    assert labels.same_theory[0].tolist() == [True, True, True, False]


def test_taking_rows_is_taking_rows_and_columns_of_every_matrix():
    directions = [(-1) ** i for i in range(len(SOME))]
    labels = labels_for(SOME, directions, [float(i % 10) for i in range(len(SOME))])
    rows = [7, 2, 2, 11, 0]
    part = labels.take(rows)
    assert part.values == tuple(SOME[row] for row in rows)
    assert part.intensities.tolist() == [labels.intensities[row].item() for row in rows]
    for name in ("shared_levels", "same_value", "same_theory", "same_direction",
                 "opposite_direction"):  # fmt: skip
        assert torch.equal(getattr(part, name), getattr(labels, name)[rows][:, rows]), name
    with pytest.raises(IndexError):
        labels.take([len(SOME)])


def test_no_texts_no_levels():
    labels = labels_for([], [])
    assert labels.depth == 0 and labels.shared_levels.shape == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["power"], [1, 1]), InvalidInput, "1 values, 2 directions"),
        ((["power"], [1], [1.0, 2.0]), InvalidInput, "2 intensities"),
        ((["power", "power"], [1, 2]), InvalidInput, "text 1: direction"),
        ((["power"], [1], [11.0]), InvalidInput, r"\[-10, 10\]"),
        ((["power"], [1], [float("-inf")]), InvalidInput, "text 0: intensity"),
        ((["pwoer"], [1]), UnknownName, "svt/power"),
    ],
)
def test_what_labels_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        labels_for(*arguments)
