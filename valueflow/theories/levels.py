"""How near two values stand in a theory's tree.

A level is a step down from the theory: level 1 is the coarsest (`svt/growth`), the value itself or
its facet the finest. A value with several parents has several nodes at a level, and two values
share a level if any of their nodes there agree: `svt/hedonism` shares two with `svt/stimulation`
(growth, openness to change) and two with `svt/power` (self-protection, self-enhancement), though
those two share none with each other. So sharing is not transitive.
"""

from functools import cache

from valueflow.theories.lookup import get_theory, get_value


@cache
def paths_of(value: str) -> tuple[tuple[str, ...], ...]:
    """Every path from the node below the theory down to the value, both included.

    Raises UnknownName for a value that no theory has.
    """
    known = get_value(value)
    return get_theory(known.theory).paths(known.id)


@cache
def levels_of(value: str) -> tuple[frozenset[str], ...]:
    """The nodes of a value at each level, coarsest first; the value itself is among the last."""
    paths = paths_of(value)
    depth = max(len(path) for path in paths)
    return tuple(frozenset(p[i] for p in paths if len(p) > i) for i in range(depth))


@cache
def shared_levels(first: str, second: str) -> int:
    """Number of levels that two values share, 0 to their depth; -1 across theories."""
    if get_value(first).theory != get_value(second).theory:
        return -1
    return sum(bool(a & b) for a, b in zip(levels_of(first), levels_of(second), strict=False))
