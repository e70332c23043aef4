"""What a release holds, as a page: one row per card."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valueflow.artifacts import write_file
from valueflow.dose.steerer import Card
from valueflow.models.chat import template_hash

HEAD = """# Released steering vectors

Per model and value a steering vector with its calibration: `valueflow steer MODEL --set
VALUE=INTENSITY --prompt TEXT` uses it at once, `valueflow release check MODEL --value VALUE`
measures it again. `vector/` holds the directions (safetensors) and what they were made from,
`card/` the dose curve and how it was measured (JSON). A checkout finds them here; an installed
package looks in the folder that the variable VALUEFLOW_VECTORS names.

- intensities: what can be reached with damage up to the limit, on the scale from -10 to 10;
  beyond 10 lies what ranks above the strongest graded texts, and is extrapolated
- slope: intensity points per 0.1 of coefficient, over the usable range
- error: mean |target - achieved| over the reachable targets, on prompts not calibrated on
- damage: rise of the loss per token under the unsteered model at the two ends, nats
- change: by the vector, over the usable range: on the straight line through the measured points, so
  that it differs from the width of `intensities`, which are read off the dose curve
- random: the mean size of that change by random directions
- shuffled: that change by each label-shuffled vector, and its cosine with the value's own: made of
  the same texts and brought to the same length, it holds some of the value's direction by chance
- layer: 0 is the output of block 0
"""
WITHOUT_TEMPLATE = template_hash(None)
"""What a card's model has under "chat_template" if its tokenizer has no chat format."""
COLUMNS = (
    "value",
    "layer",
    "coefficients",
    "intensities",
    "slope",
    "error",
    "targets",
    "damage",
    "change",
    "random",
    "shuffled",
)


def release_rows(cards: Sequence[Card]) -> list[dict[str, str]]:
    """The table's cells, a row per card."""
    return [_row(card) for card in cards]


def release_page(cards: Mapping[str, Sequence[Card]]) -> str:
    """Markdown: what the columns mean, then per model a table of the cards made in one way.

    Most models have one such table; cards of another judge, seed or format have one of their own.
    """
    parts = [HEAD]
    for model, own in sorted(cards.items()):
        parts.append(f"\n## {model}\n")
        groups: dict[str, list[Card]] = {}
        for card in own:
            groups.setdefault(_provenance(card), []).append(card)
        parts += [f"\n{how}\n\n{_table(group)}\n" for how, group in groups.items()]
    return "".join(parts)


def write_release_page(cards: Mapping[str, Sequence[Card]], path: str | Path) -> None:
    """Write `release_page`; the file appears whole or not at all."""
    write_file(Path(path), release_page(cards).encode())


def _table(cards: Sequence[Card]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row[c] for c in COLUMNS) + " |" for row in release_rows(cards)]
    return "\n".join(lines)


def _provenance(card: Card) -> str:
    own = card.provenance
    plan = own.get("plan") or {}
    return (
        f"Judge {own['judge']} ({own.get('judge_fingerprint', '?')}), "
        f"{len(own['prompts'])} calibration and {plan.get('n_verification', '?')} verification "
        f"prompts (format {_format(card)}), {card.decoding.max_new_tokens} tokens, "
        f"seed {own['seed']}, model {own['model']['model']}."
    )


def _format(card: Card) -> str:
    """What "auto" stood for, which the hash of the model's chat template tells if it was kept."""
    known = card.provenance["model"].get("chat_template")
    if card.decoding.template != "auto" or known is None:
        return card.decoding.template
    return "plain" if known == WITHOUT_TEMPLATE else "chat"


def _row(card: Card) -> dict[str, str]:
    curve, found = card.curve, card.measured
    low, high = curve.usable_range_
    ends = sorted(float(x) for x in np.asarray(curve.predict(curve.usable_range_)))
    slope = curve.span_ / (high - low) / 10 if high > low else math.nan
    placebos = found.get("placebos", {})
    reached = [row for row in found.get("verified", []) if row["status"] == "ok"]
    damage = found.get("arm")
    at_ends = ["–", "–"]
    if damage is not None:
        at_ends = [
            f"{np.interp(end, damage['coefficients'], _numbers(damage['damage'])):.2f}"
            for end in (low, high)
        ]
    return {
        "value": card.value,
        "layer": ", ".join(map(str, card.vector.layers)),
        "coefficients": _range(low, high),
        "intensities": f"{ends[0]:+.1f} to {ends[1]:+.1f}",
        "slope": _number(slope),
        "error": _number(found.get("error")),
        "targets": str(len(reached)),
        "damage": " / ".join(at_ends),
        "change": _number(found.get("change")),
        "random": _number(placebos.get("random", {}).get("change")),
        "shuffled": _shuffled(placebos.get("shuffled", {})),
    }


def _range(low: float, high: float) -> str:
    """Of coefficients, with a digit more where two would round much of the range away."""
    digits = 3 if max(abs(low), abs(high)) < 0.1 else 2
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def _shuffled(found: Mapping[str, Any]) -> str:
    if "cosines" not in found:
        return _number(found.get("change"))
    pairs = zip(found["changes"], found["cosines"], strict=True)
    return ", ".join(f"{_number(change)} ({cosine:+.2f})" for change, cosine in pairs) or "–"


def _numbers(row: Sequence[Any]) -> list[float]:
    return [math.nan if x is None else float(x) for x in row]


def _number(x: float | int | None) -> str:
    return "–" if x is None or not math.isfinite(x) else f"{x:.2f}"
