"""Answers are read with their questions; pairs that teach it, and pairs kept to test it.

A bare "of course, go ahead" says nothing, and a friendly "that restriction is acceptable" looks
like support of the right that it restricts. Each pair holds two (question, answer) items of one
scene, one on each side of a value, in which tone, politeness or negation mislead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valueflow.errors import InvalidInput
from valueflow.typing import Item
from valueflow.vidb.schema import bounded_lines, check_value, claim

if TYPE_CHECKING:
    import pandas as pd

SHIPPED_QUESTIONS = resources.files("valueflow") / "hives" / "question_texts"

Part = Literal["train", "kept"]
"""What judges may learn from, and what none may; by different writers, with other scenes."""

QUESTION_KINDS = ("flip", "short", "tone", "negation")
"""One answer to two opposite questions; two short answers to one question; a cold answer that
supports beside a warm one that opposes (or the reverse); two answers that differ by a negation."""


@dataclass(frozen=True)
class QuestionPair:
    """Two answers that stand on opposite sides of a value.

    Attributes:
        id: `theory/value/qa-01`, or `theory/value/kept-01`.
        kind: one of `QUESTION_KINDS`.
        supports: (answer, question) in support of the value.
        opposes: likewise, against it.
    """

    id: str
    kind: str
    supports: Item
    opposes: Item

    @property
    def value(self) -> str:
        """Id of the value, for example `svt/power`."""
        return self.id.rpartition("/")[0]


def as_read(text: str, context: Any = None) -> str:
    """What an encoder is given: the text alone, or with the question that it answers.

    A context that is no text (None, or NaN as tables have it) is no question, nor is a blank one.
    A text that is empty stays so: a question is no answer.
    """
    if not isinstance(context, str) or not context.strip() or not text.strip():
        return text
    return f"Q: {context.strip()} A: {text}"


def rows_as_read(rows: "pd.DataFrame") -> list[str]:
    """`as_read` of the `text` and `context` of each row."""
    return [as_read(text, c) for text, c in zip(rows["text"], rows["context"], strict=True)]


def load_questions(part: Part, folder: str | Path | None = None) -> list[QuestionPair]:
    """The pairs of one part, by value in the order of file names; else of the shipped folder.

    Raises:
        InvalidInput: names file and line: no files, not JSON, an id or item that was there before,
            an unknown kind or value, not two items, not one on each side, an empty text.
    """
    if folder is None:
        with resources.as_file(SHIPPED_QUESTIONS) as shipped:
            return load_questions(part, shipped)
    files = sorted((Path(folder) / part).glob("*.jsonl"))
    if not files:
        raise InvalidInput(f"{folder}/{part}: no pairs; expected a folder of *.jsonl files")
    pairs: list[QuestionPair] = []
    seen: set[str] = set()
    for file in files:
        for where, row in bounded_lines(file):
            pair = _pair(where, row)
            items = (f"{x.context}\x1f{x.text}" for x in (pair.supports, pair.opposes))
            claim(where, (pair.id, *items), seen)
            pairs.append(pair)
    return pairs


def _pair(where: str, row: Mapping[str, Any]) -> QuestionPair:
    name, kind, items = (row.get(key) for key in ("id", "kind", "items"))
    if not isinstance(name, str) or name.count("/") != 2:
        raise InvalidInput(f"{where}: id {name!r:.80}: expected theory/value/qa-01")
    check_value(where, name.rpartition("/")[0])
    if kind not in QUESTION_KINDS:
        raise InvalidInput(f"{where}: kind {kind!r:.80} is none of {', '.join(QUESTION_KINDS)}")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidInput(f"{where}: 'items' must be a list of two objects, got {items!r:.80}")
    sides = {item.get("side"): _item(where, item) for item in items}
    if len(items) != 2 or set(sides) != {1, -1}:
        raise InvalidInput(f"{where}: expected one item of side 1 and one of side -1")
    return QuestionPair(name, kind, sides[1], sides[-1])


def _item(where: str, item: Mapping[str, Any]) -> Item:
    text, context = item.get("text"), item.get("context")
    if not all(isinstance(x, str) and x.strip() for x in (text, context)):
        raise InvalidInput(f"{where}: an item needs its answer in 'text' and question in 'context'")
    return Item(str(text), str(context))
