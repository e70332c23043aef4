"""Names that come from a command line or a file, and what they stand for."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from valueflow.errors import UnknownName

T = TypeVar("T")


def near_misses(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names most like `name`, best first, case ignored; empty when none is close."""
    by_lower = {item.lower(): item for item in known}
    hits = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.6)
    return [by_lower[hit] for hit in hits]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for a name that is not known: near misses first, else all that is known."""
    known = sorted(known)
    close = near_misses(name, known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return UnknownName(f"unknown {kind} {name!r}: {hint}")


class Registry(Generic[T]):
    """A mapping from name to thing that refuses duplicates and helps with misspelt names."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register `item`; a name that is taken raises ValueError (a programmer's error)."""
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._items[name] = item
        return item

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise unknown_name(self.kind, name, self._items)
        return self._items[name]

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
