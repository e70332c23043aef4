import json
import re
from collections import Counter

import pytest
from planted_vidb import write_lines

from valueflow.errors import InvalidInput
from valueflow.hives.lessons import KINDS, RUNG_INTENSITIES, SHIPPED_LESSONS, load_lessons
from valueflow.theories import steered_values
from valueflow.vidb import load_starter


@pytest.fixture(scope="module")
def shipped():
    return load_lessons()


def row(number=1, **changes):
    """A good lesson; texts of different numbers differ."""
    rungs = [f"text {number} of rung {rung}" for rung in range(1, 6)]
    good = {"id": f"svt/power/lesson-{number:02}", "kind": "deed", "context": None, "rungs": rungs}
    return good | changes


def words(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def test_every_steered_value_has_series_of_64_lessons_22_8_22_12_of_each_kind(shipped):
    expected = dict(zip(KINDS, (22, 8, 22, 12), strict=True))
    assert KINDS == ("brief", "statement", "deed", "comment")
    assert {lesson.value for lesson in shipped} == {value.id for value in steered_values()}
    for value in steered_values():
        own = [lesson for lesson in shipped if lesson.value == value.id]
        assert len(own) in (64, 128)
        for start in range(0, len(own), 64):
            assert Counter(lesson.kind for lesson in own[start : start + 64]) == expected, value.id


def test_ids_of_a_value_count_from_one_in_a_file_of_its_name(shipped):
    for value in {lesson.value for lesson in shipped}:
        (file,) = SHIPPED_LESSONS.glob(f"{value.replace('/', '-')}.jsonl")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert [r["id"] for r in rows] == [
            f"{value}/lesson-{n:02}" for n in range(1, len(rows) + 1)
        ]


def test_shipped_texts_are_distinct_but_for_case_and_marks_and_are_plain_ascii(shipped):
    texts = [text for lesson in shipped for text in lesson.rungs]
    repeated = [text for text, n in Counter(map(words, texts)).items() if n > 1]
    assert repeated == []
    questions = [lesson.context for lesson in shipped if lesson.context]
    assert [t for t in (*texts, *questions) if not t.isascii() or t != t.strip()] == []


def test_no_lesson_is_a_text_of_the_database(shipped):
    known = set(map(words, load_starter().frame["text"]))
    assert [t for lesson in shipped for t in lesson.rungs if words(t) in known] == []


def test_rung_intensities_are_the_means_of_the_database():
    means = load_starter().frame.groupby("rung")["intensity"].mean()
    assert means.tolist() == pytest.approx(RUNG_INTENSITIES, abs=0.15)


def test_a_lesson_is_what_its_line_says(tmp_path):
    brief = row(1, kind="brief", context="What now?", scenario="more than is asked for")
    write_lines(tmp_path / "a.jsonl", [brief, row(2, id="mft/care-harm/lesson-100")])
    first, second = load_lessons(tmp_path)
    assert (first.id, first.value, first.kind) == ("svt/power/lesson-01", "svt/power", "brief")
    assert first.context == "What now?" and first.rungs == tuple(brief["rungs"])
    assert second.value == "mft/care-harm" and second.context is None


def test_files_are_read_in_the_order_of_their_names(tmp_path):
    for number, name in [(1, "b"), (2, "a"), (3, "c")]:
        write_lines(tmp_path / f"{name}.jsonl", [row(number), row(number + 10)])
    write_lines(tmp_path / "a.json", [row(7)])
    ids = [lesson.id[-2:] for lesson in load_lessons(tmp_path)]
    assert ids == ["02", "12", "01", "11", "03", "13"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "expected theory/value/lesson-01"),
        ({"id": 7}, "expected theory/value/lesson-01"),
        ({"id": "svt/power/lesson-1"}, "expected theory/value/lesson-01"),
        ({"id": "svt/power/answer-01"}, "expected theory/value/lesson-01"),
        ({"id": "power/lesson-01"}, "expected theory/value/lesson-01"),
        ({"id": "svt/power/lesson-02\n"}, "expected theory/value/lesson-01"),
        ({"id": "svt/pwoer/lesson-02"}, "svt/power"),
        ({"id": "svt/nothing-like-it/lesson-02"}, "unknown value"),
        ({"id": "pvq/power/lesson-02"}, "write 'svt/power'"),
        ({"id": "svt/power/lesson-01"}, "'svt/power/lesson-01' occurs twice"),
        ({"kind": "sermon"}, "brief, statement, deed, comment"),
        ({"kind": None}, "brief, statement, deed, comment"),
        ({"kind": ["deed"]}, "brief, statement, deed, comment"),
        ({"rungs": ["a", "b", "c", "d"]}, "list of 5 texts"),
        ({"rungs": ["a", "b", "c", "d", "e", "f"]}, "list of 5 texts"),
        ({"rungs": "abcde"}, "list of 5 texts"),
        ({"rungs": None}, "list of 5 texts"),
        ({"rungs": ["a", "b", "", "d", "e"]}, "rung 3 is empty"),
        ({"rungs": ["a", "b", " \n", "d", "e"]}, "rung 3 is empty"),
        ({"rungs": ["a", "b", None, "d", "e"]}, "rung 3 is empty"),
        ({"rungs": ["a", "b", "c", "d", "a"]}, "'a' occurs twice"),
        ({"rungs": ["a", "b", "c", "d", "text 1 of rung 3"]}, "'text 1 of rung 3' occurs twice"),
        ({"kind": "brief"}, "needs its question"),
        ({"kind": "brief", "context": ""}, "needs its question"),
        ({"kind": "brief", "context": ["What now?"]}, "needs its question"),
        ({"kind": "comment", "context": "What now?"}, "others have none"),
        ({"kind": "deed", "context": 0}, "others have none"),
    ],
)
def test_a_bad_lesson_is_refused_by_file_and_line(tmp_path, changes, message):
    write_lines(tmp_path / "some.jsonl", [row(1), row(2, **changes)])
    with pytest.raises(InvalidInput, match=re.escape(message)) as caught:
        load_lessons(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'some.jsonl'}:2: ")


