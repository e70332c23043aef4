"""`valueflow demo`: the whole loop for one value, with a report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import JsonFile, Seed, stages, write_json

if TYPE_CHECKING:
    from valueflow.study.runner import Loop

EXAMPLE = "valueflow demo --value power --out out/demo"


def run(
    value: Annotated[str, typer.Option(help="A value the database grades.")] = "power",
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Where report, results and card go.")
    ] = Path("out/demo"),
    model: Annotated[str, typer.Option(help="As in `derive`.")] = "smollm2-135m-instruct",
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Derive, calibrate against placebos, verify on new prompts, and write a report."""
    from valueflow.study.runner import run_demo

    with stages() as stage:
        loop, results = run_demo(value, out, model=model, seed=seed, stage=stage)
    _show(loop, results)
    typer.echo(f"report: {out / 'report.html'}")
    write_json(json_file, results)


def _show(loop: "Loop", results: dict[str, Any]) -> None:
    """The targets with what came of them, two prompts side by side, and how much to believe."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("target", "coefficient", "achieved", "95% interval", "damage", "status")
    for row in loop.verified:
        low, high = row.ci
        table.add_row(
            f"{row.target:+.0f}",
            f"{row.coefficient:+.3f}",
            f"{row.achieved:+.2f}",
            f"{low:+.2f} .. {high:+.2f}",
            f"{row.damage:+.2f}",
            row.status if row.status == "ok" else f"{row.status}, nearest {row.nearest:+.1f}",
        )
    console.print(table)
    for example in loop.examples():
        columns = [f"{a['target']:+.0f} ({a['status']})" for a in example["answers"]]
        answers = Table(*columns, title=example["prompt"], show_lines=True)
        # Text of a model is shown as it is, never read as markup.
        answers.add_row(*(_plain(a["text"]) for a in example["answers"]))
        console.print(answers)
    for line in _summary(loop, results):
        console.print(line, markup=False, highlight=False)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def _summary(loop: "Loop", results: dict[str, Any]) -> list[str]:
    from valueflow.dose.calibrate import mean_absolute_error, rank_correlation
    from valueflow.study.report import PLACEBOS

    calibration = loop.calibration
    curve, own = calibration.curve, calibration.arm
    kinds = {k: PLACEBOS.get(k, k) for k in calibration.placebos}
    sizes = [
        f"{name} ({len(calibration.placebos[k])}) mean size {calibration.placebo_change(k):.1f}"
        for k, name in kinds.items()
    ]
    ratios = [f"{name} {calibration.span_ratio(k):.1f}" for k, name in kinds.items()]
    low, high = curve.usable_range_
    inside = [i for i, c in enumerate(own.coefficients) if low <= c <= high]
    second = [] if own.second is None else [own.second[i] for i in inside]
    usable = [own.coefficients[i] for i in inside]
    return [
        f"{loop.value} on {results['model']}, layer {results['layer']}, "
        f"usable coefficients {low:+.3f} .. {high:+.3f}",
        f"span {curve.span_:+.2f} intensity points; Spearman {curve.spearman_:.2f}",
        "change over the usable range: "
        + "; ".join([f"vector {own.change(low, high):+.1f}", *sizes]),
        *(["size of the vector's change over theirs: " + "; ".join(ratios)] if ratios else []),
        "mean |target - achieved| over reachable targets: "
        f"{mean_absolute_error(loop.verified):.2f}",
        "a judge that never saw graded texts: Spearman with the coefficient "
        f"{rank_correlation(usable, second):.2f}, means " + " ".join(f"{x:+.1f}" for x in second),
        f"{loop.seconds:.0f} s",
    ]
