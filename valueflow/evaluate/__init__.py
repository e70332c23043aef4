"""Texts in, intensities with errors out."""

from valueflow.evaluate.evaluator import AnchorEvaluator, evaluator_of_saved, vidb_evaluator
from valueflow.evaluate.intensity import Intensity
from valueflow.evaluate.panel import Panel, load_panel, panel_from_vidb, save_panel
from valueflow.evaluate.rankings import RankedTexts, SavedRankings, load_rankings, save_rankings
from valueflow.evaluate.scale import IntensityScale

__all__ = [
    "AnchorEvaluator",
    "Intensity",
    "IntensityScale",
    "Panel",
    "RankedTexts",
    "SavedRankings",
    "evaluator_of_saved",
    "load_panel",
    "load_rankings",
    "panel_from_vidb",
    "save_panel",
    "save_rankings",
    "vidb_evaluator",
]
