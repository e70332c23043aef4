"""Judges: things that order windows of texts."""

from valueflow.judges.base import JUDGES, Judge, Rater, Unranked, Verdict, get_judge
from valueflow.judges.scripted import ScriptedJudge

__all__ = ["JUDGES", "Judge", "Rater", "ScriptedJudge", "Unranked", "Verdict", "get_judge"]
