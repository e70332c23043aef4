"""Values and theories by name; the files are read when first asked for."""

from functools import cache
from importlib.resources import files

from valueflow.errors import InvalidInput
from valueflow.registry import unknown_name
from valueflow.theories.base import Theory, Value, theory_key, unknown_value
from valueflow.theories.loader import parse_theory

THEORY_IDS = ("svt", "mft", "duty", "right")


def theories() -> tuple[Theory, ...]:
    """The four theories: `svt`, `mft`, `duty`, `right`."""
    return tuple(_load(theory_id) for theory_id in THEORY_IDS)


def get_theory(name: str) -> Theory:
    """The theory called `name`, case ignored; `pvq` and `schwartz` are read as `svt`.

    Raises UnknownName with near misses.
    """
    theory_id = theory_key(name)
    if theory_id not in THEORY_IDS:
        raise unknown_name("theory", name, THEORY_IDS)
    return _load(theory_id)


def get_value(name: str) -> Value:
    """The value that `name` stands for.

    `name` is an id (`"svt/power"`, `"pvq/power"`), or a short id, name or alias without the theory
    (`"power"`, `"Care/Harm"`, `"non maleficence"`). Case does not count; spaces, hyphens,
    underscores, slashes and other punctuation are all the same. Where several theories have a
    short name, the steered value is meant if only one of the candidates is (`"justice"` is
    `duty/justice`).

    Raises:
        UnknownName: no theory has it; lists near misses.
        InvalidInput: several theories have it and none of them is preferred; lists the candidates.
    """
    prefix, slash, _ = name.partition("/")
    if slash and theory_key(prefix) in THEORY_IDS:
        return get_theory(prefix).value(name)
    candidates = [value for theory in theories() if (value := theory.find(name))]
    if not candidates:
        raise unknown_value(name, theories())
    preferred = [value for value in candidates if value.steered] or candidates
    if len(preferred) > 1:
        raise InvalidInput(
            f"value {name!r} is ambiguous: expected one of "
            f"{', '.join(value.id for value in preferred)}"
        )
    return preferred[0]


def steered_values(theory: str | None = None) -> tuple[Value, ...]:
    """The 32 values that are measured and steered, or those of one theory, in a fixed order.

    Theories in the order of `theories()`; within `svt` the order of its circle.
    """
    chosen = theories() if theory is None else (get_theory(theory),)
    return tuple(value for each in chosen for value in each.steered)


@cache
def _load(theory_id: str) -> Theory:
    source = files("valueflow.theories") / "data" / f"{theory_id}.yaml"
    return parse_theory(source.read_text(encoding="utf-8"), file=f"{theory_id}.yaml")
