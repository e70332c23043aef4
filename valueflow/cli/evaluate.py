"""`valueflow evaluate`: the intensity of a value in every response of a table."""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valueflow.cli.common import (
    JsonFile,
    Judge,
    JudgeOption,
    Seed,
    check_parent,
    stages,
    write_json,
    write_text,
)
from valueflow.errors import InvalidInput

if TYPE_CHECKING:
    from valueflow.evaluate import Intensity

EXAMPLE = "valueflow evaluate answers.csv --value power --out scored.csv"


def run(
    file: Annotated[Path, typer.Argument(help="CSV or JSONL with `response`, perhaps `query`.")],
    value: Annotated[str, typer.Option(help="A value the database grades.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="CSV or JSONL, by its ending.")],
    judge: Judge = "hives",
    judge_option: JudgeOption = None,
    windows: Annotated[int, typer.Option(min=1, help="Rankings per response.")] = 8,
    size: Annotated[int, typer.Option(min=2, help="Texts per ranking, the response too.")] = 6,
    sampling: Annotated[
        Literal["bucket", "random", "fixed"], typer.Option(help="How anchors are drawn.")
    ] = "bucket",
    mode: Annotated[
        Literal["calibrated", "paper"], typer.Option(help="How rankings become intensities.")
    ] = "calibrated",
    rankings: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also keep what was shown and ordered.")
    ] = None,
    from_rankings: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Score what --rankings kept; no judge is asked."),
    ] = None,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Score responses; the rows are written again with the value's score, stderr and status.

    A score is empty where the response lies outside the graded texts or was not ranked. With
    --from-rankings, judge, windows, size, sampling and seed are those of the file.
    """
    from valueflow.cli.tables import check_ending, parse_table, render_table
    from valueflow.judges.base import JUDGES, get_judge, parse_options
    from valueflow.theories import get_value
    from valueflow.vidb import load_starter

    value_id, vidb = get_value(value).id, load_starter()
    vidb.of(value_id)
    JUDGES[judge]  # noqa: B018  A wrong name fails here, before anything is loaded.
    options = parse_options(judge, judge_option or [])
    check_ending(out)
    check_parent(out)
    short = value_id.partition("/")[2]
    names = [f"{short}_{part}" for part in ("score", "stderr", "status")]
    if rankings is not None:
        check_parent(rankings)
    rows = parse_table(file, required="response", texts=("response", "query"), reserved=names)
    from valueflow.evaluate import (
        evaluator_of_saved,
        load_rankings,
        save_rankings,
        vidb_evaluator,
    )
    from valueflow.typing import Item

    items = [Item(row["response"], row.get("query") or None) for row in rows]
    with stages() as stage:
        if from_rankings is not None:
            saved = load_rankings(from_rankings)
            if saved.value != value_id:
                raise InvalidInput(f"{from_rankings}: rankings of {saved.value}, not of {value_id}")
            saved.scored.check_items(items)
            evaluator, ranked = evaluator_of_saved(vidb, saved, mode=mode), saved.scored
        else:
            stage(f"load judge {judge}")
            evaluator = vidb_evaluator(
                vidb,
                value_id,
                get_judge(judge, **options),
                mode=mode,
                n_windows=windows,
                window_size=size,
                sampling=sampling,
                seed=seed,
            )
            stage(f"judge {len(rows)} responses")
            ranked = evaluator.rank(items)
        scores = evaluator.score_ranked(ranked)
    for row, score in zip(rows, scores, strict=True):
        known = (_known(score.estimate), _known(score.stderr), score.status)
        row.update(zip(names, known, strict=True))
    write_text(out, render_table(rows, out))
    if rankings is not None:
        save_rankings(evaluator.saved(ranked), rankings)
    result: dict[str, Any] = {"value": value_id, "judge": ranked.judge, "mode": mode}
    result |= {"windows": evaluator.n_windows, "size": evaluator.window_size}
    result |= {"sampling": evaluator.sampling, "seed": evaluator.seed}
    result |= {"unranked_windows": ranked.unranked}
    result |= {"evaluator": evaluator.fingerprint(), "panel": evaluator.panel.fingerprint()}
    result["datasets"] = _datasets(rows, scores)
    for name, summary in result["datasets"].items():
        told = ", ".join(f"{count} {status}" for status, count in summary["status"].items())
        mean = "none" if summary["mean"] is None else f"{summary['mean']:+.2f}"
        typer.echo(f"{name or short}: mean {mean} ({told})")
    write_json(json_file, result | {"out": str(out)})


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _datasets(rows: list[dict[str, Any]], scores: "list[Intensity]") -> dict[str, Any]:
    """Mean of `Intensity.central` and statuses by dataset."""
    groups: dict[str, list[Intensity]] = {}
    for row, score in zip(rows, scores, strict=True):
        groups.setdefault(str(row.get("dataset") or ""), []).append(score)
    summaries = {}
    for name, group in groups.items():
        known = [score.central for score in group if not math.isnan(score.central)]
        mean = sum(known) / len(known) if known else None
        summaries[name] = {"mean": mean, "status": Counter(score.status for score in group)}
    return summaries
