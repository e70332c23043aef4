import json
import time
import tracemalloc
from collections import Counter

import pytest

from valueflow.errors import InvalidInput
from valueflow.vidb.schema import (
    LONGEST_LINE,
    SPLITS,
    Ladder,
    bounded_lines,
    read_ladders,
    read_rankings,
    split_of,
    window_of,
)

LADDER = {
    "id": "svt/power/post-01",
    "register": "post",
    "scenario": "a club election",
    "context": None,
    "rungs": ["never lead", "rather follow", "either way", "rather lead", "always lead"],
}
RECORD = {
    "window": "w1",
    "kind": "cross",
    "ranker": "reader",
    "shown": ["svt/power/post-01/2", "svt/power/post-02/1", "svt/power/post-03/5"],
    "order": ["svt/power/post-03/5", "svt/power/post-01/2", "svt/power/post-02/1"],
}


def other_ladder(ordinal, **changed):
    rungs = [f"{text} {ordinal}" for text in LADDER["rungs"]]
    return LADDER | {"id": f"svt/power/post-{ordinal:02}", "rungs": rungs} | changed


def without(row, field):
    return {name: content for name, content in row.items() if name != field}


def write(tmp_path, *lines):
    path = tmp_path / "file.jsonl"
    encoded = [
        line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=False).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded))
    return path


@pytest.mark.parametrize(
    ("ladder_id", "split"),
    [
        ("svt/power/answer-01", "steer"),
        ("svt/power/answer-02", "validation"),
        ("svt/power/answer-03", "steer"),
        ("svt/power/answer-20", "test"),
        ("svt/self-direction/post-05", "judge"),
        ("mft/care-harm/statement-07", "steer"),
        ("duty/non-maleficence/rule-10", "judge"),
        ("right/civil/answer-123", "judge"),
    ],
)
def test_splits_of_published_ladders_never_change(ladder_id, split):
    assert split_of(ladder_id) == split


STEMS = [f"svt/value-{n}/{register}" for n in range(20) for register in ("answer", "rule")]


@pytest.mark.parametrize("stem", STEMS)
def test_every_hand_of_five_covers_the_splits_and_two_hands_are_3_3_2_2(stem):
    splits = [split_of(f"{stem}-{ordinal:02}") for ordinal in range(1, 41)]
    for start in range(0, 40, 5):
        assert set(splits[start : start + 5]) == set(SPLITS)
    for start in range(0, 40, 10):
        counts = Counter(splits[start : start + 10])
        assert counts == {"steer": 3, "judge": 3, "validation": 2, "test": 2}


def test_the_order_in_a_hand_differs_between_hands_and_values():
    hands = {
        tuple(split_of(f"{stem}-{5 * hand + place:02}") for place in range(1, 6))
        for stem in STEMS
        for hand in range(4)
    }
    # 2 hands x 5! / 2! orders are possible; 160 hands were dealt.
    assert len(hands) > 60


def test_growth_moves_no_ladder(tmp_path):
    few = read_ladders(write(tmp_path, other_ladder(4), other_ladder(2)))
    many = read_ladders(write(tmp_path, *(other_ladder(n) for n in range(12, 0, -1))))
    then = {ladder.id: ladder.split for ladder in many}
    assert [then[ladder.id] for ladder in few] == [ladder.split for ladder in few]
    assert split_of("svt/power/post-4") == then["svt/power/post-04"]


@pytest.mark.parametrize(
    "ladder_id",
    [
        "",
        "svt/power",
        "svt/power/post",
        "svt/power/post-",
        "svt/power/post-00",
        "svt/power/post-1a",
        "svt/power/post-\N{SUPERSCRIPT TWO}",
        "svt/self-direction-01",
        "svt/power/post/sub-01",
        "svt//post-01",
        "svt/power/-01",
        "//-1",
    ],
)
def test_ids_of_another_form_are_refused(ladder_id):
    with pytest.raises(InvalidInput, match="expected theory/value/register-01"):
        split_of(ladder_id)


def test_a_ladder_is_read_as_written(tmp_path):
    answer = other_ladder(7, id="svt/power/answer-07", register="answer", context="Who leads?")
    first, second = read_ladders(write(tmp_path, LADDER, b"", answer, b" "))
    assert first == Ladder(
        "svt/power/post-01", "post", "a club election", None, tuple(LADDER["rungs"])
    )
    assert (second.context, second.value, second.split) == (
        "Who leads?",
        "svt/power",
        split_of("svt/power/answer-07"),
    )
    assert [second.text_id(rung) for rung in (1, 5)] == [
        "svt/power/answer-07/1",
        "svt/power/answer-07/5",
    ]


