"""What a comparison shows: ranges, errors, damage, asymmetry, and paired differences of ways.

All intervals are 95%, by resampling the prompts, and hold for these answers' prompts alone: the
scale's own error, which all ways share, is not in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow.dose.points import expanded_tail
from valueflow.study.bench import Cell
from valueflow.study.compare import Measurement
from valueflow.study.ways import Setting

RESAMPLES = 2000
LEVEL = 0.95
FEWEST_FOR_INTERVAL = 6
"""Prompts with a number below which there is no interval: resamples of so few hold the truth too
seldom. Simulated, the nominal 95% are 54% at 2 prompts, where the interval is the two values, 72%
at 3 and 87% at 4; they are 93% at 6 and 92% at 8."""
PROMPTING = ("levels", "texts")


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts.

    Attributes:
        mean: NaN if no prompt has a number.
        low: lower end of the 95% interval; NaN below `FEWEST_FOR_INTERVAL` prompts.
        high: upper end, NaN with the lower one.
        n: prompts with a number.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Reached:
    """What one way did.

    Attributes:
        lowest: intensity at the setting chosen for the low end.
        highest: at the one chosen for the high end.
        range: highest minus lowest, prompt by prompt.
        up: highest minus unsteered.
        down: unsteered minus lowest.
        asymmetry: |up| minus |down|: the means' sizes, with an interval of their difference.
        kept: range of those of the way's settings whose damage on the verification prompts stayed
            within the limit, unsteered among them; unlike `range` it is chosen by what it measures.
        damage: mean at the low and the high end, nats per token.
        within: whether both are within the limit.
        degenerate: share of empty or looping answers at the low and the high end.
        words: mean length of the answers at the low and the high end.
        expected: intensities at the ends on the calibration prompts.
        targets: per target "target", "status", "expected", "achieved", "damage", "degenerate".
        error: mean |target - achieved| over the targets between the calibrated ends; NaN if none.
        error_all: over all targets.
    """

    lowest: Estimate
    highest: Estimate
    range: Estimate
    up: Estimate
    down: Estimate
    asymmetry: Estimate
    kept: Estimate
    damage: tuple[float, float]
    within: bool
    degenerate: tuple[float, float]
    words: tuple[float, float]
    expected: tuple[float, float]
    targets: tuple[dict[str, Any], ...]
    error: float
    error_all: float


@dataclass(frozen=True)
class Summary:
    """One value.

    Attributes:
        value: id.
        unsteered: intensity without steering.
        ways: by way what it did.
        prompting: the way of prompting that spanned more on the calibration prompts.
        differences: paired differences of ranges, by "one - other".
        shared: per way the error over the targets that both activation steering and that way of
            prompting reach; "n" is how many there are.
        placebos: intensity of each placebo instruction minus unsteered; range of each random
            direction between the ends of the vector's, left out where the vector has no range.
    """

    value: str
    unsteered: Estimate
    ways: Mapping[str, Reached]
    prompting: str
    differences: Mapping[str, Estimate]
    shared: Mapping[str, float]
    placebos: Mapping[str, Estimate]


def estimate(values: Float[np.ndarray, " prompts"], *, seed: int) -> Estimate:
    """Mean over prompts with a bootstrap interval; NaN entries are left out.

    Below `FEWEST_FOR_INTERVAL` entries the interval is NaN.
    """
    own = values[np.isfinite(values)]
    n = len(own)
    if n < FEWEST_FOR_INTERVAL:
        return Estimate(float(own.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) @ own / n
    tail = expanded_tail(LEVEL, n)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(float(own.mean()), float(low), float(high), n)


def summarise(measurement: Measurement, *, seed: int) -> Summary:
    """All figures of one value, from its answers' intensities.

    Args:
        measurement: of `compare_value`, or read back.
        seed: of the bootstrap.
    """
    m = measurement
    ways = {way: _reached(m, way, seed) for way in m.plans}
    kinds = [kind for kind in PROMPTING if kind in ways]
    prompting = max(kinds, key=lambda kind: np.ptp(ways[kind].expected), default="")
    pairs = [("activation", kind) for kind in kinds] + [("both", "activation")]
    differences = {
        f"{one} - {other}": estimate(_range(m, one) - _range(m, other), seed=seed)
        for one, other in pairs
        if one in ways
    }
    placebos = {}
    for name, settings in m.controls.items():
        last, first = m.at(settings[-1]), m.at(settings[0]) if len(settings) > 1 else m.unsteered
        placebos[name] = estimate(last.intensities - first.intensities, seed=seed)
    return Summary(
        m.value,
        estimate(m.unsteered.intensities, seed=seed),
        ways,
        prompting,
        differences,
        _shared_error(ways, prompting),
        placebos,
    )


def _range(m: Measurement, way: str) -> Float[np.ndarray, " prompts"]:
    plan = m.plans[way]
    return m.at(plan.high.setting).intensities - m.at(plan.low.setting).intensities


def _reached(m: Measurement, way: str, seed: int) -> Reached:
    plan, zero = m.plans[way], m.unsteered.intensities
    ends = (m.at(plan.low.setting), m.at(plan.high.setting))
    low, high = (end.intensities for end in ends)
    up, down = high - zero, zero - low
    signs = [np.sign(x[np.isfinite(x)].mean()) if np.isfinite(x).any() else 1 for x in (up, down)]
    damage = _both(ends, lambda cell: _mean(cell.damage))
    targets = tuple(
        {
            "target": asked.target,
            "status": asked.status,
            "expected": asked.expected,
            "achieved": estimate(m.at(asked.setting).intensities, seed=seed),
            "damage": _mean(m.at(asked.setting).damage),
            "degenerate": float(m.at(asked.setting).degenerate.mean()),
        }
        for asked in plan.asked
    )
    return Reached(
        lowest=estimate(low, seed=seed),
        highest=estimate(high, seed=seed),
        range=estimate(high - low, seed=seed),
        up=estimate(up, seed=seed),
        down=estimate(down, seed=seed),
        asymmetry=estimate(signs[0] * up - signs[1] * down, seed=seed),
        kept=_kept(m, plan.settings, seed),
        damage=damage,
        within=max(damage) <= m.limit,
        degenerate=_both(ends, lambda cell: float(cell.degenerate.mean())),
        words=_both(ends, lambda cell: float(np.mean([len(t.split()) for t in cell.texts]))),
        expected=(plan.low.expected, plan.high.expected),
        targets=targets,
        error=_error([t for t in targets if t["status"] == "ok"]),
        error_all=_error(targets),
    )


def _kept(m: Measurement, settings: Sequence[Setting], seed: int) -> Estimate:
    cells = [m.unsteered, *map(m.at, settings)]
    inside = [c for c in cells if _mean(c.damage) <= m.limit and np.isfinite(c.intensities).any()]
    if not inside:
        return estimate(np.array([]), seed=seed)
    ordered = sorted(inside, key=lambda cell: _mean(cell.intensities))
    return estimate(ordered[-1].intensities - ordered[0].intensities, seed=seed)


def _shared_error(ways: Mapping[str, Reached], prompting: str) -> dict[str, float]:
    if "activation" not in ways or prompting not in ways:
        return {}
    compared = ("activation", prompting)
    reachable = [
        {t["target"] for t in ways[way].targets if t["status"] == "ok"} for way in compared
    ]
    both = set.intersection(*reachable)
    found = {w: _error([t for t in ways[w].targets if t["target"] in both]) for w in compared}
    return found | {"n": float(len(both))}


def _error(targets: Sequence[Mapping[str, Any]]) -> float:
    return _mean(np.array([abs(t["target"] - t["achieved"].mean) for t in targets], dtype=float))


def _mean(values: Float[np.ndarray, " n"]) -> float:
    own = values[np.isfinite(values)]
    return float(own.mean()) if len(own) else float("nan")


def _both(ends: tuple[Cell, Cell], of: Any) -> tuple[float, float]:
    return of(ends[0]), of(ends[1])
