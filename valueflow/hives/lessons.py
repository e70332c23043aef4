"""Lessons: ladders that teach the value space and are not part of the database.

A lesson is a ladder like those of VIDB, in the ways people write (short answers, statements, bare
deeds, comments in forums), but nobody ranked it: all that is known of a text is its rung. Nothing
is measured with lessons, no steering vector and no scale is made of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.reading import json_lines
from valueflow.vidb.schema import LONGEST_LINE, check_value, claim, rungs_of

SHIPPED_LESSONS = resources.files("valueflow") / "hives" / "lesson_texts"

KINDS = ("brief", "statement", "deed", "comment")
"""A short answer to `context`; somebody speaks for themselves; a bare line on what somebody did;
a reply in a forum."""

RUNG_INTENSITIES = (-7.9, -4.5, 0.0, 4.5, 7.9)
"""Mean intensities of the rungs of VIDB's ranked ladders, moved by 0.1 at most to be symmetric."""

_ID = re.compile(r"[a-z]+/[a-z-]+/lesson-\d{2,}")


@dataclass(frozen=True)
class Lesson:
    """One scene, five rungs, strongest opposition first, the middle one neutral.

    Attributes:
        id: `theory/value/lesson-01`.
        kind: one of `KINDS`.
        context: the question that a "brief" answers, else None.
        rungs: five texts.
    """

    id: str
    kind: str
    context: str | None
    rungs: tuple[str, ...]

    @property
    def value(self) -> str:
        """Id of the value, for example `svt/power`."""
        return self.id.rpartition("/")[0]


def load_lessons(folder: str | Path | None = None) -> list[Lesson]:
    """The lessons of a folder's JSON-lines files, in the order of file names; else the shipped.

    Raises:
        InvalidInput: names file and line: not JSON, not five distinct texts, an id or text that
            was there before, an unknown kind or value, a "brief" without its question; no file.
    """
    if folder is None:
        with resources.as_file(SHIPPED_LESSONS) as shipped:
            return load_lessons(shipped)
    files = sorted(Path(folder).glob("*.jsonl"))
    if not files:
        raise InvalidInput(f"{folder}: no lessons; expected a folder of *.jsonl files")
    lessons: list[Lesson] = []
    seen: set[str] = set()
    for file in files:
        for where, row in json_lines(file, limit=LONGEST_LINE):
            lesson = _lesson(where, row)
            claim(where, (lesson.id, *lesson.rungs), seen)
            lessons.append(lesson)
    return lessons


def _lesson(where: str, row: Mapping[str, Any]) -> Lesson:
    name, kind, context = (row.get(key) for key in ("id", "kind", "context"))
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise InvalidInput(f"{where}: id {name!r:.80}: expected theory/value/lesson-01")
    if kind not in KINDS:
        raise InvalidInput(f"{where}: kind {kind!r:.80} is none of {', '.join(KINDS)}")
    rungs = rungs_of(where, row)
    text = context is None or isinstance(context, str)
    if text:
        context = context if context and context.strip() else None
    if not text or (kind == "brief") != bool(context):
        raise InvalidInput(f"{where}: a brief needs its question in 'context', others have none")
    check_value(where, name.rpartition("/")[0])
    return Lesson(name, kind, context, rungs)