def test_texts_may_hold_any_character_a_json_line_may(tmp_path):
    odd = [
        "a\u2028b",
        "c\x85d",
        "\N{GRINNING FACE}",
        'say "no"\nplease',
        "\tcaf\N{LATIN SMALL LETTER E WITH ACUTE}",
    ]
    (ladder,) = read_ladders(write(tmp_path, LADDER | {"rungs": odd}))
    assert ladder.rungs == tuple(odd)
    crlf = tmp_path / "crlf.jsonl"
    crlf.write_bytes(json.dumps(LADDER).encode() + b"\r\n\r\n")
    assert len(read_ladders(crlf)) == 1


RUNGS = LADDER["rungs"]
BAD_LADDERS = {
    "no json": (b'{"id": ', "not JSON"),
    "huge number": (b'{"id": ' + b"9" * 5000 + b"}", "not JSON"),
    "too deep": (b"[" * 100_000, "not JSON"),
    "latin-1": ('{"id": "caf\xe9"}'.encode("latin-1"), "not UTF-8 at byte 11 of the line"),
    "no object": (["svt/power/post-09"], "expected a JSON object, got list"),
    "no id": (without(other_ladder(9), "id"), "field 'id' must be text, got None"),
    "number as id": (other_ladder(9, id=9), "field 'id' must be text, got 9"),
    "no scenario": (without(other_ladder(9), "scenario"), "field 'scenario'"),
    "blank scenario": (other_ladder(9, scenario=" "), "field 'scenario'"),
    "no register": (without(other_ladder(9), "register"), "field 'register'"),
    "unknown register": (other_ladder(9, register="tweet"), "register 'tweet' is none of answer"),
    "register not the id's": (other_ladder(9, register="rule"), "does not name its register"),
    "malformed id": (other_ladder(9, id="svt/power-09"), "expected theory/value/register-01"),
    "unknown value": (other_ladder(9, id="svt/powr/post-09"), "did you mean svt/power"),
    "another name of a value": (other_ladder(9, id="pvq/power/post-09"), "write 'svt/power'"),
    "no rungs": (without(other_ladder(9), "rungs"), "list of 5 texts, got None"),
    "four rungs": (other_ladder(9, rungs=list("abcd")), "list of 5 texts"),
    "six rungs": (other_ladder(9, rungs=list("abcdef")), "list of 5 texts"),
    "text for rungs": (other_ladder(9, rungs="abcde"), "list of 5 texts"),
    "empty rung": (other_ladder(9, rungs=["a", "b", " ", "d", "e"]), "rung 3 is empty"),
    "number as rung": (other_ladder(9, rungs=["a", "b", "c", 4, "e"]), "rung 4 is empty"),
    "answer without question": (
        other_ladder(9, id="svt/power/answer-09", register="answer"),
        "needs its question",
    ),
    "blank question": (
        other_ladder(9, id="svt/power/answer-09", register="answer", context="  "),
        "needs its question",
    ),
    "list as question": (
        other_ladder(9, id="svt/power/answer-09", register="answer", context=["Why?"]),
        "'context' must be text or null",
    ),
    "question to a post": (other_ladder(9, context="Why?"), "needs its question"),
    "repeated id": (other_ladder(9, id=LADDER["id"]), "'svt/power/post-01' occurs twice"),
    "repeated text": (other_ladder(9, rungs=["a", "b", RUNGS[0], "d", "e"]), "'never lead' occurs"),
    "text twice in a ladder": (
        other_ladder(9, rungs=["a", "b", "c", "d", "a"]),
        "'a' occurs twice",
    ),
}


