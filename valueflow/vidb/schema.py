"""What the database is made of: ladders of texts and the raw rankings of them.

A ladder is one scenario in five texts (rungs), from strongest opposition to strongest support. A
ranking record is one window as it was shown and the order that came back. Both are JSON lines, one
file per value; nothing else is primary, intensities are computed from them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from valueflow.errors import InvalidInput, UnknownName
from valueflow.theories import get_value
from valueflow.vidb.importers.reading import json_lines

Split = Literal["steer", "judge", "validation", "test"]
SPLITS: tuple[Split, ...] = ("steer", "judge", "validation", "test")
REGISTERS = ("answer", "brief", "statement", "post", "rule")
KINDS = ("ladder", "cross", "repeat", "review")
ANSWERING = ("answer", "brief")
N_RUNGS = 5
LONGEST_LINE = 1_000_000
"""Bytes; no ladder and no window comes near it."""

# Ladders of a register are dealt out in hands of five; every hand covers all four splits and two
# hands in a row hold 3 steer, 3 judge, 2 validation, 2 test.
_HANDS: tuple[tuple[Split, ...], tuple[Split, ...]] = (
    ("steer", "steer", "judge", "validation", "test"),
    ("steer", "judge", "judge", "validation", "test"),
)


@dataclass(frozen=True)
class Ladder:
    """One scenario, five rungs.

    Attributes:
        id: `theory/value/register-ordinal`, ordinals from 01 within a value and register.
        register: "answer" or "brief" (a long or short answer to the question in `context`),
            "statement", "post" or "rule".
        scenario: a few words.
        context: the question that the rungs answer, or None.
        rungs: five texts, strongest opposition first, the middle one neutral.
    """

    id: str
    register: str
    scenario: str
    context: str | None
    rungs: tuple[str, ...]

    @property
    def value(self) -> str:
        """Id of the value, for example `svt/power`."""
        return self.id.rsplit("/", 1)[0]

    @property
    def split(self) -> Split:
        """The split all its rungs belong to; a function of the id alone."""
        return split_of(self.id)

    def text_id(self, rung: int) -> str:
        """Id of the rung-th text, 1 (strongest opposition) to 5."""
        return f"{self.id}/{rung}"


@dataclass(frozen=True)
class RankingRecord:
    """One window as shown and as ranked.

    Attributes:
        window: id, unique within a value; a window shown again in another order is a new record
            of the same window with another `kind`.
        kind: "ladder" (the rungs of one), "cross" (different ladders), "repeat" (one of the former
            shown again), "review" (a second reading of a doubtful one, replaces it).
        ranker: who ranked; described in the data card.
        shown: text ids in the order shown.
        order: the same ids, most supportive first.
    """

    window: str
    kind: str
    ranker: str
    shown: tuple[str, ...]
    order: tuple[str, ...]


def bounded_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, object) of each line of a file of the database, which may be empty.

    Raises:
        InvalidInput: what `json_lines` refuses, with `LONGEST_LINE` for a limit.
    """
    return json_lines(path, limit=LONGEST_LINE, may_be_empty=True)


def split_of(ladder_id: str) -> Split:
    """The split of a ladder: fixed by its id, so that growth never moves one, even over registers.

    Ladders of one value and register are dealt in hands of five by their ordinal; a hash of value,
    register and hand number decides the order within the hand.

    Raises:
        InvalidInput: an id not of the form `theory/value/register-ordinal`.
    """
    stem, _, ordinal = ladder_id.rpartition("-")
    named = stem.count("/") == 2 and all(stem.split("/"))
    if not named or not ordinal.isdecimal() or int(ordinal) < 1:
        raise InvalidInput(f"ladder id {ladder_id!r}: expected theory/value/register-01")
    hand, place = divmod(int(ordinal) - 1, len(_HANDS[0]))
    first = _HANDS[0] if _hash(stem) % 2 == hand % 2 else _HANDS[1]
    dealt = sorted(range(len(first)), key=lambda i: _hash(f"{stem}-{hand}-{i}"))
    return first[dealt[place]]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def read_ladders(path: Path) -> list[Ladder]:
    """The ladders of a JSON-lines file, checked.

    Raises:
        InvalidInput: names file, line and mend: not UTF-8 or JSON, a missing field, a duplicate
            id, not five rungs, an empty or repeated text, an unknown register or one that is not
            the id's, an answer without its question.
    """
    ladders: list[Ladder] = []
    seen: set[str] = set()
    for where, row in bounded_lines(path):
        ladder = _ladder(where, row)
        claim(where, (ladder.id, *ladder.rungs), seen)
        ladders.append(ladder)
    return ladders


