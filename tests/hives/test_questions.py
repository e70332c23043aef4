import json

import pytest

from valueflow.errors import InvalidInput
from valueflow.hives.lessons import load_lessons
from valueflow.hives.questions import QUESTION_KINDS, as_read, load_questions
from valueflow.theories import steered_values
from valueflow.vidb import load_starter

HIGH = {"context": "Should the fence stay?", "text": "No, take it down.", "side": 1}
LOW = {"context": "Should the fence stay?", "text": "By all means.", "side": -1}
YES = ("yes", "of course", "by all means", "sure", "certainly", "absolutely")
NO = ("no", "never", "don't", "absolutely not", "certainly not", "by no means")
GOOD = {"id": "svt/power/qa-01", "kind": "short", "items": [LOW, HIGH]}


def written(folder, *rows):
    (folder / "train").mkdir()
    (folder / "train" / "svt-power.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_a_text_is_read_with_its_question_if_it_has_one():
    assert as_read("By all means.", " Should it stay? ") == "Q: Should it stay? A: By all means."
    assert as_read("By all means.") == as_read("By all means.", "  ") == "By all means."
    assert as_read("", "Should it stay?") == ""


@pytest.mark.parametrize(("part", "n"), [("train", 40), ("kept", 8)])
def test_each_steered_value_has_pairs_of_every_kind(part, n):
    pairs = load_questions(part)
    for value in steered_values():
        own = [pair for pair in pairs if pair.value == value.id]
        assert len(own) == n
        for kind in QUESTION_KINDS:
            assert sum(pair.kind == kind for pair in own) == n // 4
    for pair in pairs:
        same = (
            pair.supports.text == pair.opposes.text,
            (pair.supports.context == pair.opposes.context),
        )
        assert same == ((True, False) if pair.kind == "flip" else (False, True)), pair.id


def test_kept_questions_are_in_nothing_that_is_learned():
    kept = {
        item.context for pair in load_questions("kept") for item in (pair.supports, pair.opposes)
    }
    taught = {x.context for pair in load_questions("train") for x in (pair.supports, pair.opposes)}
    taught |= {lesson.context for lesson in load_lessons()} | set(load_starter().frame["context"])
    assert len(kept) > 200 and not kept & taught


@pytest.mark.parametrize("part", ["train", "kept"])
def test_a_yes_or_no_at_the_beginning_does_not_tell_the_side(part):
    """What does not read sense is right on half of the items, give or take chance."""
    pairs = [pair for pair in load_questions(part) if pair.kind != "flip"]
    for words in (YES, NO):
        said = [
            side
            for pair in pairs
            for side, item in ((1, pair.supports), (-1, pair.opposes))
            if item.text.lower().startswith(words)
        ]
        assert len(said) > 10 and abs(sum(said)) < 0.2 * len(said), (words, len(said), sum(said))


def test_length_tells_the_side_of_two_pairs_in_three_at_most():
    pairs = [pair for part in ("train", "kept") for pair in load_questions(part)]
    pairs = [pair for pair in pairs if pair.kind != "flip"]
    longer = sum(len(p.supports.text) > len(p.opposes.text) for p in pairs) / len(pairs)
    assert 0.35 < longer < 0.65


def test_pairs_are_read_as_they_are_written(tmp_path):
    (pair,) = load_questions("train", written(tmp_path, GOOD))
    assert (pair.id, pair.kind, pair.value) == ("svt/power/qa-01", "short", "svt/power")
    assert pair.supports == (HIGH["text"], HIGH["context"]) and pair.opposes.text == LOW["text"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD | {"id": "power"}, "expected theory/value/qa-01"),
        (GOOD | {"id": 3}, "expected theory/value/qa-01"),
        (GOOD | {"id": "svt/powr/qa-01"}, "powr"),
        (GOOD | {"kind": "riddle"}, "'riddle' is none of flip, short"),
        (GOOD | {"items": "both"}, "list of two objects"),
        (GOOD | {"items": [HIGH]}, "one item of side 1 and one of side -1"),
        (GOOD | {"items": [HIGH, HIGH]}, "one item of side 1 and one of side -1"),
        (GOOD | {"items": [HIGH, LOW, LOW]}, "one item of side 1 and one of side -1"),
        (GOOD | {"items": [HIGH, LOW | {"text": " "}]}, "needs its answer"),
        (GOOD | {"items": [HIGH, LOW | {"context": None}]}, "question in 'context'"),
    ],
)
def test_bad_lines_are_refused_by_file_and_line(tmp_path, row, message):
    with pytest.raises(InvalidInput, match=message) as refused:
        load_questions("train", written(tmp_path, GOOD | {"id": "svt/power/qa-00", "items": [
            HIGH | {"text": "Never."}, LOW | {"text": "Ever."}]}, row))  # fmt: skip
    assert "svt-power.jsonl:2" in str(refused.value)


def test_what_occurs_twice_or_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="svt-power.jsonl:2: 'svt/power/qa-01' occurs twice"):
        load_questions("train", written(tmp_path, GOOD, GOOD))
    with pytest.raises(InvalidInput, match="no pairs"):
        load_questions("kept", tmp_path)
