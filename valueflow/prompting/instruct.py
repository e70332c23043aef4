"""Value instructions: levels of one or several values, and a placebo of the same length.

The protocol is that of VALUEFLOW (arXiv 2602.03160), in other words than theirs: levels -2, -1, +1
and +2 anchor four intensities, 0 is no instruction, several values make a profile.
"""

import contextlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

from valueflow.errors import InvalidInput
from valueflow.models.chat import Template, checked_texts, format_prompts
from valueflow.prompting.wording import Wording, get_wording, placebo_words
from valueflow.registry import unknown_name
from valueflow.theories import Value, get_value

LEVELS = (-2, -1, 0, 1, 2)
"""Strongly against, somewhat against, no instruction, somewhat for, strongly for."""

Place = Literal["system", "user"]
PLACES: tuple[Place, ...] = get_args(Place)


@dataclass(frozen=True)
class ValuePrompt:
    """An instruction, and where in a conversation it stands.

    Attributes:
        text: the instruction; empty for none, which leaves every prompt as it is.
        place: "system" puts it where the model's format has the system prompt (and into the user's
            message where it has none), "user" before the user's words.
        wording: name of the template; empty for none.
        levels: value ids with their levels, those at 0 left out.
    """

    text: str = ""
    place: Place = "system"
    wording: str = ""
    levels: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise unknown_name("place of an instruction", self.place, PLACES)

    def formatted(
        self, tokenizer: Any, prompts: Sequence[str], *, template: Template = "auto"
    ) -> list[str]:
        """Each prompt under the instruction, in the model's own format; see `format_prompts`.

        In the plain format, which has no roles, an instruction stands above the question in either
        place.
        """
        if not self.text:
            return format_prompts(tokenizer, prompts, template=template)
        plain = template == "plain" or not getattr(tokenizer, "chat_template", None)
        if self.place == "system" or plain:
            return format_prompts(tokenizer, prompts, system=self.text, template=template)
        merged = [f"{self.text}\n\n{prompt}" for prompt in checked_texts("prompts", prompts)]
        return format_prompts(tokenizer, merged, template=template)


def level_prompt(
    levels: Mapping[str, SupportsIndex], *, wording: str = "person", place: Place = "system"
) -> ValuePrompt:
    """The instruction to express values at levels.

    Args:
        levels: id or name of a value -> level; one value gets a sentence, several get a list, in
            the order given.
        wording: one of `wordings("levels")`.
        place: as in `ValuePrompt`.

    Returns:
        A prompt without text where all levels are 0, or none is given.

    Raises:
        UnknownName: no such value or wording.
        InvalidInput: a level that is none; a value twice, under two names; a value that has no
            description of its poles, if the wording needs them.
    """
    own = get_wording(wording, "levels")
    found: dict[str, int] = {}
    for name, level in levels.items():
        value = get_value(name)
        if value.id in found:
            raise InvalidInput(f"{value.id} has two levels, under two names; give one")
        found[value.id] = check_level(value.id, level)
    asked = tuple((value, level) for value, level in found.items() if level)
    if not asked:
        return ValuePrompt(place=place)
    fields = [_fields(own, get_value(value), level) for value, level in asked]
    if len(fields) == 1:
        return ValuePrompt(own.fill(own.one, fields[0]), place, own.name, asked)
    lines = "\n".join(own.fill(own.line, each) for each in fields)
    return ValuePrompt(own.fill(own.several, {"lines": lines}), place, own.name, asked)


def placebo_prompt(like: ValuePrompt, count: Callable[[str], int]) -> ValuePrompt:
    """An instruction about nothing to do with values, as long as another and in its place.

    Args:
        like: whose length it has; at most some 450 tokens, longer ones get as much as there is.
        count: tokens of a text.

    Returns:
        The one whose count is nearest; the shorter of two.
    """
    if not like.text:
        return ValuePrompt(place=like.place)
    words, wanted = placebo_words(), count(like.text)
    # Counts grow with the words: the first that is long enough, or the one before it.
    low, high = 1, len(words)
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if count(_sentence(words[:middle])) >= wanted else (middle + 1, high)
        )
    tried = [_sentence(words[:n]) for n in (max(low - 1, 1), low)]
    best = min(tried, key=lambda text: abs(count(text) - wanted))
    return ValuePrompt(best, like.place, "placebo")


def check_level(value: str, level: object) -> int:
    """A level as a plain integer; numpy's integers are levels as well, flags are none.

    Raises:
        InvalidInput: it is not one of `LEVELS`.
    """
    if isinstance(level, SupportsIndex) and not isinstance(level, bool):
        # Arrays have an index too, which those of more than one number refuse.
        with contextlib.suppress(TypeError):
            if (number := operator.index(level)) in LEVELS:
                return number
    raise InvalidInput(f"level of {value}: expected -2, -1, 0, 1 or 2, got {level!r}")


def _sentence(words: Sequence[str]) -> str:
    return " ".join(words).rstrip(".,:;") + "."


def _fields(own: Wording, value: Value, level: int) -> dict[str, str]:
    fields = {"name": value.name, "definition": value.definition}
    poles = {"supports": value.supports, "opposes": value.opposes}
    fields |= {pole: text for pole, text in poles.items() if text is not None}
    try:
        stance = own.fill(own.stances[level], fields)
    except KeyError:
        raise InvalidInput(
            f"{value.id} has no description of its poles, which wording {own.name!r} needs; "
            "use another wording, or one of the steered values"
        ) from None
    return fields | {"stance": stance}
