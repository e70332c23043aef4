"""`valueflow calibrate`: what intensities the coefficients of a vector give."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import (
    JsonFile,
    Judge,
    Model,
    OutFolder,
    Seed,
    check_free,
    load_model,
    read_prompts,
    stages,
    whole_folder,
    write_json,
)

if TYPE_CHECKING:
    from valueflow.dose import Calibration
    from valueflow.dose.sweep import Decoding
    from valueflow.steering.vector import SteeringVector

DRAWS = 3

EXAMPLE = "valueflow calibrate smollm2-135m-instruct out/power --out out/card"


def run(
    model: Model,
    vector_dir: Annotated[
        Path,
        typer.Argument(help="A folder of a vector: by derive, vectors import, or sweep --search."),
    ],
    out: OutFolder,
    prompts: Annotated[
        Path | None, typer.Option(help="A file with one prompt a line; else those shipped.")
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(help="all, prompt, generated or last; else what `sweep --search` chose."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="auto, chat or plain; else what `sweep --search` used.")
    ] = None,
    judge: Judge = "hives",
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure a vector and random placebos, fit the dose curve and save the calibration card."""
    check_free(out)
    asked = None if prompts is None else read_prompts(prompts, at_least=2)
    from valueflow.dose.calibrate import calibrate
    from valueflow.dose.prompts import load_prompts
    from valueflow.dose.steerer import save_card
    from valueflow.evaluate import vidb_evaluator
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.steering.store import check_fits, load_vector
    from valueflow.steering.vector import random_like
    from valueflow.study.runner import CALIBRATION_PROMPTS
    from valueflow.vidb import load_starter

    vector, vidb = load_vector(vector_dir), load_starter()
    vidb.of(vector.value)
    decoding = _decoding(vector, positions, template)
    JUDGES[judge]  # noqa: B018  A wrong name fails here, before the model is loaded.
    with stages() as stage:
        stage("load")
        loaded = load_model(model)
        check_fits(vector, loaded)
        evaluator = vidb_evaluator(vidb, vector.value, get_judge(judge), seed=seed)
        calibration = calibrate(
            loaded,
            vector,
            evaluator,
            prompts=asked or load_prompts("calibration")[:CALIBRATION_PROMPTS],
            decoding=decoding,
            placebos={"random": [random_like(vector, seed=seed + i) for i in range(DRAWS)]},
            seed=seed,
            stage=stage,
        )
    with whole_folder(out) as folder:
        save_card(calibration, folder)
    result = _result(calibration)
    low, high = result["reachable"]
    ratio = f"{result['span_ratio']:.1f} times the mean change of {DRAWS} random directions"
    typer.echo(f"{vector.value}: {low:+.2f} to {high:+.2f} reachable, {ratio}; saved to {out}")
    write_json(json_file, result | {"out": str(out)})


def _decoding(vector: "SteeringVector", positions: str | None, template: str | None) -> "Decoding":
    """The settings asked for, then those that the search of this vector chose, then the usual."""
    from valueflow.backends.base import POSITIONS
    from valueflow.dose.sweep import Decoding
    from valueflow.errors import InvalidInput

    chosen = dict(vector.provenance.get("search", {}).get("decoding", {}))
    chosen |= {k: v for k, v in (("positions", positions), ("template", template)) if v is not None}
    for name, known in (("positions", POSITIONS), ("template", ("auto", "chat", "plain"))):
        if chosen.get(name, known[0]) not in known:
            raise InvalidInput(f"--{name} {chosen[name]}: expected {', '.join(known)}")
    return Decoding(**chosen)


def _result(calibration: "Calibration") -> dict[str, Any]:
    curve, own = calibration.curve, calibration.arm
    ends = [float(curve.predict(end)) for end in curve.usable_range_]
    return {
        "value": calibration.vector.value,
        "coefficients": own.coefficients,
        "intensities": own.means,
        "damage": own.damage.mean(axis=1),
        "usable_range": curve.usable_range_,
        "reachable": sorted(ends),
        "placebo_change": calibration.placebo_change("random"),
        "span_ratio": calibration.span_ratio("random"),
        "provenance": calibration.provenance,
    }
