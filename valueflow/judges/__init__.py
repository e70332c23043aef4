"""Judges: things that order windows of texts."""

from valueflow.judges.base import JUDGES, Judge, Unranked, Verdict, get_judge
from valueflow.judges.scripted import ScriptedJudge

__all__ = ["JUDGES", "Judge", "ScriptedJudge", "Unranked", "Verdict", "get_judge"]
