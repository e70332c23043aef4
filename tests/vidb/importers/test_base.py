"""Rows become a table: one per text and value, None kept, what is left out counted."""

from pathlib import Path

import pytest

from valueflow.errors import UnknownName
from valueflow.vidb.importers import IMPORT_COLUMNS, IMPORTERS, import_corpus
from valueflow.vidb.importers.base import Importer, LeftOut, Row, to_frame


def frame_of(*items):
    importer = Importer("x", "Title", "MIT", "any", "none", lambda path: iter(items))
    return to_frame(importer, Path("x"))


def test_columns_and_missing_cells():
    frame = frame_of(Row("1", "a", None, "svt/power"), Row("2", "b", "q", "svt/power", 1, 0.5))
    assert tuple(frame.columns) == IMPORT_COLUMNS
    assert frame.iloc[0].to_list() == ["1", "a", None, "svt/power", *[None] * 4, "Title", "MIT"]
    assert frame.iloc[1][["context", "direction", "grade"]].to_list() == ["q", 1, 0.5]
    assert frame.attrs["left_out"] == {}


def test_what_is_left_out_is_counted_most_first():
    frame = frame_of(LeftOut("b"), LeftOut("a"), LeftOut("a"))
    assert len(frame) == 0
    assert tuple(frame.columns) == IMPORT_COLUMNS
    assert list(frame.attrs["left_out"].items()) == [("a", 2), ("b", 1)]


def test_repeats_count_once_and_contradictions_not_at_all():
    frame = frame_of(
        Row("1", "a", None, "svt/power", 1),
        Row("2", "a", None, "svt/power", 1),
        Row("3", "b", None, "svt/power", 1),
        Row("4", "b", None, "svt/power", -1),
        Row("5", "a", "another question", "svt/power", -1),
        Row("6", "a", None, "svt/face", -1),
    )
    assert frame["id"].to_list() == ["1", "5", "6"]
    assert frame.attrs["left_out"] == {
        "the same text and value with contradictory labels": 2,
        "the same text and value again": 1,
    }


def test_unknown_corpus_names_the_near_miss():
    with pytest.raises(
        UnknownName, match=r"unknown corpus 'moral_choice': did you mean moralchoice"
    ):
        import_corpus("moral_choice", "anywhere")


def test_every_importer_documents_itself():
    assert len(IMPORTERS) == 10
    for name in IMPORTERS:
        importer = IMPORTERS[name]
        assert importer.name == name
        assert min(map(len, (importer.title, importer.licence, importer.files))) > 2
        assert len(importer.mapping) > 150
