"""Texts in, intensities with errors out."""

from valueflow.evaluate.evaluator import AnchorEvaluator, Intensity, vidb_evaluator
from valueflow.evaluate.panel import Panel, panel_from_vidb
from valueflow.evaluate.scale import IntensityScale

__all__ = [
    "AnchorEvaluator",
    "Intensity",
    "IntensityScale",
    "Panel",
    "panel_from_vidb",
    "vidb_evaluator",
]
