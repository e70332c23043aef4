import json
from collections import Counter
from importlib.resources import files
from itertools import combinations

import pytest
import yaml

from valueflow.errors import InvalidInput, UnknownName
from valueflow.theories import anchors_of, load_anchors, steered_values, theories
from valueflow.theories.anchors import parse_anchors

GOOD = """
anchors:
  - id: keeping-a-secret
    concept: keeping a friend's secret
    values:
      - {id: duty/fidelity, direction: 1}
      - {id: mft/loyalty-betrayal, direction: 1}
    why: A confidence is a promise to one's own.
    supports: [I told nobody.]
    opposes: [I told them all.]
  - id: asking-why
    concept: judging authority for oneself
    values:
      - {id: svt/self-direction, direction: 1}
      - {id: mft/authority-subversion, direction: -1}
    why: Doubt comes before bowing.
    supports: [Ask the abbot why.]
    opposes: [Do as the abbot says.]
"""


def words(texts):
    return [len(text.split()) for text in texts]


def sides():
    anchors = load_anchors()
    return [t for a in anchors for t in a.supports], [t for a in anchors for t in a.opposes]


def test_every_value_is_in_six_anchors_and_no_other_value_is():
    counts = Counter(value for anchor in load_anchors() for value, _ in anchor.values)
    assert len(load_anchors()) >= 130
    assert set(counts) == {value.id for value in steered_values()}
    assert min(counts.values()) >= 6, counts.most_common()[-3:]


def test_every_pair_of_theories_is_joined_by_twelve_anchors():
    pairs = Counter(
        pair for anchor in load_anchors() for pair in combinations(sorted(anchor.theories), 2)
    )
    expected = set(combinations(sorted(theory.id for theory in theories()), 2))
    assert set(pairs) == expected
    assert min(pairs.values()) >= 12, pairs


def test_no_two_anchors_join_the_same_values_alike_more_than_twice():
    counts = Counter(frozenset(anchor.values) for anchor in load_anchors())
    assert max(counts.values()) <= 2, counts.most_common(2)


def test_concepts_and_texts_keep_to_their_form():
    for anchor in load_anchors():
        assert 3 <= len(anchor.concept.split()) <= 8, anchor.id
        assert len(anchor.supports) == len(anchor.opposes) == 3, anchor.id
        assert any(direction == 1 for _, direction in anchor.values), anchor.id
        for text in (*anchor.supports, *anchor.opposes):
            assert 12 <= len(text.split()) <= 30, (anchor.id, text)
            assert text.isascii() and "\n" not in text, (anchor.id, text)


def test_the_two_sides_are_of_one_length():
    for anchor in load_anchors():
        ratio = sum(words(anchor.supports)) / sum(words(anchor.opposes))
        assert 0.8 <= ratio <= 1.25, (anchor.id, ratio)
    supports, opposes = (sum(words(side)) / len(side) for side in sides())
    assert supports == pytest.approx(opposes, rel=0.05)


def test_no_word_gives_the_side_away():
    supports, opposes = (
        Counter(word for text in side for word in set(text.lower().split())) for side in sides()
    )
    for word in supports | opposes:
        # A word in five texts of a hundred that is twice as frequent on one side would be a cue.
        often = supports[word] + opposes[word] >= 0.05 * 6 * len(load_anchors())
        assert not often or supports[word] <= 2 * opposes[word] <= 4 * supports[word], word


