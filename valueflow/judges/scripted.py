"""A judge whose orders follow from known intensities: for tests and simulations."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from valueflow.errors import InvalidInput
from valueflow.judges.base import Unranked, Verdict
from valueflow.ranking.simulate import simulate_rankings
from valueflow.theories import Value
from valueflow.typing import Item, Window


class ScriptedJudge:
    """Orders by a known intensity per text, with Plackett-Luce noise if asked.

    Args:
        intensities: text -> intensity, as a mapping or a function of the item.
        sharpness: beta in utility = beta * intensity; None orders without error.
        failure_rate: share of windows it declares unranked.
        seed: of noise and failures; every call draws anew.
    """

    name = "scripted"

    def __init__(
        self,
        intensities: Mapping[str, float] | Callable[[Item], float],
        *,
        sharpness: float | None = None,
        failure_rate: float = 0.0,
        seed: int,
    ) -> None:
        self.intensities = intensities
        self.sharpness = sharpness
        self.failure_rate = failure_rate
        self.seed = seed
        self._rng = np.random.default_rng(seed)

    def fingerprint(self) -> str:
        """Hash of sharpness, failure rate, seed and, where they are a mapping, the intensities."""
        known = sorted(self.intensities.items()) if isinstance(self.intensities, Mapping) else ()
        state = repr((known, self.sharpness, self.failure_rate, self.seed))
        return hashlib.sha256(state.encode()).hexdigest()[:16]

    def rank(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:  # noqa: ARG002
        """One verdict per window; an unknown text raises InvalidInput."""
        return [self._rank(window) for window in windows]

    def _rank(self, window: Window) -> Verdict:
        if self._rng.random() < self.failure_rate:
            return Unranked("scripted failure")
        known = self._read(window)
        shown = range(len(window))
        if self.sharpness is None:
            return tuple(sorted(shown, key=lambda i: -known[i]))
        utilities = self.sharpness * np.array(known)
        return simulate_rankings(utilities, [tuple(shown)], rng=self._rng)[0]

    def _read(self, window: Window) -> list[float]:
        return [self._intensity(item) for item in window]

    def _intensity(self, item: Item) -> float:
        if not isinstance(self.intensities, Mapping):
            return self.intensities(item)
        if item.text not in self.intensities:
            raise InvalidInput(f"no scripted intensity for the text {item.text[:60]!r}")
        return self.intensities[item.text]