@pytest.mark.parametrize("missing", ["id", "kind", "rungs"])
def test_a_lesson_without_a_field_is_refused(tmp_path, missing):
    cut = {k: v for k, v in row().items() if k != missing}
    write_lines(tmp_path / "some.jsonl", [cut])
    with pytest.raises(InvalidInput, match=rf"some\.jsonl:1: .*{missing}"):
        load_lessons(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": ', "not JSON"),
        (b"plain words", "not JSON"),
        (b'{"rungs": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["svt/power/lesson-02"]', "expected a JSON object"),
        (b'{"id": "\xff"}', "not UTF-8"),
    ],
    ids=["cut off", "no JSON", "NaN", "nested", "list", "latin"],
)
def test_a_line_that_is_no_lesson_is_refused_by_its_number_in_the_file(tmp_path, line, message):
    good = json.dumps(row()).encode()
    (tmp_path / "some.jsonl").write_bytes(good + b"\n\n" + line + b"\n")
    with pytest.raises(InvalidInput, match=rf"some\.jsonl:3: {message}"):
        load_lessons(tmp_path)


@pytest.mark.parametrize(
    "again",
    [
        row(1, rungs=list("abcde")),
        row(2, rungs=["a", "b", "c", "d", "text 1 of rung 1"]),
        row(2, id="duty/justice/lesson-01", rungs=["text 1 of rung 5", "b", "c", "d", "e"]),
    ],
    ids=["id", "text", "text of another value"],
)
def test_what_another_file_has_already_is_refused_where_it_comes_again(tmp_path, again):
    write_lines(tmp_path / "a.jsonl", [row(1)])
    write_lines(tmp_path / "b.jsonl", [row(3), again])
    with pytest.raises(InvalidInput, match=r"b\.jsonl:2: .* occurs twice"):
        load_lessons(tmp_path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_lessons_is_refused(tmp_path, name):
    (tmp_path / "notes.txt").write_text("no lesson")
    with pytest.raises(InvalidInput, match=r"no lessons; expected a folder of \*\.jsonl") as caught:
        load_lessons(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_empty_file_is_refused(tmp_path):
    write_lines(tmp_path / "a.jsonl", [row()])
    write_lines(tmp_path / "b.jsonl", [])
    with pytest.raises(InvalidInput, match=r"b\.jsonl:1"):
        load_lessons(tmp_path)


def test_white_space_is_no_question(tmp_path):
    write_lines(tmp_path / "a.jsonl", [row(kind="brief", context=" \n")])
    with pytest.raises(InvalidInput, match=r"a\.jsonl:1: .*question"):
        load_lessons(tmp_path)


def test_an_empty_context_is_none(tmp_path):
    write_lines(tmp_path / "a.jsonl", [row(kind="deed", context="")])
    assert load_lessons(tmp_path)[0].context is None
