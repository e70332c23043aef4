"""Texts in, intensities with errors out."""

from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.from_vidb import evaluator_of_saved, vidb_evaluator
from valueflow.evaluate.intensity import Intensity
from valueflow.evaluate.panel import Panel, load_panel, panel_from_vidb, save_panel
from valueflow.evaluate.rankings import RankedTexts, SavedRankings, load_rankings, save_rankings
from valueflow.evaluate.reliability import Reliability, measure_reliability
from valueflow.evaluate.scale import IntensityScale
from valueflow.evaluate.variance import VarianceComponents, mean_stderr, measure_components

__all__ = [
    "AnchorEvaluator",
    "Intensity",
    "IntensityScale",
    "Panel",
    "RankedTexts",
    "Reliability",
    "SavedRankings",
    "VarianceComponents",
    "evaluator_of_saved",
    "load_panel",
    "load_rankings",
    "mean_stderr",
    "measure_components",
    "panel_from_vidb",
    "measure_reliability",
    "save_panel",
    "save_rankings",
    "vidb_evaluator",
]
