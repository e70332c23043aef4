"""`valueflow demo`: the whole loop for one value, with a report."""

from pathlib import Path
from typing import Annotated

import typer

from valueflow.cli.common import JsonFile, Seed, stages, write_json

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
        _, results = run_demo(value, out, model=model, seed=seed, stage=stage)
    typer.echo(f"report: {out / 'report.html'}")
    write_json(json_file, results)
