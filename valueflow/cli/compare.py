"""`valueflow compare`: instructions and activation steering, measured alike."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import Judge, Model, Seed, check_parent, load_model, stages

if TYPE_CHECKING:
    from valueflow.study.compare_summary import Estimate, Summary

EXAMPLE = "valueflow compare smollm2-135m-instruct --value power --value face --out out/compare"

COLUMNS = ("value", "way", "lowest", "highest", "range", "up, down", "damage", "broken", "error")
WIDE = 150

NAMES = {"activation": "activation", "levels": "prompt, levels", "texts": "prompt, texts"}


def run(
    model: Model,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of results; a stopped run goes on there.")
    ],
    value: Annotated[
        list[str] | None, typer.Option(help="Repeatable; without it the values of the cards.")
    ] = None,
    card: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that `calibrate` wrote; other values are calibrated anew."),
    ] = None,
    n_prompts: Annotated[int, typer.Option(help="Verification prompts.")] = 40,
    n_calibration: Annotated[
        int, typer.Option(help="Calibration prompts of values without a card.")
    ] = 32,
    tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, of values without a card.")
    ] = 48,
    judge: Judge = "hives",
    seed: Seed = 0,
) -> None:
    """Measure the range, error and damage of prompting, of activation steering and of both.

    Instructions are chosen on the prompts that the vector was calibrated on; all figures are of
    other prompts. Writes comparison.json, .md (a table) and .png, and each value's answers, to
    --out.
    """
    from valueflow.errors import InvalidInput
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.study.compare_page import write_compare_page
    from valueflow.study.compare_run import (
        cards_by_value,
        comparison,
        run_comparison,
        summaries_of,
        write_comparison,
    )
    from valueflow.vidb import load_starter

    check_parent(out / "values")
    vidb, cards = load_starter(), cards_by_value(card or [])
    wanted = value or list(cards)
    if not wanted:
        raise InvalidInput("nothing to compare: give --value NAME or --card FOLDER")
    for name in wanted:
        vidb.of(name)
    how = comparison(
        n_prompts=n_prompts,
        n_calibration=n_calibration,
        max_new_tokens=tokens,
        judge=judge,
        seed=seed,
    )
    JUDGES[judge]  # noqa: B018  A wrong name fails here, before the model is loaded.
    with stages() as stage:
        stage("load")
        measured, failed = run_comparison(
            load_model(model),
            wanted,
            out,
            how,
            vidb=vidb,
            judge=get_judge(judge),
            cards=cards,
            stage=stage,
            tell=lambda line: typer.echo(line, err=True),
        )
    if not measured:
        raise InvalidInput("; ".join(f"{name}: {why}" for name, why in failed.items()))
    summaries = summaries_of(measured, how)
    result = write_comparison(out, summaries, failed, how)
    limit = next(iter(measured.values())).limit
    write_compare_page(list(summaries.values()), out / "comparison.md", limit=limit)
    _draw(out, summaries, limit)
    _show(list(summaries.values()), result, out)


def _draw(out: Path, summaries: "Mapping[str, Summary]", limit: float) -> None:
    from valueflow.artifacts import write_file
    from valueflow.study._image import image_bytes
    from valueflow.study.compare_plot import compare_figure

    figure = compare_figure(list(summaries.values()), limit=limit)
    write_file(out / "comparison.png", image_bytes(figure))


def _show(summaries: "list[Summary]", result: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    # A file has no width: the 80 columns taken for it would break every cell.
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    table = Table(*COLUMNS)
    for summary in summaries:
        for way, own in summary.ways.items():
            table.add_row(
                summary.value if way == "activation" else "",
                NAMES.get(way, way),
                _interval(own.lowest),
                _interval(own.highest),
                _interval(own.range),
                f"{own.up.mean:+.1f}, {own.down.mean:+.1f}",
                "{:.2f}, {:.2f}".format(*own.damage),
                "{:.0%}, {:.0%}".format(*own.degenerate),
                f"{own.error:.2f}",
                end_section=way == "both",
            )
    console.print(table)
    for line in _lines(summaries, result, out):
        console.print(line, markup=False, highlight=False)


def _lines(summaries: "list[Summary]", result: dict[str, Any], out: Path) -> list[str]:
    lines = []
    for s in summaries:
        pairs = "; ".join(f"{name} {_interval(found)}" for name, found in s.differences.items())
        placebos = "; ".join(f"{name} {_interval(found)}" for name, found in s.placebos.items())
        lines += [
            f"{s.value}: unsteered {_interval(s.unsteered)}; ranges, {pairs}",
            f"  placebos: {placebos or '–'}",
        ]
    counts = result["counts"]
    lines += [f"{name}: {why}" for name, why in result["failed"].items()]
    lines.append(
        f"activation steering reaches further than the better prompting for {counts['wider']} of "
        f"{counts['values']} values ({counts['surely']} surely, {counts['narrower']} surely less); "
        f"within the damage limit on these prompts for {counts['wider_kept']}"
    )
    return [*lines, f"written to {out}"]


def _interval(found: "Estimate") -> str:
    if math.isnan(found.low):
        return f"{found.mean:+.1f} (too few prompts for an interval)"
    return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
