"""A comparison as a Markdown page: a row per value, and what they come to together."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from valueflow.artifacts import write_file
from valueflow.study.compare_run import counts
from valueflow.study.compare_summary import Estimate, Reached, Summary

HEAD = (
    "value",
    "unsteered",
    "prompting",
    "range, prompting",
    "range, activation",
    "range, both",
    "activation - prompting, 95%",
    "within the limit: prompting, activation",
    "damage of activation, - / +",
    "error: prompting, activation",
    "random directions",
    "words without values",
)


def compare_page(summaries: Sequence[Summary], *, limit: float | int) -> str:
    """The table and a line of totals.

    Ranges are highest minus lowest mean intensity on the verification prompts, with the half width
    of the 95% interval. "prompting" is the kind that spanned more on the calibration prompts.
    "within the limit": the range of those settings whose damage stayed within `limit` on the
    verification prompts as well. "error": mean |target - achieved| over the targets within reach,
    with their number. Placebos: mean size of the range of random directions at the vector's
    coefficients, and of the change by instructions without values. What was not measured is a dash.
    """
    lines = ["| " + " | ".join(HEAD) + " |", "|---|--:|---|" + "--:|" * (len(HEAD) - 3)]
    lines += ["| " + " | ".join(_cells(summary)) + " |" for summary in summaries]
    return "\n".join([*lines, "", _totals(summaries, limit), ""])


def write_compare_page(summaries: Sequence[Summary], path: Path, *, limit: float | int) -> None:
    """Write `compare_page`; the file appears whole or not at all."""
    write_file(path, compare_page(summaries, limit=limit).encode())


def _cells(s: Summary) -> list[str]:
    prompt, active, both = (s.ways.get(way) for way in (s.prompting, "activation", "both"))
    difference = s.differences.get(f"activation - {s.prompting}")
    return [
        s.value.partition("/")[2] or s.value,
        _number(s.unsteered.mean, "+.1f"),
        s.prompting or "–",
        *(_range(way) for way in (prompt, active, both)),
        "–" if difference is None else _interval(difference),
        ", ".join("–" if way is None else _number(way.kept.mean) for way in (prompt, active)),
        "–" if active is None else " / ".join(_number(x, ".2f") for x in active.damage),
        ", ".join(_error(way) for way in (prompt, active)),
        _placebo(s, "random"),
        _placebo(s, "placebo"),
    ]


def _totals(summaries: Sequence[Summary], limit: float | int) -> str:
    found = counts(summaries)
    told = [
        f"Activation steering reaches further than the better prompting for {found['wider']} of "
        f"{found['values']} values ({found['surely']} with an interval above 0), within a damage "
        f"of {limit:g} on these prompts for {found['wider_kept']}."
    ]
    named = [s for s in summaries if s.prompting]
    for way, name in (("activation", "activation steering"), ("", "prompting")):
        errors = [s.ways[way or s.prompting].error for s in named]
        known = [error for error in errors if math.isfinite(error)]
        if known:
            mean = float(np.mean(known))
            told.append(f"Mean error of {name}: {mean:.2f} ({len(known)} values).")
    return " ".join(told)


def _range(way: Reached | None) -> str:
    if way is None or not math.isfinite(way.range.mean):
        return "–"
    half = (way.range.high - way.range.low) / 2
    return f"{way.range.mean:.1f} ± {_number(half)}"


def _error(way: Reached | None) -> str:
    if way is None or not math.isfinite(way.error):
        return "–"
    return f"{way.error:.2f} ({sum(asked['status'] == 'ok' for asked in way.targets)})"


def _placebo(s: Summary, kind: str) -> str:
    sizes = [abs(found.mean) for name, found in s.placebos.items() if name.startswith(kind)]
    return _number(float(np.mean(sizes))) if sizes else "–"


def _interval(found: Estimate) -> str:
    return (
        f"{_number(found.mean, '+.1f')} [{_number(found.low, '+.1f')}, "
        f"{_number(found.high, '+.1f')}]"
    )


def _number(x: float, form: str = ".1f") -> str:
    return format(x, form) if math.isfinite(x) else "–"
