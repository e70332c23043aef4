"""`valueflow sweep`: what steering does at each layer, and where it does most."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import (
    JsonFile,
    Judge,
    Model,
    OutFolder,
    Seed,
    Template,
    check_free,
    checked_template,
    load_model,
    refuse_given,
    stages,
    whole_folder,
    write_json,
)

if TYPE_CHECKING:
    from valueflow.dose.search import Search
    from valueflow.models.loading import LoadedModel
    from valueflow.steering.vector import SteeringVector
    from valueflow.study.layer_sweep import LayerSweep

EXAMPLE = "valueflow sweep smollm2-135m-instruct --value power --layers 8,12,16 --out out/layers"

SINGLES = 8
"""About so many single layers, and as many windows, are searched."""

COEFFICIENTS, PROMPTS, PLACEBOS = "-0.4,-0.2,-0.1,0.1,0.2,0.4", 8, 3
"""Of a sweep, where none are given."""


def run(
    model: Model,
    value: Annotated[str, typer.Option(help="A value the database grades.")],
    out: OutFolder,
    layers: Annotated[
        str, typer.Option(help="middle (the middle half), all, or numbers: 8,12,16.")
    ] = "middle",
    coefficients: Annotated[
        str | None,
        typer.Option(
            help="Distinct ones on both sides of 0, such as -0.3,0.3; else "
            f"{COEFFICIENTS}. Not with --search."
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=2, max=24, help=f"How many; else {PROMPTS}. Not with --search."),
    ] = None,
    placebos: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Layers to measure a random direction at; else {PLACEBOS}. Not with --search.",
        ),
    ] = None,
    template: Template = "auto",
    search: Annotated[
        bool, typer.Option("--search", help="Choose layers and positions by halving instead.")
    ] = False,
    judge: Judge = "hives",
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure a value's vector layer by layer and draw the heat map, or search where to steer.

    A search takes all 24 search prompts and its own coefficients, and saves the chosen vector
    in OUT/vector, for `calibrate`.
    """
    if search:
        refuse_given(
            "of a sweep, and a search chooses its own",
            "--search",
            coefficients=coefficients,
            prompts=prompts,
            placebos=placebos,
        )
    check_free(out)
    from valueflow.dose.prompts import load_prompts
    from valueflow.dose.sweep import Decoding
    from valueflow.evaluate import vidb_evaluator
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.study.layer_sweep import check_coefficients, layer_sweep, vectors_at
    from valueflow.study.runner import CALIBRATION_PROMPTS
    from valueflow.vidb import load_starter

    doses = check_coefficients(_numbers(COEFFICIENTS if coefficients is None else coefficients))
    vidb, asked = load_starter(), load_prompts("search")
    vidb.of(value)
    JUDGES[judge]  # noqa: B018  A wrong name fails here, before the model is loaded.
    decoding, chosen = Decoding(template=checked_template(template)), _layers(layers)
    with stages() as stage:
        stage("load")
        loaded = load_model(model)
        wanted = chosen(loaded.n_layers)
        evaluator = vidb_evaluator(vidb, value, get_judge(judge), seed=seed)
        stage("derive")
        vector = vectors_at(
            loaded,
            vidb,
            value,
            wanted,
            prompts=load_prompts("calibration")[:CALIBRATION_PROMPTS],
            template=decoding.template,
            seed=seed,
        )["mean_difference"]
        if search:
            result = _search(loaded, vector, evaluator, asked, decoding, out, seed, stage)
        else:
            found = layer_sweep(
                loaded,
                vector,
                evaluator,
                prompts=asked[: prompts or PROMPTS],
                coefficients=doses,
                placebo_layers=_spread(wanted, PLACEBOS if placebos is None else placebos),
                decoding=decoding,
                seed=seed,
                stage=stage,
            )
            result = _save_sweep(found, out)
    write_json(json_file, result)


def _search(
    loaded: "LoadedModel",
    vector: "SteeringVector",
    evaluator: Any,
    prompts: list[str],
    decoding: Any,
    out: Path,
    seed: int,
    stage: Any,
) -> dict[str, Any]:
    from valueflow.dose.candidates import candidates, layer_sets
    from valueflow.dose.search import plan, planned_rows, search
    from valueflow.steering.store import save_vector
    from valueflow.study.layer_sweep import search_results, searched_vector

    given = candidates(
        layer_sets(vector.layers, stride=max(1, round(len(vector.layers) / SINGLES)))
    )
    sizes = plan(len(given), len(prompts))
    typer.echo(
        f"{len(given)} candidates, {planned_rows(sizes)} answers in {len(sizes)} rungs", err=True
    )
    found = search(
        loaded,
        {"mean_difference": vector},
        given,
        evaluator,
        prompts=prompts,
        decoding=decoding,
        seed=seed,
        stage=stage,
    )
    result = search_results(found)
    with whole_folder(out) as folder:
        save_vector(searched_vector(found), folder / "vector")
        write_json(folder / "search.json", result)
    for line in _finalists(found):
        typer.echo(line)
    typer.echo(f"vector and search.json saved to {out}")
    return result


def _finalists(found: "Search") -> list[str]:
    lines = []
    for tried in found.rungs[-1].tried:
        mark = "chosen" if tried.kept else ""
        lines.append(
            f"{tried.candidate.name:45} {tried.effect.change:+6.2f} +- {tried.stderr:.2f} within "
            f"{tried.effect.coefficient:.3f}, best in {tried.best:.0%}  {mark}".rstrip()
        )
    lead, error = found.lead
    lines.append(f"lead over the best other finalist: {lead:+.2f} +- {error:.2f}")
    return lines


def _save_sweep(found: "LayerSweep", out: Path) -> dict[str, Any]:
    from valueflow.study._image import image_bytes
    from valueflow.study.layer_plot import layer_figure
    from valueflow.study.layer_sweep import sweep_results

    result = sweep_results(found)
    with whole_folder(out) as folder:
        (folder / "layers.png").write_bytes(image_bytes(layer_figure(found)))
        write_json(folder / "layers.json", result)
    best = found.best()
    if best is None:
        typer.echo(f"{found.value}: no text was ranked; see {out}")
    else:
        effect = found.effects[best]
        typer.echo(
            f"{found.value}: layer {best} changes most within the limits, {effect.change:+.2f} "
            f"between coefficients {-effect.coefficient:.3f} and {effect.coefficient:+.3f}; "
            f"heat map in {out / 'layers.png'}"
        )
    return result


def _layers(text: str) -> Callable[[int], list[int]]:
    """Number of layers -> those to sweep; what is no choice of layers fails here."""
    from valueflow.backends.base import check_layers
    from valueflow.errors import InvalidInput
    from valueflow.steering.directions import middle_layers

    if text == "middle":
        return middle_layers
    if text == "all":
        return lambda n_layers: list(range(n_layers))
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in numbers):
        raise InvalidInput(f"--layers {text}: expected middle, all, or numbers such as 8,12,16")
    return lambda n_layers: check_layers(map(int, numbers), n_layers)


def _numbers(text: str) -> list[float]:
    from valueflow.errors import InvalidInput

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(f"--coefficients {text}: expected numbers such as -0.3,0.3") from None


def _spread(layers: list[int], count: int) -> list[int]:
    """So many of the layers, evenly spread, the first and last not preferred."""
    count = min(count, len(layers))
    return [layers[(2 * i + 1) * len(layers) // (2 * count)] for i in range(count)]
