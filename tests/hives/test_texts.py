from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted_vidb import CARE, POWER, ladders_of

from valueflow.errors import InvalidInput
from valueflow.hives.lessons import RUNG_INTENSITIES, Lesson
from valueflow.hives.questions import as_read, load_questions
from valueflow.hives.texts import (
    anchor_texts,
    corpus_texts,
    join,
    lesson_texts,
    question_texts,
    vidb_texts,
)
from valueflow.theories import load_anchors
from valueflow.theories.anchors import Anchor
from valueflow.vidb import Vidb, load_starter
from valueflow.vidb.importers.base import IMPORT_COLUMNS, Importer, Row, to_frame
from valueflow.vidb.schema import SPLITS

LADDERS = ladders_of(POWER) + ladders_of(CARE)
FACE, JUSTICE = "svt/face", "duty/justice"


def planted_vidb(*, seed=0):
    """Intensities say nothing of the rungs; the rows are in any order."""
    rng = np.random.default_rng(seed)
    rows = [
        {"id": ladder.text_id(rung), "value": ladder.value, "ladder": ladder.id, "rung": rung,
         "text": ladder.rungs[rung - 1], "context": ladder.context, "split": ladder.split}
        for ladder in LADDERS
        for rung in range(1, 6)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).assign(intensity=rng.integers(-40, 41, len(rows)) / 4)
    return Vidb(frame.iloc[rng.permutation(len(frame))])


def plain(text):
    """Without the question that it may be read with."""
    return text.rpartition(" A: ")[2]


def lessons_of(value, n=2):
    return [
        Lesson(
            f"{value}/lesson-{i:02}", "deed", None, tuple(f"{value} did {i}{r}" for r in "abcde")
        )
        for i in range(1, n + 1)
    ]


def anchor_of(name, values, n=4):
    """An anchor with n texts on either side."""
    sides = [tuple(f"{name} {side} {i}" for i in range(n)) for side in ("for", "against")]
    return Anchor(name, name, values, "why", *sides)


def rows_of(value, n, direction=None, grade=None, *, word="row"):
    return [
        Row(f"{i}", f"{value} {word} {direction} {grade} {i}", None, value, direction, grade)
        for i in range(n)
    ]


def imported(rows):
    """A table as importers give it."""
    importer = Importer("made", "Made (2024)", "CC0-1.0", "", "", lambda path: iter(rows))
    return to_frame(importer, Path("made"))


def pairs_of(groups):
    """Pairs of texts that are in one group."""
    found = [(i, int(group)) for i, group in enumerate(groups)]
    return {(i, j) for (i, a), (j, b) in combinations(found, 2) if a == b >= 0}


def counts(texts):
    """Texts by value and direction."""
    return Counter(zip(texts.labels.values, texts.labels.directions.tolist(), strict=True))


@pytest.fixture(scope="module")
def parts():
    """One of each source."""
    touching = rows_of(FACE, 3) + rows_of(JUSTICE, 2)
    return [
        vidb_texts(planted_vidb(), "judge"),
        anchor_texts([anchor_of("one", ((POWER, 1), (CARE, -1))),
                      anchor_of("two", ((JUSTICE, 1), (CARE, 1)))]),
        corpus_texts(imported(rows_of(POWER, 3, -1, -0.5) + touching), per_value=9, seed=0),
        lesson_texts(lessons_of(POWER)),
        anchor_texts([anchor_of("three", ((FACE, -1), (JUSTICE, 1)))]),
    ]  # fmt: skip


def test_the_database_gives_the_ladders_of_one_split_and_nothing_else():
    vidb = planted_vidb()
    for split in SPLITS:
        expected = {text for x in LADDERS if x.split == split for text in x.rungs}
        found = vidb_texts(vidb, split)
        assert len(expected) >= 10 and sorted(map(plain, found.texts)) == sorted(expected)


def test_half_of_the_ladders_that_answer_are_read_with_their_questions():
    frame = load_starter().of("power", "judge").frame
    asked = dict(zip(frame["text"], frame["context"], strict=True))
    found = vidb_texts(load_starter().of("power"), "judge")
    read = {scene: set() for scene in found.scenes}
    for text, scene in zip(found.texts, found.scenes, strict=True):
        with_question = text not in asked
        plain = text.partition(" A: ")[2] if with_question else text
        assert text == as_read(plain, asked[plain] if with_question else None)
        read[scene].add((with_question, asked[plain] is not None))
    assert all(len(kinds) == 1 for kinds in read.values())
    answers = [own for kinds in read.values() for own, answering in kinds if answering]
    assert len(answers) > 20 and 0.3 < np.mean(answers) < 0.7


