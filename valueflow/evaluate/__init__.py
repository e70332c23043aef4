"""Texts in, intensities with errors out."""

from valueflow.evaluate.evaluator import AnchorEvaluator, Intensity, vidb_evaluator
from valueflow.evaluate.panel import Panel, load_panel, panel_from_vidb, save_panel
from valueflow.evaluate.scale import IntensityScale

__all__ = [
    "AnchorEvaluator",
    "Intensity",
    "IntensityScale",
    "Panel",
    "load_panel",
    "panel_from_vidb",
    "save_panel",
    "vidb_evaluator",
]
