"""Orders in, positions out: windows, Plackett-Luce, and rankings simulated from known truth."""

from valueflow.ranking.anchored import AnchoredFit, fit_one, fit_sharpness
from valueflow.ranking.plackett_luce import PlackettLuceFit, fit
from valueflow.ranking.simulate import simulate_rankings

__all__ = [
    "AnchoredFit",
    "PlackettLuceFit",
    "fit",
    "fit_one",
    "fit_sharpness",
    "simulate_rankings",
]