def test_question_pairs_are_scenes_of_two_sides():
    pairs = load_questions("train")[:3]
    found = question_texts(pairs)
    assert found.texts[0] == as_read(pairs[0].supports.text, pairs[0].supports.context)
    assert found.scenes == tuple(pair.id for pair in pairs for _ in range(2))
    assert found.labels.directions.tolist() == [1, -1] * 3
    assert found.labels.intensities.tolist() == [6, -6] * 3
    assert "6 texts" in found.sources[0]


def test_texts_of_the_database_keep_rung_value_scene_and_intensity():
    vidb = planted_vidb()
    rows = vidb.frame.set_index("text")
    found = vidb_texts(vidb, "judge")
    for i, text in enumerate(found.texts):
        row = rows.loc[plain(text)]
        assert found.labels.directions[i] == {1: -1, 2: -1, 3: 0, 4: 1, 5: 1}[row["rung"]]
        assert found.labels.intensities[i] == row["intensity"]
        assert (found.labels.values[i], found.scenes[i]) == (row["value"], row["ladder"])
        assert row["rung"] == i % 5 + 1 and found.scenes[i] == found.scenes[i - i % 5]
    assert set(found.concepts.tolist()) == {-1} and set(found.touches + found.asked) == {()}
    (source,) = found.sources
    for part in (vidb.fingerprint(), "split judge", f"{len(found)} texts", "CC BY 4.0"):
        assert part in source


def test_the_order_of_the_database_does_not_matter():
    vidb = planted_vidb()
    other = Vidb(vidb.frame.sample(frac=1, random_state=1))
    a, b = vidb_texts(vidb, "test"), vidb_texts(other, "test")
    assert (a.texts, a.scenes, a.sources) == (b.texts, b.scenes, b.sources)
    assert a.labels.intensities.tolist() == b.labels.intensities.tolist()


def test_rungs_of_lessons_have_the_mean_intensity_of_such_rungs():
    lessons = lessons_of(POWER) + lessons_of(CARE, 1)
    found = lesson_texts(lessons)
    assert found.texts == tuple(text for lesson in lessons for text in lesson.rungs)
    assert found.labels.values == (POWER,) * 10 + (CARE,) * 5
    assert found.labels.directions.tolist() == [-1, -1, 0, 1, 1] * 3
    assert found.labels.intensities.tolist() == pytest.approx(RUNG_INTENSITIES * 3)
    assert found.scenes == tuple(lesson.id for lesson in lessons for _ in range(5))
    assert set(found.concepts.tolist()) == {-1} and "15 texts" in found.sources[0]


def test_texts_of_an_anchor_go_in_turn_to_its_values_and_directions_multiply():
    found = anchor_texts([anchor_of("one", ((POWER, 1), (CARE, -1), (JUSTICE, 1)))])
    assert found.texts[:4] == ("one for 0", "one for 1", "one for 2", "one for 3")
    assert found.texts[4:] == tuple(f"one against {i}" for i in range(4))
    assert found.labels.values == (POWER, CARE, JUSTICE, POWER) * 2
    assert found.labels.directions.tolist() == [1, -1, 1, 1, -1, 1, -1, -1]
    assert found.labels.intensities.isnan().all() and set(found.scenes) == {None}


def test_the_sides_of_a_concept_are_groups_of_their_own():
    found = anchor_texts(
        [anchor_of("one", ((POWER, 1), (CARE, -1))), anchor_of("two", ((POWER, 1), (CARE, 1)), n=3)]
    )
    side_of = [text.rpartition(" ")[0] for text in found.texts]
    expected = {(i, j) for i, j in combinations(range(14), 2) if side_of[i] == side_of[j]}
    assert len(set(side_of)) == 4 and pairs_of(found.concepts) == expected


def test_every_group_of_the_packaged_anchors_joins_two_theories():
    anchors = load_anchors()
    found = anchor_texts(anchors)
    groups = {}
    for row, group in enumerate(found.concepts.tolist()):
        groups.setdefault(group, []).append(row)
    sides = {frozenset(side) for anchor in anchors for side in (anchor.supports, anchor.opposes)}
    assert {frozenset(found.texts[row] for row in rows) for rows in groups.values()} == sides
    assert len(groups) == 2 * len(anchors) and min(groups) >= 0
    for rows in groups.values():
        assert len({found.labels.theories[row] for row in rows}) >= 2, found.texts[rows[0]]


