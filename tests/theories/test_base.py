import re
from dataclasses import FrozenInstanceError
from itertools import combinations, pairwise

import pytest

from valueflow.errors import InvalidInput, UnknownName
from valueflow.theories import get_theory, theories

SVT = get_theory("svt")
ALL = theories()
EVERY_VALUE = [(theory, value) for theory in ALL for value in theory.values]

# The tree of the refined theory of basic values, written down a second time.
SVT_TREE = {
    "growth": ["openness-to-change", "self-transcendence"],
    "self-protection": ["self-enhancement", "conservation"],
    "openness-to-change": ["self-direction", "stimulation", "hedonism"],
    "self-transcendence": ["humility", "benevolence", "universalism"],
    "self-enhancement": ["hedonism", "achievement", "power", "face"],
    "conservation": ["face", "security", "tradition", "conformity", "humility"],
    "self-direction": ["self-direction-thought", "self-direction-action"],
    "power": ["power-dominance", "power-resources"],
    "security": ["security-personal", "security-societal"],
    "conformity": ["conformity-rules", "conformity-interpersonal"],
    "benevolence": ["benevolence-dependability", "benevolence-caring"],
    "universalism": ["universalism-concern", "universalism-nature", "universalism-tolerance"],
}


def svt(*names: str) -> tuple[str, ...]:
    return tuple(f"svt/{name}" for name in names)


def test_the_tree_of_basic_values_is_the_published_one():
    for value in SVT.values:
        short = value.id.removeprefix("svt/")
        assert SVT.children(value.id) == svt(*SVT_TREE.get(short, []))
    nodes = set(SVT_TREE) | {child for children in SVT_TREE.values() for child in children}
    assert {value.id for value in SVT.values} == set(svt(*nodes))


def test_three_basic_values_have_two_parents():
    parents = {value.id: set(value.parents) for value in SVT.values if len(value.parents) > 1}
    assert parents == {
        "svt/hedonism": set(svt("openness-to-change", "self-enhancement")),
        "svt/humility": set(svt("self-transcendence", "conservation")),
        "svt/face": set(svt("self-enhancement", "conservation")),
    }


@pytest.mark.parametrize("theory", ALL, ids=lambda theory: theory.id)
def test_every_way_up_ends_at_the_top(theory):
    ids = {value.id for value in theory.values}
    for value in theory.values:
        assert set(value.parents) <= ids
        paths = theory.paths(value.id)
        assert {node for path in paths for node in path[:-1]} == set(theory.ancestors(value.id))
        for path in paths:
            assert path[-1] == value.id and not theory.value(path[0]).parents
            assert all(above in theory.value(node).parents for above, node in pairwise(path))


def test_ancestors_come_nearest_first_and_once():
    assert SVT.ancestors("power-resources") == svt("power", "self-enhancement", "self-protection")
    # Both parents of face lead to the same root, which is listed once, after both.
    assert SVT.ancestors("face") == svt("self-enhancement", "conservation", "self-protection")
    assert SVT.ancestors("hedonism") == svt(
        "openness-to-change", "self-enhancement", "growth", "self-protection"
    )
    assert SVT.ancestors("growth") == ()


def test_paths_list_every_way_down():
    assert SVT.paths("hedonism") == (
        svt("growth", "openness-to-change", "hedonism"),
        svt("self-protection", "self-enhancement", "hedonism"),
    )
    assert get_theory("duty").paths("fidelity") == (("duty/fidelity",),)


@pytest.mark.parametrize("theory", ALL, ids=lambda theory: theory.id)
def test_siblings_are_symmetric_and_exclude_the_value(theory):
    for a, b in combinations(theory.values, 2):
        assert (a.id in theory.siblings(b.id)) == (b.id in theory.siblings(a.id))
    assert all(value.id not in theory.siblings(value.id) for value in theory.values)


def test_siblings_come_from_all_parents_and_roots_count_as_siblings():
    assert set(SVT.siblings("hedonism")) == set(
        svt("self-direction", "stimulation", "achievement", "power", "face")
    )
    assert get_theory("right").siblings("civil") == ("right/political",)
    assert len(get_theory("mft").siblings("care-harm")) == 5
    assert len(get_theory("duty").siblings("justice")) == 6


def test_circle_distance_is_a_metric_on_a_ring():
    assert SVT.circle is not None
    for a in SVT.circle:
        distances = [SVT.circle_distance(a, b) for b in SVT.circle]
        assert sorted(distances) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
        for b, c in combinations(SVT.circle, 2):
            assert SVT.circle_distance(b, c) == SVT.circle_distance(c, b)
            assert SVT.circle_distance(b, c) <= SVT.circle_distance(b, a) + SVT.circle_distance(
                a, c
            )


