"""What a language model answered, read as a ranking or a rating; never guessed.

Every form that models write is looked for everywhere in the answer. Only where all that was found
says the same is it believed: an answer that can be read in two ways is `Unranked`, and so is one
with items missing, twice, or out of range.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from valueflow.judges.base import Unranked
from valueflow.typing import Ranking

LONGEST = 20_000
"""Characters of an answer that are read; longer ones are `Unranked`."""

RATINGS = (-10.0, 10.0)

_MOST_BRACES = 300

Reading = tuple[int | None, ...]
"""Numbers of texts in the order in which an answer has them; None for what is no number."""

_N = r"[0-9]{1,6}"
_NAME = r"(?:text|item|answer|response|option|number|no\.)"
# A text's number as models write it: 2, [2], (2), **2**, Text 2, #2, "Text [2]".
_LABEL = rf"[\[(\"'*`]{{0,4}}(?:{_NAME}\s?)?[\[(\"'*`#]{{0,4}}({_N})[\])\"'*`]{{0,4}}"
_RELATION = r"(>{1,3}|>=|<=|<{1,3}|=|≻|≺|≥|≤|~|≈|→|->)"
_DESCENDING = frozenset({">", ">>", ">>>", "≻", "→", "->"})
_CHAIN = re.compile(rf"(?<![\w.]){_LABEL}(?:\s*{_RELATION}\s*{_LABEL})+(?!\w)", re.IGNORECASE)
_LIST = re.compile(r"\[([^\[\]{}]*)\]")

_HEAD = r"(?:the )?(?:final |my )?(?:ranking|rank|order|answer|result)(?: is)? ?[:=]? ?"
_OPEN = r"[\s*`\"'(\[:]{0,4}"
_PLAIN = re.compile(
    rf"^{_OPEN}(?:{_HEAD})?{_OPEN}({_N}(?:(?: ?, ?| ){_N})+)[\s*`\"')\].]{{0,4}}$", re.IGNORECASE
)
_BULLET = r"^[\s*#`\"'>(\[-]{0,4}"
# After a number that stands alone nothing may follow that makes it another number or a word.
_AFTER = r"(?=\s*$|\s*[:)\]*(]|\.(?![0-9])|\s[–—-]\s|\s?—)"
_TEXT = rf"(?:[\[(\"'*`]{{0,4}}{_NAME} ?[\[(\"'*`#]{{0,4}}({_N})\b(?!\.[0-9])|{_LABEL}{_AFTER})"
_PLACED = re.compile(rf"{_BULLET}({_N})[.)]{{1,2}}(?![0-9])[\s*]{{0,4}}{_TEXT}", re.IGNORECASE)
_RANKED = re.compile(
    rf"{_BULLET}(?:(?:rank|place) ?#?({_N})|({_N})(?:st|nd|rd|th)(?: place)?) ?[:.)=-]\s?{_TEXT}",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"^\s?(?:[-*•] )?{_LABEL}\s?[,;]?\s?$", re.IGNORECASE)
_DIGITS = re.compile(_N)

_SIGNED = r"[+-]?[0-9]{1,6}(?:\.[0-9]{1,6})?"
_COMPLETE = r"(?![\w%/]|\.[0-9]|\s?(?:/|out of)\s?[0-9])"
_FREE = re.compile(rf"(?<![\w./–—‐‑])(?<!-\s)(?<!\+\s){_SIGNED}{_COMPLETE}")
_RATED = re.compile(
    rf"\b(?:rating|score)\b[\"'*`]{{0,4}}\s?(?:is|of)?\s?[:=]?\s?[\"'*`]{{0,4}}({_SIGNED}){_COMPLETE}",
    re.IGNORECASE,
)
_SCALE = re.compile(
    r"-\s?10\s?(?:\([^()]{0,80}\)\s?)?(?:to|\.{2,3}|…|and|through)\s?\+?\s?10(?![\w.])",
    re.IGNORECASE,
)

_THINKING = re.compile(r"</?(?:think|thinking|thought)>", re.IGNORECASE)
# The lines that the prompt puts around texts, and a text that is copied with them.
_COPIED = re.compile(r"<(text-[0-9a-f]{6})( ?\w{0,6})>[^<]*</\1\2>|</?text-[0-9a-f]{6}[^>\n]{0,8}>")


def parse_ranking(answer: str, n: int) -> Ranking | Unranked:
    """The order that an answer gives to texts that were shown with the numbers 1 to `n`.

    Read are `{"ranking": [2, 1, 3]}`, a bare list, `2 > 1 > 3`, lines "1. Text 2", and lines that
    hold one number each; with prose around them. Thoughts before `</think>` are left out.

    Returns:
        Positions from 0, first is first; or why there is no one order, with the answer.
    """
    text = _said(answer)
    if isinstance(text, Unranked):
        return text
    readings = list(_readings(text))
    everything = list(range(1, n + 1))
    complete = {r for r in readings if None not in r and sorted(filter(None, r)) == everything}
    if not readings:
        return Unranked("no ranking in the answer", answer)
    if not complete:
        return Unranked(_fault(readings[0], n), answer)
    found = next(iter(complete))
    if len(complete) > 1:
        return Unranked("more than one ranking in the answer", answer)
    if not all(_within(reading, found) for reading in readings):
        return Unranked("the answer contradicts its own ranking", answer)
    return tuple(number - 1 for number in found if number is not None)


def parse_rating(answer: str) -> float | Unranked:
    """The rating from -10 to 10 that an answer gives; one beyond is `Unranked`, not clipped.

    Read are `{"rating": 3}`, "Rating: 3", or the only number in the answer (the words "-10 to 10"
    do not count). "7/10" may be on another scale, and is not read.
    """
    text = _said(answer)
    if isinstance(text, Unranked):
        return text
    found = _ratings(_SCALE.sub(" ", text.replace("\u2212", "-")))
    if not found:
        return Unranked("no rating in the answer", answer)
    if len(set(found)) > 1:
        return Unranked("more than one rating in the answer", answer)
    if not RATINGS[0] <= found[0] <= RATINGS[1]:
        return Unranked("the rating is no number from -10 to 10", answer)
    return found[0]


def _said(answer: str) -> str | Unranked:
    """The answer without the thoughts before it, in single spaces."""
    *_, last = [0, *(found.end() for found in _THINKING.finditer(answer) if found[0][1] == "/")]
    text = answer[last:]
    if _THINKING.search(text):
        return Unranked("the answer breaks off in a thought", answer)
    if len(text) > LONGEST:
        return Unranked(f"the answer has more than {LONGEST} characters", answer)
    # Long runs of white space would make some patterns slow.
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", _COPIED.sub(" ", text)))
    return text if text.strip() else Unranked("the answer is empty", answer)


def _fault(reading: Reading, n: int) -> str:
    numbers = [number for number in reading if number is not None]
    if len(numbers) < len(reading):
        return "the ranking is not a list of numbers"
    if any(not 1 <= number <= n for number in numbers):
        return f"a number in the ranking is not between 1 and {n}"
    if len(set(numbers)) < len(numbers):
        return "a text is ranked twice"
    return f"{len(numbers)} of {n} texts are ranked"


def _within(part: Reading, whole: Reading) -> bool:
    """Whether `part` names some of `whole` in the same order."""
    rest = iter(whole)
    return all(number in rest for number in part)


def _readings(text: str) -> Iterator[Reading]:
    """Every order that the text can be read to give."""
    for found in _objects(text):
        for key, ranking in found.items():
            if key.lower() == "ranking":
                yield tuple(map(_entry, ranking)) if isinstance(ranking, list) else (None,)
    for match in _LIST.finditer(text):
        entries = tuple(_entry(part) for part in match[1].split(","))
        if len(entries) > 1 and any(entry is not None for entry in entries):
            yield entries
    for match in _CHAIN.finditer(text):
        numbers = tuple(int(found) for found in _DIGITS.findall(match[0]))
        descending = set(re.findall(_RELATION, match[0])) <= _DESCENDING
        yield numbers if descending else (None, *numbers)
    lines = text.splitlines()
    for line in lines:
        if plain := _PLAIN.match(line):
            yield tuple(int(found) for found in _DIGITS.findall(plain[1]))
    yield from _numbered(lines)
    yield from _listed(lines)


def _numbered(lines: Sequence[str]) -> Iterator[Reading]:
    """Lists "1. Text 2", "2. Text 1": a place, then a text; place 1 begins a new list."""
    ranked: list[int | None] = []
    for line in lines:
        if not (match := _PLACED.match(line) or _RANKED.match(line)):
            continue
        place, label = (int(part) for part in match.groups() if part is not None)
        if place == 1 and ranked:
            yield tuple(ranked)
            ranked = []
        ranked.append(label if place == len(ranked) + 1 else None)
    if len(ranked) > 1:
        yield tuple(ranked)


def _listed(lines: Sequence[str]) -> Iterator[Reading]:
    """Runs of lines that hold a text's number or name each, and nothing else."""
    run: list[int | None] = []
    for line in [*lines, "the end"]:
        if match := _ALONE.match(line):
            run.append(int(match[1]))
        elif line.strip():
            if len(run) > 1:
                yield tuple(run)
            run = []


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object in the text, nested ones too."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    if text.count("{") > _MOST_BRACES:
        # Too many to try, and what is not read must not pass for agreement.
        yield {"ranking": None, "rating": None}
        return
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            yield found
        start = text.find("{", start + 1)


def _entry(entry: Any) -> int | None:
    if isinstance(entry, str) and (match := re.fullmatch(rf"\s?{_LABEL}\s?", entry, re.IGNORECASE)):
        return int(match[1])
    return entry if isinstance(entry, int) and not isinstance(entry, bool) else None


def _ratings(text: str) -> list[float]:
    """The ratings said outright; else all numbers, NaN for what may be one."""
    said = [
        _rating(rating)
        for found in _objects(text)
        for key, rating in found.items()
        if key.lower() == "rating"
    ]
    said += [float(match[1]) for match in _RATED.finditer(text)]
    if said:
        return said
    free = [float(match[0]) for match in _FREE.finditer(text)]
    # A digit in no such number ("7/10", "- 3", "1e5") may be the rating just as well.
    stray = re.search(r"[0-9]", _FREE.sub(" ", text)) is not None
    return [*free, math.nan] if free and stray else free


def _rating(rating: Any) -> float:
    if isinstance(rating, str) and re.fullmatch(_SIGNED, rating.strip()):
        return float(rating)
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        return math.nan
    return float(max(min(rating, 1e9), -1e9))