def test_the_packaged_anchors_say_the_direction_of_each_text():
    found = anchor_texts(load_anchors())
    truth = {
        (text, value): sign * direction
        for anchor in load_anchors()
        for sign, side in ((1, anchor.supports), (-1, anchor.opposes))
        for text in side
        for value, direction in anchor.values
    }
    labels = zip(found.texts, found.labels.values, strict=True)
    assert found.labels.directions.tolist() == [truth[key] for key in labels]
    assert -1 in {direction for anchor in load_anchors() for _, direction in anchor.values}


def test_joined_texts_keep_the_order_of_everything(parts):
    whole = join(iter(parts))
    place = 0
    for part in parts:
        here = slice(place, place + len(part))
        place += len(part)
        for name in ("texts", "scenes", "touches", "asked"):
            assert getattr(whole, name)[here] == getattr(part, name), name
        assert whole.labels.values[here] == part.labels.values
        assert whole.labels.directions[here].equal(part.labels.directions)
        np.testing.assert_array_equal(whole.labels.intensities[here], part.labels.intensities)
    assert place == len(whole) == len(whole.concepts)
    assert whole.sources == tuple(source for part in parts for source in part.sources)


def test_joined_concepts_are_those_of_the_parts_and_no_two_meet(parts):
    expected, place = set(), 0
    for part in parts:
        expected |= {(place + i, place + j) for i, j in pairs_of(part.concepts)}
        place += len(part)
    whole = join(parts)
    assert len(expected) == 6 * 6 and pairs_of(whole.concepts) == expected
    nested = join([join(parts[:2]), join([parts[2]]), join(parts[3:])])
    assert nested.texts == whole.texts and pairs_of(nested.concepts) == expected


def test_any_negative_number_is_no_concept(parts):
    part = replace(parts[3], concepts=np.array([-1, -7, 5, 5, -1, -7, 0, 0, 2, 2]))
    found = join([part, part]).concepts
    assert pairs_of(found) == {(2, 3), (6, 7), (8, 9), (12, 13), (16, 17), (18, 19)}
    assert (found[[0, 1, 4, 5]] < 0).all()


def test_nothing_cannot_be_joined():
    with pytest.raises(InvalidInput, match="got none"):
        join([])


def test_instances_are_the_sides_of_scenes_and_nothing_else(parts):
    whole = join(parts)
    sides = [
        (scene, direction) if scene is not None and direction != 0 else None
        for scene, direction in zip(whole.scenes, whole.labels.directions.tolist(), strict=True)
    ]
    rows = range(len(whole))
    expected = {(i, j) for i, j in combinations(rows, 2) if sides[i] and sides[i] == sides[j]}
    assert pairs_of(whole.instances) == expected
    assert [i for i in rows if whole.instances[i] < 0] == [i for i in rows if sides[i] is None]
    # Each ladder has two sides of two texts.
    assert len(expected) == 2 * len({scene for scene in whole.scenes if scene})


def test_grades_and_directions_of_a_corpus_become_intensities():
    expected = {(1, 1.0): 8.0, (-1, -0.5): -4.0, (0, 0.0): 0.0, (1, 0.25): 2.0,
                (1, None): 4.0, (-1, None): -4.0, (0, None): 0.0}  # fmt: skip
    rows = {
        row.text: row
        for value in (POWER, CARE)
        for direction, grade in expected
        for row in rows_of(value, 2, direction, grade)
    }
    found = corpus_texts(imported(list(rows.values())), per_value=100, seed=0)
    assert sorted(found.texts) == sorted(rows)
    for i, text in enumerate(found.texts):
        row = rows[text]
        assert found.labels.values[i] == row.value
        assert found.labels.directions[i] == row.direction
        assert found.labels.intensities[i] == expected[row.direction, row.grade]
    assert set(found.scenes) == {None} and (found.concepts < 0).all()
    assert set(found.touches + found.asked) == {()}
    assert found.sources == (f"Made (2024): {len(rows)} texts, CC0-1.0",)