def test_no_text_stands_in_the_starter_ladders():
    ladders = files("valueflow.vidb") / "starter" / "ladders"
    rungs = {
        text
        for path in ladders.iterdir()
        if path.name.endswith(".jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
        for text in json.loads(line)["rungs"]
    }
    assert len(rungs) > 1000
    supports, opposes = sides()
    assert not rungs & {*supports, *opposes}


def test_anchors_of_a_value_are_those_that_hold_it_under_any_of_its_names():
    held = anchors_of("svt/power")
    assert held == anchors_of("PVQ/Power") == anchors_of("power")
    assert held == tuple(a for a in load_anchors() if "svt/power" in dict(a.values))
    directions = {anchor.id: dict(anchor.values)["svt/power"] for anchor in held}
    assert directions["bullying-the-weak"] == 1
    assert directions["giving-wealth-away"] == -1


def test_anchors_of_a_group_is_empty_and_of_an_unknown_value_an_error():
    assert anchors_of("right/first-generation") == ()
    with pytest.raises(UnknownName, match="svt/power"):
        anchors_of("svt/powr")


def test_anchors_are_read_once():
    assert load_anchors() is load_anchors()


def test_a_good_file_becomes_anchors():
    first, second = parse_anchors(GOOD, file="toy.yaml")
    assert first.id == "keeping-a-secret"
    assert first.values == (("duty/fidelity", 1), ("mft/loyalty-betrayal", 1))
    assert first.theories == ("duty", "mft")
    assert dict(second.values)["mft/authority-subversion"] == -1
    assert (second.supports, second.opposes) == (
        ("Ask the abbot why.",),
        ("Do as the abbot says.",),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("direction: -1", "direction: 0", "asking-why.*direction 1, or -1.*got 0"),
        ("direction: -1", "direction: yes", "asking-why.*direction 1, or -1.*got True"),
        ("direction: -1", "direction: -1.0", "asking-why.*got -1.0"),
        (", direction: -1", "", "asking-why.*'values'.*missing direction"),
        ("direction: -1", "weight: 2, direction: -1", "asking-why.*unknown key weight"),
        ("mft/authority-subversion", "svt/tradition", "asking-why.*two theories.*only 'svt'"),
        (
            "mft/authority-subversion",
            "svt/self-direction",
            "asking-why.*'svt/self-direction'.*twice",
        ),
        ("id: asking-why", "id: keeping-a-secret", "'keeping-a-secret' occurs twice"),
        ("id: asking-why", "id: Asking why", "kebab-case.*'Asking why'"),
        (
            "[Ask the abbot why.]",
            "[I told nobody.]",
            "asking-why.*stands already.*keeping-a-secret",
        ),
        ("[Ask the abbot why.]", "[Do as the abbot says.]", "asking-why.*stands already"),
        ("[Ask the abbot why.]", "['  ']", "asking-why.*'supports' to be text"),
        ("[Ask the abbot why.]", "Ask the abbot why.", "asking-why.*'supports' to be a list"),
        ("[Ask the abbot why.]", "[One., Two.]", "asking-why.*as many texts.*got 2 and 1"),
        ("why: Doubt comes before bowing.", "why:", "asking-why.*'why' to be text"),
        ("    why: Doubt comes before bowing.\n", "", "asking-why.*missing why"),
        ("concept: judging authority for oneself", "concept: 7", "asking-why.*'concept'.*got 7"),
        ("anchors:", "anchor:", "missing anchors"),
        ("- id: asking-why", "- id: [", "expected YAML"),
    ],
)
def test_files_that_describe_no_anchors_are_refused(old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(InvalidInput, match=f"toy.yaml.*{message}"):
        parse_anchors(GOOD.replace(old, new), file="toy.yaml")


def test_an_unknown_value_is_refused_with_its_near_misses():
    text = GOOD.replace("mft/authority-subversion", "mft/authority")
    with pytest.raises(UnknownName, match="toy.yaml.*asking-why.*mft/authority-subversion"):
        parse_anchors(text, file="toy.yaml")
    # A node of a tree that is no steered value is refused as well.
    with pytest.raises(UnknownName, match="toy.yaml.*asking-why.*right/first-generation"):
        text = GOOD.replace("mft/authority-subversion", "right/first-generation")
        parse_anchors(text, file="toy.yaml")


@pytest.mark.parametrize(
    "values", [[], None, "svt/power", ["svt/power"], [{"id": [], "direction": 1}]]
)
def test_values_of_another_shape_are_refused(values):
    document = yaml.safe_load(GOOD)
    document["anchors"][1]["values"] = values
    with pytest.raises(InvalidInput, match="toy.yaml.*asking-why"):
        parse_anchors(yaml.safe_dump(document), file="toy.yaml")


@pytest.mark.parametrize(
    "text", ["", "[]", "just words", "anchors: []", "anchors: {}", "anchors: [words]"]
)
def test_documents_of_another_shape_are_refused(text):
    with pytest.raises(InvalidInput, match="toy.yaml.*expected"):
        parse_anchors(text, file="toy.yaml")


def test_objects_in_yaml_are_not_built():
    with pytest.raises(InvalidInput, match="expected YAML"):
        parse_anchors("anchors: !!python/object/apply:os.getcwd []", file="toy.yaml")