def claim(where: str, keys: Iterable[str], seen: set[str]) -> None:
    """Add ids and texts to those seen; raises InvalidInput, naming `where`, for one that was."""
    for key in keys:
        if key in seen:
            raise InvalidInput(f"{where}: {key[:60]!r} occurs twice; ids and texts are unique")
        seen.add(key)


def _ladder(where: str, row: Mapping[str, Any]) -> Ladder:
    for name in ("id", "register", "scenario"):
        _text_field(where, row, name)
    rungs = rungs_of(where, row)
    register, context = row["register"], row.get("context")
    if register not in REGISTERS:
        raise InvalidInput(f"{where}: register {register!r} is none of {', '.join(REGISTERS)}")
    if context is not None and not isinstance(context, str):
        raise InvalidInput(f"{where}: 'context' must be text or null, got {context!r:.80}")
    context = context if context and context.strip() else None
    if (register in ANSWERING) != bool(context):
        raise InvalidInput(f"{where}: an answer needs its question in 'context', others have none")
    try:
        split_of(row["id"])
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
    check_value(where, row["id"].rsplit("/", 1)[0])
    if row["id"].rpartition("-")[0].rpartition("/")[2] != register:
        raise InvalidInput(f"{where}: id {row['id']!r} does not name its register {register!r}")
    return Ladder(row["id"], register, row["scenario"], context, rungs)


def rungs_of(where: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The five texts of a line; raises InvalidInput, naming `where`, if they are not that."""
    rungs = row.get("rungs")
    if not isinstance(rungs, list) or len(rungs) != N_RUNGS:
        raise InvalidInput(f"{where}: 'rungs' must be a list of {N_RUNGS} texts, got {rungs!r:.80}")
    for number, text in enumerate(rungs, start=1):
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f"{where}: rung {number} is empty; write it or drop the ladder")
    return tuple(rungs)


def check_value(where: str, value: str) -> None:
    """Raises InvalidInput, naming `where`, for what is no value's full id."""
    try:
        known = get_value(value).id
    except (UnknownName, InvalidInput) as error:
        raise InvalidInput(f"{where}: {error}") from None
    if known != value:
        raise InvalidInput(f"{where}: the id names {value!r}; write {known!r}")


def read_rankings(path: Path) -> list[RankingRecord]:
    """The ranking records of a JSON-lines file, checked.

    Raises:
        InvalidInput: names file and line: not UTF-8 or JSON, a missing field, an unknown kind, an
            order that is no permutation of what was shown.
    """
    return [_record(where, row) for where, row in bounded_lines(path)]


def window_of(where: str, row: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Id, kind and texts shown of a window in a line of a plan or of rankings, checked.

    Raises:
        InvalidInput: names `where`: a missing field, an unknown kind, fewer than two texts or one
            of them twice.
    """
    for name in ("window", "kind"):
        _text_field(where, row, name)
    if row["kind"] not in KINDS:
        raise InvalidInput(f"{where}: kind {row['kind']!r} is none of {', '.join(KINDS)}")
    shown = _text_ids(where, row, "shown")
    if len(shown) < 2 or len(set(shown)) != len(shown):
        raise InvalidInput(f"{where}: a window shows two or more distinct texts, got {shown!r:.80}")
    return row["window"], row["kind"], shown


def _record(where: str, row: Mapping[str, Any]) -> RankingRecord:
    window, kind, shown = window_of(where, row)
    order = _text_ids(where, row, "order")
    if sorted(shown) != sorted(order):
        raise InvalidInput(
            f"{where}: the order is no permutation of the {len(shown)} texts shown; "
            "rank the window again or remove the line"
        )
    return RankingRecord(window, kind, _text_field(where, row, "ranker"), shown, order)


def _text_field(where: str, row: Mapping[str, Any], name: str) -> str:
    content = row.get(name)
    if not isinstance(content, str) or not content.strip():
        raise InvalidInput(f"{where}: field {name!r} must be text, got {content!r:.80}")
    return content


def _text_ids(where: str, row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    ids = row.get(name)
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise InvalidInput(f"{where}: {name!r} must be a list of text ids, got {ids!r:.80}")
    return tuple(ids)