def test_no_value_and_direction_of_a_corpus_gives_more_than_its_share():
    sizes = {(POWER, 1): 12, (POWER, -1): 3, (CARE, 1): 5, (CARE, 0): 6}
    rows = [row for (value, sign), n in sizes.items() for row in rows_of(value, n, sign)]
    for per_value in (1, 5, 6):
        found = corpus_texts(imported(rows), per_value=per_value, seed=1)
        assert counts(found) == {key: min(n, per_value) for key, n in sizes.items()}
        assert len(set(found.texts)) == len(found)


@pytest.mark.parametrize("sign", [1, None])
def test_the_seed_alone_decides_what_is_drawn(sign):
    frame = imported(rows_of(POWER, 40, sign) + rows_of(CARE, 40, sign))
    before = frame.copy(deep=True)
    first, again, other = (corpus_texts(frame, per_value=8, seed=s) for s in (0, 0, 1))
    assert first.texts == again.texts and first.labels.values == again.labels.values
    assert first.touches == again.touches
    # Of 40 texts 8 are drawn: the same 8 of both values by chance is one in 10^15.
    assert set(first.texts) != set(other.texts)
    pd.testing.assert_frame_equal(frame, before)


def test_texts_that_only_touch_have_all_their_values_and_are_asked_for_all():
    rows = [Row("1", "both", None, CARE), Row("1", "both", None, POWER),
            Row("2", "one", None, POWER), Row("3", "another", None, JUSTICE),
            Row("3", "another", None, CARE), Row("3", "another", None, FACE)]  # fmt: skip
    found = corpus_texts(imported(rows), per_value=10, seed=3)
    touches = {text: set(touch) for text, touch in zip(found.texts, found.touches, strict=True)}
    assert touches == {"both": {CARE, POWER}, "one": {POWER}, "another": {JUSTICE, CARE, FACE}}
    assert [len(touch) for touch in found.touches] == [len(touches[t]) for t in found.texts]
    assert set(found.asked) == {tuple(sorted([CARE, FACE, JUSTICE, POWER]))}
    assert found.labels.values == tuple(touch[0] for touch in found.touches)
    assert found.labels.directions.tolist() == [0, 0, 0]
    assert found.labels.intensities.isnan().all()
    assert (found.instances < 0).all() and (found.concepts < 0).all()


def test_texts_that_only_touch_are_taken_until_each_value_has_its_share():
    rng = np.random.default_rng(0)
    known = [POWER, CARE, FACE, JUSTICE]
    touched = {f"text {i}": [v for v, p in zip(known, (0.9, 0.4, 0.1, 0.02), strict=True)
                             if rng.random() < p] for i in range(120)}  # fmt: skip
    frame = imported([Row(t, t, None, v) for t, own in touched.items() for v in own])
    available = Counter(value for own in touched.values() for value in own)
    found = corpus_texts(frame, per_value=10, seed=0)
    counted = Counter()
    for text, touch in zip(found.texts, found.touches, strict=True):
        assert set(touch) == set(touched[text])
        assert min(counted[value] for value in touch) < 10
        counted.update(touch)
    assert min(available.values()) < 10
    assert {v: min(counted[v], 10) for v in known} == {v: min(available[v], 10) for v in known}


def test_a_corpus_may_have_rows_of_both_kinds():
    rows = rows_of(POWER, 4, 1, 0.5) + rows_of(CARE, 3) + rows_of(FACE, 2, -1)
    found = corpus_texts(imported(rows), per_value=3, seed=0)
    assert counts(found) == {(POWER, 1): 3, (CARE, 0): 3, (FACE, -1): 2}
    for value, touch, asked in zip(found.labels.values, found.touches, found.asked, strict=True):
        assert touch == asked == ((CARE,) if value == CARE else ())
    assert found.sources == ("Made (2024): 8 texts, CC0-1.0",)


def test_a_corpus_without_rows_is_refused():
    assert tuple(imported([]).columns) == IMPORT_COLUMNS
    with pytest.raises(InvalidInput, match="left_out"):
        corpus_texts(imported([]), per_value=3, seed=0)


def test_a_text_that_touches_a_value_is_read_with_what_it_answers():
    contexts = [Row("1", "text", context, POWER) for context in ("this", "that", "that")]
    found = corpus_texts(imported([*contexts, Row("2", "other", None, POWER)]), per_value=3, seed=0)
    assert sorted(found.texts) == ["Q: that A: text", "Q: this A: text", "other"]
    assert found.touches == ((POWER,),) * 3
