"""The value intensity database: graded texts, the rankings they were graded by, and the builder."""

from valueflow.vidb.build import build
from valueflow.vidb.schema import Ladder, RankingRecord, read_ladders, read_rankings, split_of
from valueflow.vidb.store import Vidb, load_starter, load_vidb

__all__ = [
    "Ladder",
    "RankingRecord",
    "Vidb",
    "build",
    "load_starter",
    "load_vidb",
    "read_ladders",
    "read_rankings",
    "split_of",
]
