"""`valueflow derive`: a steering vector from the graded texts of a value."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valueflow.cli.common import (
    JsonFile,
    Model,
    OutFolder,
    Seed,
    check_free,
    load_model,
    stages,
    write_json,
)

if TYPE_CHECKING:
    from valueflow.steering import SteeringVector

EXAMPLE = "valueflow derive smollm2-135m-instruct power --out out/power"


def run(
    model: Model,
    value: Annotated[str, typer.Argument(help="A value the database grades.")],
    out: OutFolder,
    layer: Annotated[str, typer.Option(help="auto, or a number; 0 is the first block.")] = "auto",
    estimator: Annotated[str, typer.Option(help="mean_difference, pca, lda, logistic, ...")] = (
        "mean_difference"
    ),
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Derive the steering vector of a value and save it to a folder."""
    wanted = _layer(layer)
    check_free(out)
    from valueflow.dose.prompts import load_prompts
    from valueflow.steering.derivation import derive
    from valueflow.steering.directions import ESTIMATORS
    from valueflow.steering.store import save_vector
    from valueflow.study.runner import CALIBRATION_PROMPTS
    from valueflow.vidb import load_starter

    vidb = load_starter()
    vidb.of(value)
    ESTIMATORS[estimator]  # noqa: B018  A wrong name fails here, before the model is loaded.
    with stages() as stage:
        stage("load")
        loaded = load_model(model)
        vector = derive(
            loaded,
            vidb,
            value,
            estimator=estimator,
            layer=wanted,
            seed=seed,
            prompts=load_prompts("calibration")[:CALIBRATION_PROMPTS],
            progress=stage("derive"),
        )
    save_vector(vector, out)
    result = _result(vector)
    for number in vector.layers:
        score = result["layer_scores"].get(str(number))
        quality = f", effect size {score['effect_size']:.2f} on held-out ladders" if score else ""
        typer.echo(f"{vector.value}: layer {number} of {loaded.n_layers}{quality}; saved to {out}")
    write_json(json_file, result | {"out": str(out)})


def _layer(text: str) -> Literal["auto"] | int:
    from valueflow.errors import InvalidInput

    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise InvalidInput(f"--layer {text}: expected 'auto' or a number such as 12")
    return int(text)


def _result(vector: "SteeringVector") -> dict[str, Any]:
    return {"layers": vector.layers, "norms": vector.norms, **vector.provenance}
