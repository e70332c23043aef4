"""Concept anchors: moral matters that two or more theories name, each under a value of its own.

Trees alone leave the theories unconnected. An anchor says that a concept, such as keeping a
friend's secret, is (nearly) the same matter for `duty/fidelity` and `mft/loyalty-betrayal`, and
shows it in texts on either side.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from valueflow.errors import InvalidInput, UnknownName
from valueflow.registry import unknown_name
from valueflow.theories.loader import _checked_mapping, _text, _texts
from valueflow.theories.lookup import get_value, steered_values

_KEYS = {"id", "concept", "values", "why", "supports", "opposes"}


@dataclass(frozen=True)
class Anchor:
    """One concept and the values, of two theories or more, that it stands for.

    Attributes:
        id: Kebab-case name, `"keeping-a-confidence"`.
        concept: What it is about, in 3 to 8 words.
        values: Pairs (id of a steered value, direction); the direction is -1 where the concept is
            the opposite of the value, else +1.
        why: Why the values meet here, in one sentence.
        supports: Texts for the concept: each supports the values of direction +1 and opposes those
            of direction -1.
        opposes: Texts against the concept, as many, with the directions reversed.
    """

    id: str
    concept: str
    values: tuple[tuple[str, int], ...]
    why: str
    supports: tuple[str, ...]
    opposes: tuple[str, ...]

    @property
    def theories(self) -> tuple[str, ...]:
        """The ids of the theories that the anchor joins, in the order of its values."""
        return tuple(dict.fromkeys(value.partition("/")[0] for value, _ in self.values))


@cache
def load_anchors() -> tuple[Anchor, ...]:
    """Every concept anchor of the package, in the order of its file; read once."""
    source = files("valueflow.theories") / "anchors.yaml"
    return parse_anchors(source.read_text(encoding="utf-8"), file="anchors.yaml")


def anchors_of(value: str) -> tuple[Anchor, ...]:
    """The anchors that hold `value` (id, short id, name or alias), in the order of the file.

    Empty for a node that is not one of the steered values: anchors join only those. Raises what
    `get_value` raises.
    """
    wanted = get_value(value).id
    return tuple(
        anchor for anchor in load_anchors() if any(held == wanted for held, _ in anchor.values)
    )


def parse_anchors(text: str, *, file: str) -> tuple[Anchor, ...]:
    """The anchors that the YAML document `text` lists; `file` is its name in messages.

    Raises:
        UnknownName: an anchor holds a value that is not steered; names near misses.
        InvalidInput: YAML that cannot be read; a missing, empty or unknown key; an id that is no
            kebab-case word; an id or a text that occurs twice; a value that an anchor holds
            twice; a direction other than +1 and -1; values of fewer than two theories; sides of
            unlike numbers of texts.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file}: expected YAML, got {' '.join(str(error).split())}") from error
    entries = _checked_mapping(document, {"anchors"}, {"anchors"}, file)["anchors"]
    if not isinstance(entries, list) or not entries:
        raise InvalidInput(f"{file}: expected 'anchors' to be a list of anchors, got {entries!r}")
    known = tuple(value.id for value in steered_values())
    anchors = tuple(_parse_anchor(entry, known, file) for entry in entries)
    _check_unique(anchors, file)
    return anchors


def _parse_anchor(entry: Any, known: tuple[str, ...], file: str) -> Anchor:
    label = entry.get("id", entry.get("concept", "?")) if isinstance(entry, dict) else "?"
    where = f"{file}: anchor {label!r}"
    entry = _checked_mapping(entry, _KEYS, _KEYS, where)
    anchor = Anchor(
        id=_text(entry["id"], "id", where),
        concept=_text(entry["concept"], "concept", where),
        values=_parse_values(entry["values"], known, where),
        why=_text(entry["why"], "why", where),
        supports=_texts(entry["supports"], "supports", where),
        opposes=_texts(entry["opposes"], "opposes", where),
    )
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", anchor.id):
        raise InvalidInput(
            f"{where}: expected a kebab-case id such as 'keeping-a-secret', got {anchor.id!r}"
        )
    if not anchor.supports or len(anchor.supports) != len(anchor.opposes):
        raise InvalidInput(
            f"{where}: expected as many texts under 'supports' as under 'opposes', at least one; "
            f"got {len(anchor.supports)} and {len(anchor.opposes)}"
        )
    if len(anchor.theories) < 2:
        raise InvalidInput(
            f"{where}: expected values of two theories or more, "
            f"got only {', '.join(anchor.theories)!r}; "
            "add a value of another theory that means the same, or drop the anchor"
        )
    return anchor


def _parse_values(entries: Any, known: tuple[str, ...], where: str) -> tuple[tuple[str, int], ...]:
    if not isinstance(entries, list) or not entries:
        raise InvalidInput(f"{where}: expected 'values' to be a list, got {entries!r}")
    directions: dict[str, int] = {}
    for entry in entries:
        entry = _checked_mapping(
            entry, {"id", "direction"}, {"id", "direction"}, f"{where}: 'values'"
        )
        value, direction = _text(entry["id"], "id", where), entry["direction"]
        if value not in known:
            raise UnknownName(f"{where}: {unknown_name('steered value', value, known)}")
        # `True == 1`, and YAML reads a bare `yes` as True.
        if type(direction) is not int or direction not in (1, -1):
            raise InvalidInput(
                f"{where}: {value!r} needs direction 1, or -1 where the concept is the opposite "
                f"of the value; got {direction!r}"
            )
        if value in directions:
            raise InvalidInput(f"{where}: {value!r} occurs twice under 'values'; keep one")
        directions[value] = direction
    return tuple(directions.items())


def _check_unique(anchors: Iterable[Anchor], file: str) -> None:
    ids: set[str] = set()
    owner: dict[str, str] = {}
    for anchor in anchors:
        if anchor.id in ids:
            raise InvalidInput(f"{file}: anchor {anchor.id!r} occurs twice; give one another id")
        ids.add(anchor.id)
        for text in (*anchor.supports, *anchor.opposes):
            if text in owner:
                raise InvalidInput(
                    f"{file}: anchor {anchor.id!r}: the text {text!r} stands already in "
                    f"{owner[text]!r}; write another one"
                )
            owner[text] = anchor.id
