"""What a judge is: it orders the texts of a window, and gives no numbers."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from valueflow.errors import InvalidInput
from valueflow.registry import Registry, unknown_name
from valueflow.theories import Value
from valueflow.typing import Item, Ranking, Window


@dataclass(frozen=True)
class Unranked:
    """A window that a judge failed to order; counted and reported, never a score.

    Attributes:
        reason: what went wrong, in a few words.
        raw: what the judge said, if it said anything.
    """

    reason: str
    raw: str | None = None


Verdict = Ranking | Unranked
"""Positions in the window as shown, most supportive first; or why there are none."""


@runtime_checkable
class Judge(Protocol):
    """Anything that orders windows of texts by how strongly each supports a value."""

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    def fingerprint(self) -> str:
        """Hash of all that decides its orders: weights, prompt, settings."""
        ...

    def rank(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:
        """One verdict per window, in order. A verdict's ranking is a permutation of the window."""
        ...


@runtime_checkable
class Rater(Protocol):
    """A judge that also gives a number to a single text, to compare rating with ranking."""

    def rate(self, value: Value, items: Sequence[Item]) -> list["float | Unranked"]:
        """Per text a rating from -10 (strongest opposition) to 10 (strongest support)."""
        ...


class _Judges(Registry[str]):
    """Judges by name; for some a language model may follow the name: `openai:MODEL`."""

    takes_model = frozenset({"openai", "local"})

    def __getitem__(self, name: str) -> str:
        kind, colon, model = name.partition(":")
        place = super().__getitem__(kind)
        if colon and (kind not in self.takes_model or not model):
            known = " or ".join(f"{each}:MODEL" for each in sorted(self.takes_model))
            raise InvalidInput(f"judge {name!r}: a model is named as in {known}")
        return place


JUDGES: Registry[str] = _Judges("judge")
"""Names a command line can give; where each is built, as "module:callable".

`openai:MODEL` and `local:MODEL` name a judge and its model; the model's name may hold colons.
"""

JUDGES.add("hives", "valueflow.hives.judge:load_hives_judge")
JUDGES.add("hives-small", "valueflow.hives.judge:load_small_judge")
JUDGES.add("prototype", "valueflow.hives.judge:load_prototype_judge")
JUDGES.add("openai", "valueflow.judges.openai_compatible:load_openai_judge")
JUDGES.add("local", "valueflow.judges.local_lm:load_local_judge")


OPTIONS: dict[str, dict[str, type]] = {
    "local": {"method": str, "max_new_tokens": int, "batch_size": int, "device": str, "dtype": str},
    "openai": {
        "base_url": str,
        "concurrency": int,
        "timeout": float,
        "max_retries": int,
        "deadline": float,
        "budget_tokens": int,
    },
}
"""What a command line may say of judges that run a language model, and of which kind it is."""


def parse_options(name: str, given: Sequence[str]) -> dict[str, Any]:
    """Options of a judge written as NAME=VALUE, ready for `get_judge`.

    Raises:
        InvalidInput: not of that form, a value of another kind, or a judge that takes none.
        UnknownName: no option of that judge; names near misses.
    """
    kind = name.partition(":")[0]
    known, found = OPTIONS.get(kind, {}), {}
    for option in given:
        key, equals, text = option.partition("=")
        if not known:
            raise InvalidInput(f"judge {name!r} takes no options, got {option!r}")
        if not equals:
            raise InvalidInput(f"expected an option as NAME=VALUE, got {option!r}")
        if key not in known:
            raise unknown_name(f"option of judge {kind}", key, known)
        try:
            found[key] = known[key](text)
        except ValueError:
            wanted = known[key].__name__
            raise InvalidInput(f"judge option {key}: expected {wanted}, got {text!r}") from None
    return found


def get_judge(name: str, **options: Any) -> Judge:
    """The judge of that name, built with `options`; loads what it needs.

    `get_judge("local:MODEL")` is `get_judge("local", model="MODEL")`.

    Raises:
        UnknownName: with near misses.
        InvalidInput: a model named for a judge that takes none, or named twice.
    """
    module, _, attribute = JUDGES[name].partition(":")
    _, _, model = name.partition(":")
    if model and "model" in options:
        raise InvalidInput(f"judge {name!r} names a model, and so does model={options['model']!r}")
    if model:
        options["model"] = model
    return getattr(importlib.import_module(module), attribute)(**options)
