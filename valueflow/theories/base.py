"""Values and the trees that theories arrange them in.

A theory is a set of nodes with parents; a node may have several, so the "tree" is a directed graph
without cycles. This module knows neither files (`loader`) nor the other theories (`lookup`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from valueflow.errors import InvalidInput, UnknownName
from valueflow.registry import near_misses

THEORY_ALIASES = {"pvq": "svt", "schwartz": "svt", "duties": "duty", "rights": "right"}


@dataclass(frozen=True)
class Value:
    """One node of a theory: a value, a group of values above it or a facet below it.

    Attributes:
        id: Theory and short id, `"svt/power"`.
        theory: Id of the theory, `"svt"`.
        name: As written in prose, `"care/harm"`.
        definition: What the value is, in one or two sentences that set it off from its neighbours.
        supports: Describes a text that supports the value; None for nodes that are not steered.
        opposes: Describes a text that opposes the value; None for nodes that are not steered.
        aliases: Other names that `get_value` understands.
        parents: Ids of the nodes directly above; empty at the top of the theory.
        steered: Whether this is one of the 32 values that are measured and steered.
        article: Where a single right is laid down: `"UDHR 23(4)"`, else in a treaty
            (`"ICCPR 27"`) or a resolution of the UN General Assembly (`"UNGA 71/189"`); None for
            groups of rights, for rights not laid down yet and outside `right`.
    """

    id: str
    theory: str
    name: str
    definition: str
    supports: str | None
    opposes: str | None
    aliases: tuple[str, ...]
    parents: tuple[str, ...]
    steered: bool
    article: str | None = None


@dataclass(frozen=True)
class Theory:
    """A theory of values: its nodes and how they hang together.

    Methods take a value's id, short id, name or alias and return ids, in the order of `values`
    unless they say otherwise. A name that the theory does not have raises UnknownName.

    Attributes:
        id: `"svt"`, `"mft"`, `"duty"` or `"right"`.
        name: As written in prose.
        source: The publications it is taken from, one reference a line.
        values: Every node, the steered ones and those above and below them.
        circle: Ids in circular order, first and last being neighbours; None if the theory has none.
    """

    id: str
    name: str
    source: str
    values: tuple[Value, ...] = field(repr=False)
    circle: tuple[str, ...] | None = None

    def find(self, name: str) -> Value | None:
        """The value that `name` (id, short id, name or alias) stands for here, or None."""
        prefix, slash, rest = name.partition("/")
        if slash and theory_key(prefix) == self.id:
            name = rest
        return self._by_key.get(lookup_key(name))

    def value(self, name: str) -> Value:
        """The value that `name` stands for here; raises UnknownName with near misses."""
        found = self.find(name)
        if found is None:
            raise unknown_value(name, [self])
        return found

    @property
    def steered(self) -> tuple[Value, ...]:
        """The values of this theory that are measured and steered."""
        return tuple(value for value in self.values if value.steered)

    def children(self, name: str) -> tuple[str, ...]:
        """The nodes directly below."""
        parent = self.value(name).id
        return tuple(value.id for value in self.values if parent in value.parents)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Every node above, nearest first (breadth first, each once)."""
        found: list[str] = []
        level = self.value(name).parents
        while level:
            found += level
            above = (grand for parent in level for grand in self.value(parent).parents)
            level = tuple(dict.fromkeys(node for node in above if node not in found))
        return tuple(found)

    def siblings(self, name: str) -> tuple[str, ...]:
        """The other nodes that share a parent with this one.

        Nodes at the top are siblings of each other, the theory being their parent: so each moral
        foundation has the five others as siblings.
        """
        value = self.value(name)
        return tuple(
            other.id
            for other in self.values
            if other.id != value.id
            and (set(other.parents) & set(value.parents) or not (other.parents or value.parents))
        )

    def paths(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Every way from the top of the theory down to the node, the node itself last.

        More than one where the node, or one above it, has several parents.
        """
        value = self.value(name)
        if not value.parents:
            return ((value.id,),)
        return tuple((*path, value.id) for parent in value.parents for path in self.paths(parent))

    def circle_distance(self, a: str, b: str) -> int:
        """Steps between two values on the circle, the shorter way round: 0 to half its length.

        Raises InvalidInput if the theory has no circle or a value does not lie on it.
        """
        circle, position_a = self._locate(a)
        _, position_b = self._locate(b)
        steps = abs(position_a - position_b)
        return min(steps, len(circle) - steps)

    def neighbours(self, name: str) -> tuple[str, str]:
        """The values before and after this one on the circle: those most compatible with it.

        Raises InvalidInput if the theory has no circle or the value does not lie on it.
        """
        circle, position = self._locate(name)
        return circle[position - 1], circle[(position + 1) % len(circle)]

    def opposites(self, name: str) -> tuple[str, ...]:
        """The values across the circle, those most in conflict with this one, farthest first.

        A value counts as opposite if at most one step short of half the circle away: of the twelve
        basic values the one at distance 6 and the two at distance 5. The relation is symmetric.
        Ties keep the order of the circle.

        Raises InvalidInput if the theory has no circle or the value does not lie on it.
        """
        circle, _ = self._locate(name)
        distance = {other: self.circle_distance(name, other) for other in circle}
        across = [other for other in circle if distance[other] >= len(circle) // 2 - 1]
        return tuple(sorted(across, key=lambda other: -distance[other]))

    def _locate(self, name: str) -> tuple[tuple[str, ...], int]:
        value = self.value(name)
        if self.circle is None:
            raise InvalidInput(f"theory {self.id!r} has no circular order of values; svt has one")
        if value.id not in self.circle:
            raise InvalidInput(
                f"expected a value on the circle of {self.id!r}, got {value.id!r}; "
                f"on it are {', '.join(self.circle)}"
            )
        return self.circle, self.circle.index(value.id)

    @cached_property
    def _by_key(self) -> dict[str, Value]:
        return {key: value for value in self.values for key in value_keys(value)}


def lookup_key(name: str) -> str:
    """`name` in the form names are compared in: lower case, words joined by single hyphens."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-")


def theory_key(name: str) -> str:
    """The theory id that `name` would be read as, known or not (`"PVQ"` gives `"svt"`)."""
    key = lookup_key(name)
    return THEORY_ALIASES.get(key, key)


def value_keys(value: Value) -> set[str]:
    """Every key that stands for `value` inside its theory: short id, name and aliases."""
    short = value.id.partition("/")[2]
    return {lookup_key(name) for name in (short, value.name, *value.aliases)}


def unknown_value(name: str, theories: Iterable[Theory]) -> UnknownName:
    """The error for a value that none of `theories` has; names up to three that look like it."""
    theories = tuple(theories)
    prefix, slash, rest = name.partition("/")
    scoped = slash and theory_key(prefix) in {theory.id for theory in theories}
    key = lookup_key(rest if scoped else name)
    close: dict[str, None] = {}
    keys = sorted({each for theory in theories for each in theory._by_key})
    for hit in near_misses(key, keys):
        close |= {theory._by_key[hit].id: None for theory in theories if hit in theory._by_key}
    if close:
        return UnknownName(f"unknown value {name!r}: did you mean {' or '.join(close)}?")
    steered = (value.id for theory in theories for value in theory.steered)
    return UnknownName(f"unknown value {name!r}: steered values are {', '.join(steered)}")
