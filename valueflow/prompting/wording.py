"""The words of the instructions: package data, read and checked here."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Literal

from valueflow.registry import unknown_name

Kind = Literal["levels", "texts"]

_FOLDER = resources.files(__name__.rpartition(".")[0]) / "templates"


@dataclass(frozen=True)
class Wording:
    """One way to put an instruction.

    Attributes:
        name: stem of its file.
        kind: "levels" (a degree of one or several values) or "texts" (what somebody has said).
        one: the instruction for one value, or around texts.
        line: of one value in a profile, or of one text.
        several: the instruction around a profile; empty for kind "texts".
        answered: of a text that answers a question; empty for kind "levels".
        stances: by level what the fields `$stance` stand for; empty for kind "texts".
    """

    name: str
    kind: Kind
    one: str
    line: str
    several: str
    answered: str
    stances: Mapping[int, str]

    def fill(self, part: str, fields: Mapping[str, str]) -> str:
        """A part with its `$` fields filled in once: what stands in a field is text."""
        return Template(part).substitute(fields).strip()


@functools.cache
def wordings(kind: Kind) -> tuple[str, ...]:
    """Names of the wordings of a kind, in alphabetical order."""
    return tuple(name for name in _names() if _read(name).kind == kind)


def get_wording(name: str, kind: Kind) -> Wording:
    """The wording of that name.

    Raises:
        UnknownName: none of that kind is called so.
    """
    if name not in wordings(kind):
        raise unknown_name(f"wording for {kind}", name, wordings(kind))
    return _read(name)


@functools.cache
def placebo_words() -> tuple[str, ...]:
    """An instruction that has nothing to do with values, word by word; some 350 of them."""
    return tuple((_FOLDER / "placebo.txt").read_text(encoding="utf-8").split())


@functools.cache
def templates_hash() -> str:
    """16 hex digits that change with any word of any template."""
    files = sorted((file.name, file.read_text(encoding="utf-8")) for file in _FOLDER.iterdir())
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


@functools.cache
def _names() -> tuple[str, ...]:
    found = (file.name for file in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


@functools.cache
def _read(name: str) -> Wording:
    import yaml

    data = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    optional = {key: data.get(key, "") for key in ("several", "answered")}
    return Wording(
        name, data["kind"], data["one"], data["line"], stances=data.get("stances", {}), **optional
    )