def test_higher_order_values_are_arcs_of_the_circle():
    """The tree and the circle are two views of one structure; a wrong order would tear a group."""
    assert SVT.circle is not None
    for value in SVT.values:
        members = [leaf in members_below(value.id) for leaf in SVT.circle]
        if 1 < sum(members) < len(members):
            borders = sum(members[i] != members[i - 1] for i in range(len(members)))
            assert borders == 2, value.id


def members_below(node: str) -> set[str]:
    return {value.id for value in SVT.steered if node in SVT.ancestors(value.id)}


def test_neighbours_are_symmetric_and_one_step_away():
    for value in SVT.steered:
        for neighbour in SVT.neighbours(value.id):
            assert value.id in SVT.neighbours(neighbour)
            assert SVT.circle_distance(value.id, neighbour) == 1
            assert set(SVT.ancestors(value.id)) & set(SVT.ancestors(neighbour))


def test_the_circle_closes():
    assert SVT.neighbours("self-direction") == svt("universalism", "stimulation")
    assert SVT.neighbours("universalism") == svt("benevolence", "self-direction")


def test_opposites_lie_across_the_circle():
    assert SVT.opposites("self-direction") == svt("security", "face", "tradition")
    assert SVT.opposites("power") == svt("benevolence", "humility", "universalism")
    assert SVT.opposites("benevolence") == svt("power", "achievement", "face")
    assert SVT.opposites("stimulation") == svt("tradition", "security", "conformity")


def test_opposites_are_symmetric_and_share_no_parent():
    for value in SVT.steered:
        for other in SVT.opposites(value.id):
            assert value.id in SVT.opposites(other)
            assert not set(value.parents) & set(SVT.value(other).parents)


@pytest.mark.parametrize("call", ["neighbours", "opposites"])
def test_off_the_circle_is_said_to_be_so(call):
    with pytest.raises(InvalidInput, match="'mft' has no circular order"):
        getattr(get_theory("mft"), call)("care")
    with pytest.raises(InvalidInput, match="on the circle of 'svt', got 'svt/power-resources'"):
        getattr(SVT, call)("power-resources")


def test_values_of_another_theory_are_unknown():
    with pytest.raises(UnknownName, match="duty/justice"):
        SVT.children("duty/justice")


def test_single_rights_cite_an_article_and_belong_to_the_right_generation():
    right = get_theory("right")
    for value in right.values:
        leaf = not right.children(value.id)
        assert leaf or value.article is None
        udhr = re.fullmatch(r"UDHR (\d+)(\(\d\))?", value.article or "")
        if udhr:
            generation = {"first": range(2, 22), "second": range(22, 28), "third": range(28, 29)}
            root = right.ancestors(value.id)[-1]
            assert int(udhr[1]) in generation[root.split("/")[1].split("-")[0]], value.id
    cited = {value.article for value in right.values if value.article}
    assert {"UDHR 3", "UDHR 12", "UDHR 21(3)", "UDHR 26", "ICCPR 1(1)"} <= cited


def test_each_class_of_rights_has_single_rights_below_it():
    right = get_theory("right")
    for value in right.steered:
        assert len(right.children(value.id)) >= 6


def test_every_description_is_there_and_said_of_one_value_only():
    texts = [
        text
        for _, value in EVERY_VALUE
        for text in (value.definition, value.supports, value.opposes)
        if text is not None
    ]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert re.fullmatch(r"[A-Z].{14,240}\.", text), text


def test_descriptions_of_texts_are_one_sentence_and_on_steered_values_only():
    for _, value in EVERY_VALUE:
        if not value.steered:
            assert value.supports is None and value.opposes is None
            continue
        for text in (value.supports, value.opposes):
            assert text is not None and text.startswith("The text ") and text.count(". ") == 0


@pytest.mark.parametrize(
    ("theory", "authors"),
    [("svt", ["Schwartz"]), ("mft", ["Graham", "Haidt"]), ("duty", ["Ross"])]
    + [("right", ["Vasak", "Universal Declaration"])],
)
def test_sources_are_references_with_a_year(theory, authors):
    source = get_theory(theory).source
    assert all(author in source for author in authors)
    assert all(re.search(r"\((19|20)\d\d\)", line) for line in source.splitlines())


def test_values_and_theories_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SVT.values[0].name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FrozenInstanceError):
        SVT.circle = None  # pyright: ignore[reportAttributeAccessIssue]
    assert len({hash(value) for _, value in EVERY_VALUE}) == len(EVERY_VALUE)