@pytest.mark.parametrize("name", BAD_LADDERS)
def test_bad_ladders_are_refused_by_file_and_line(tmp_path, name):
    line, complaint = BAD_LADDERS[name]
    path = write(tmp_path, LADDER, b"", line)
    with pytest.raises(InvalidInput) as caught:
        read_ladders(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert complaint in str(caught.value)


def test_a_record_is_read_as_written(tmp_path):
    review = RECORD | {"kind": "review", "order": RECORD["shown"]}
    first, second = read_rankings(write(tmp_path, RECORD, review))
    assert (first.window, first.kind, first.ranker) == ("w1", "cross", "reader")
    assert first.shown == tuple(RECORD["shown"]) and first.order == tuple(RECORD["order"])
    assert second.order == second.shown


BAD_RECORDS = {
    "no json": (b"window 1", "not JSON"),
    "latin-1": (b'{"window": "\xe9"}', "not UTF-8 at byte 12 of the line"),
    "no object": (7, "expected a JSON object, got int"),
    "no window": (without(RECORD, "window"), "'window' must be text"),
    "number as window": (RECORD | {"window": 1}, "'window' must be text, got 1"),
    "no ranker": (without(RECORD, "ranker"), "'ranker' must be text"),
    "no kind": (without(RECORD, "kind"), "'kind' must be text"),
    "unknown kind": (RECORD | {"kind": "Review"}, "kind 'Review' is none of ladder, cross"),
    "no order": (without(RECORD, "order"), "'order' must be a list of text ids, got None"),
    "no shown": (without(RECORD, "shown"), "'shown' must be a list"),
    "text for ids": (RECORD | {"shown": "abc", "order": "cba"}, "'shown' must be a list"),
    "numbers as ids": (RECORD | {"shown": [1, 2], "order": [2, 1]}, "'shown' must be a list"),
    "mixed ids": (RECORD | {"shown": ["a", 1], "order": [1, "a"]}, "'shown' must be a list"),
    "lists as ids": (RECORD | {"shown": [["a"], ["b"]]}, "'shown' must be a list"),
    "one left out": (RECORD | {"order": RECORD["order"][:2]}, "no permutation of the 3"),
    "a stranger": (RECORD | {"order": [*RECORD["order"][:2], "x"]}, "no permutation"),
    "one twice": (RECORD | {"order": [*RECORD["order"][:2]] + RECORD["order"][:1]}, "no perm"),
    "shown twice": (RECORD | {"shown": ["a", "a"], "order": ["a", "a"]}, "two or more distinct"),
    "one alone": (RECORD | {"shown": ["a"], "order": ["a"]}, "two or more distinct"),
    "none": (RECORD | {"shown": [], "order": []}, "two or more distinct"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_records_are_refused_by_file_and_line(tmp_path, name):
    line, complaint = BAD_RECORDS[name]
    path = write(tmp_path, RECORD, line)
    with pytest.raises(InvalidInput) as caught:
        read_rankings(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("read", [read_ladders, read_rankings])
def test_files_that_cannot_be_read_are_named(tmp_path, read):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read") as caught:
            read(path)
        assert str(path) in str(caught.value)
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"\n\n")
    assert read(empty) == []


def test_lines_are_numbered_as_an_editor_does_and_read_one_by_one(tmp_path):
    path = write(tmp_path, {"a": 1}, b"", {"b": "x\u2028y\x85z"}, b"not JSON")
    rows = bounded_lines(path)
    assert next(rows) == (f"{path}:1", {"a": 1})
    assert next(rows) == (f"{path}:3", {"b": "x\u2028y\x85z"})
    with pytest.raises(InvalidInput, match=":4: not JSON"):
        next(rows)


def test_a_byte_order_mark_at_the_start_is_dropped(tmp_path):
    mark = b"\xef\xbb\xbf"
    path = write(tmp_path, mark + b'{"a": 1}')
    assert list(bounded_lines(path)) == [(f"{path}:1", {"a": 1})]
    with pytest.raises(InvalidInput, match=":2: not JSON"):
        list(bounded_lines(write(tmp_path, {"a": 1}, mark + b'{"a": 1}')))


def test_the_longest_line_is_read_and_one_byte_more_is_not(tmp_path):
    around = len(b'{"a": ""}\n')
    fits = b'{"a": "' + b"x" * (LONGEST_LINE - around) + b'"}'
    path = write(tmp_path, fits, {"b": 2})
    assert [row for _, row in bounded_lines(path)][1] == {"b": 2}
    path = write(tmp_path, {"b": 2}, fits[:7] + b"x" + fits[7:], {"b": 2})
    with pytest.raises(InvalidInput, match=r":2: line longer than 1 MB; the file is damaged"):
        list(bounded_lines(path))


@pytest.mark.parametrize("read", [read_ladders, read_rankings])
@pytest.mark.parametrize("byte", [b"x", b" ", b"["])
def test_a_line_without_end_is_refused_before_it_is_read(tmp_path, read, byte):
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(byte * 1_000_000)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(InvalidInput, match="long.jsonl:1: line longer than 1 MB"):
            read(path)
        seconds, (_, peak) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 2 and peak < 5e6


def test_a_window_is_what_plans_and_rankings_share():
    assert window_of("here", RECORD) == ("w1", "cross", tuple(RECORD["shown"]))
    with pytest.raises(InvalidInput, match="^here: kind 'best' is none of ladder, cross"):
        window_of("here", RECORD | {"kind": "best"})
