"""Evaluators whose anchors and graded texts are the database's."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import SETTINGS, AnchorEvaluator, Mode
from valueflow.evaluate.panel import Sampling, panel_from_vidb
from valueflow.evaluate.rankings import RankedTexts, RecordedJudge, SavedRankings
from valueflow.judges.base import Judge
from valueflow.vidb.schema import ANSWERING

if TYPE_CHECKING:
    from valueflow.vidb import Vidb


def vidb_evaluator(
    vidb: "Vidb",
    value: str,
    judge: Judge,
    *,
    mode: Mode = "calibrated",
    n_windows: int = 8,
    window_size: int = 6,
    sampling: Sampling = "bucket",
    registers: Collection[str] | None = ANSWERING,
    graded: RankedTexts | None = None,
    seed: int,
) -> AnchorEvaluator:
    """The evaluator of a value: anchors from VIDB's test split, scale from its validation split.

    Neither split teaches a vector or a judge. Only answers to questions are anchors, as answers
    are what is scored: judges are sharper among texts of one kind. Pass `registers=None` for a
    database that has no answers. With `graded`, the validation texts' rankings as saved, the judge
    is not asked.

    Raises:
        StaleArtifact: `graded` is of other texts, or among other anchors.
    """
    panel = panel_from_vidb(vidb, value, "test", registers=registers)
    panel.check_coverage()
    evaluator = AnchorEvaluator(
        judge,
        panel,
        n_windows=n_windows,
        window_size=window_size,
        sampling=sampling,
        mode=mode,
        seed=seed,
    )
    if mode == "paper":
        return evaluator
    known = panel_from_vidb(vidb, value, "validation", registers=registers)
    grades, stderrs = known.intensities.tolist(), known.stderrs
    if graded is None:
        return evaluator.fit(known.items, grades, stderrs=stderrs)
    graded.check_items(known.items)
    return evaluator.fit_ranked(graded, grades, stderrs=stderrs)


def evaluator_of_saved(
    vidb: "Vidb",
    saved: SavedRankings,
    *,
    mode: Mode | None = None,
    registers: Collection[str] | None = ANSWERING,
) -> AnchorEvaluator:
    """The evaluator that ranked, without its judge; `score_ranked(saved.scored)` scores again.

    Args:
        vidb: the database with the anchors and the graded texts.
        saved: what `load_rankings` gave.
        mode: None for the one the texts were scored in; "paper" always can be had.
        registers: as `vidb_evaluator`.

    Raises:
        InvalidInput: a setting that is none, or mode "calibrated" where the file holds no graded
            texts.
        StaleArtifact: the database has other anchors or graded texts now.
    """
    settings: dict[str, Any] = dict(saved.settings)
    if mode is not None:
        settings["mode"] = mode
    if set(settings) != set(SETTINGS):
        raise InvalidInput(f"expected the settings {SETTINGS}, the rankings have {set(settings)}")
    if settings["mode"] == "calibrated" and saved.graded is None:
        raise InvalidInput("rankings saved in mode 'paper' hold no graded texts; use that mode")
    found = vidb_evaluator(
        vidb,
        saved.value,
        RecordedJudge(saved.scored),
        registers=registers,
        graded=saved.graded,
        **settings,
    )
    saved.scored.check_panel(found.panel)
    return found
