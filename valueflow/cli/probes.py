"""`valueflow probes`: train linear probes of values, and say how well they read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import JsonFile, Model, OutFolder, Seed, check_free, load_model, stages
from valueflow.cli.common import write_json as write_result

if TYPE_CHECKING:
    from valueflow.steering.probes import LinearProbe

app = typer.Typer(
    help="Train linear probes of values, and say how well they read.",
    epilog="Example: valueflow probes train smollm2-135m-instruct --value power --out out/probes",
    no_args_is_help=True,
)


@app.command(
    epilog="Example: valueflow probes train smollm2-135m-instruct --value power --out out/probes"
)
def train(
    model: Model,
    out: OutFolder,
    value: Annotated[list[str] | None, typer.Option(help="A value; may be repeated.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All 32 values.")] = False,
    layer: Annotated[
        list[int] | None, typer.Option(help="A layer, may be repeated; else four of the middle.")
    ] = None,
    estimator: Annotated[str, typer.Option(help="What learns the weights.")] = "logistic",
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Train a probe per value and save them to a folder."""
    from valueflow.errors import InvalidInput
    from valueflow.steering.directions import ESTIMATORS
    from valueflow.steering.probe_store import save_probes
    from valueflow.steering.probes import train_probes
    from valueflow.theories import get_value, steered_values
    from valueflow.vidb import load_starter

    if every == bool(value):
        raise InvalidInput("expected either --value, once or several times, or --all")
    values = [v.id for v in steered_values()] if every else [get_value(v).id for v in value or []]
    ESTIMATORS[estimator]  # noqa: B018  A wrong name fails here, before the model is loaded.
    check_free(out)
    with stages() as stage:
        stage("load")
        probes = train_probes(
            load_model(model),
            load_starter(),
            values,
            layers=layer or None,
            estimator=estimator,
            seed=seed,
            progress=stage("read"),
        )
    save_probes(probes, out)
    _print(probes)
    typer.echo(f"saved to {out}")
    write_result(json_file, {value: _summary(probe) for value, probe in probes.items()})


@app.command(epilog="Example: valueflow probes show smollm2-135m-instruct")
def show(
    source: Annotated[str, typer.Argument(help="A folder, or a model that has shipped probes.")],
    json_file: JsonFile = None,
) -> None:
    """Print how well the probes of a folder read held-out ladders."""
    from valueflow.steering.probe_store import load_probes

    probes = load_probes(Path(source) if Path(source).is_dir() else source)
    _print(probes)
    write_result(json_file, {value: _summary(probe) for value, probe in probes.items()})


def _summary(probe: "LinearProbe") -> dict[str, Any]:
    layer = probe.best_layer
    readout = probe.readouts[layer]
    return {
        "layer": layer,
        "validation": readout.validation.estimate,
        "test": readout.test.estimate,
        "low": readout.test.low,
        "high": readout.test.high,
        "ladders": readout.test.ladders,
        "placebos": readout.placebos,
    }


def _print(probes: "dict[str, LinearProbe]") -> None:
    typer.echo(f"{'value':30} layer  validation   test AUC 95% interval  ladders  placebos")
    for value, probe in probes.items():
        s = _summary(probe)
        low, high = min(s["placebos"], default=0.5), max(s["placebos"], default=0.5)
        typer.echo(
            f"{value:30} {s['layer']:5}       {s['validation']:.3f}      {s['test']:.3f} "
            f"{s['low']:.3f}-{s['high']:.3f}  {s['ladders']:7}  {low:.2f}-{high:.2f}"
        )
