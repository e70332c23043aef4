"""`valueflow vectors`: steering vectors to and from other tools."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valueflow.cli.common import (
    JsonFile,
    OutFolder,
    check_free,
    check_parent,
    load_model,
    stages,
    write_json,
)

if TYPE_CHECKING:
    from valueflow.steering.interchange.importing import ControlVector

app = typer.Typer(
    help="Write steering vectors for llama.cpp and repeng, and read theirs.",
    epilog="Example: valueflow vectors export out/power --out power.gguf --coefficient 0.2",
    no_args_is_help=True,
)


@app.command(epilog="Example: valueflow vectors export out/power --out power.gguf")
def export(
    folder: Annotated[Path, typer.Argument(help="What `derive` or `calibrate` wrote.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="A GGUF file that is new.")],
    coefficient: Annotated[
        float, typer.Option(help="What scale 1 stands for, in units of the typical norm.")
    ] = 1.0,
    hint: Annotated[
        str | None, typer.Option(help="Architecture to write in the file, such as llama.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Write a vector as a GGUF control vector for llama.cpp and repeng."""
    check_parent(out)
    from valueflow.steering.interchange import export_gguf
    from valueflow.steering.store import load_vector

    card = folder / "card"
    vector = load_vector(folder / "vector" if card.is_dir() else folder)
    export_gguf(vector, out, coefficient=coefficient, model_hint=hint)
    layers = list(vector.layers)
    typer.echo(f"{vector.value}: layers {layers} at coefficient {coefficient:g}; saved to {out}")
    result = {"value": vector.value, "layers": layers, "coefficient": coefficient, "out": str(out)}
    write_json(json_file, result)


@app.command(
    "import",
    epilog="Example: valueflow vectors import kind.gguf --model smollm2-135m-instruct "
    "--value benevolence --out out/kind",
)
def import_(
    file: Annotated[Path, typer.Argument(help="A .gguf control vector, or .safetensors.")],
    model: Annotated[str, typer.Option(help="The model it is for: a name, a folder, a hub id.")],
    out: OutFolder,
    value: Annotated[
        str | None,
        typer.Option(help="The value it steers; not needed for a file of `vectors export`."),
    ] = None,
    norms: Annotated[
        str,
        typer.Option(
            help="What a coefficient of 1 is: typical, the model's residual norm, or file, "
            "what the file adds."
        ),
    ] = "typical",
    json_file: JsonFile = None,
) -> None:
    """Read a control vector and save it as a steering vector for a model."""
    check_free(out)
    from valueflow.steering.interchange import read_control_vector, steering_vector
    from valueflow.steering.store import save_vector

    typical = _wants_typical(norms)
    control = read_control_vector(file)
    name = _named(control, value)
    with stages() as stage:
        stage("load")
        loaded = load_model(model)
        control.check_size(loaded)
        measured = None
        if typical:
            from valueflow.dose.prompts import load_prompts
            from valueflow.steering.activations import typical_norms
            from valueflow.study.runner import CALIBRATION_PROMPTS

            stage("norms")
            prompts = load_prompts("calibration")[:CALIBRATION_PROMPTS]
            measured = typical_norms(loaded, prompts, control.layers)
        vector = steering_vector(control, name, norms=measured, loaded=loaded)
    save_vector(vector, out)
    for layer, coefficient in vector.provenance["file_coefficients"].items():
        typer.echo(f"{name}: layer {layer}; the file is coefficient {coefficient:.3g}")
    typer.echo(f"saved to {out}")
    result = {"value": name, "norms": vector.norms, **vector.provenance, "out": str(out)}
    write_json(json_file, result)


def _named(control: "ControlVector", value: str | None) -> str:
    from valueflow.errors import InvalidInput
    from valueflow.steering.interchange.importing import value_of

    if value is None and not control.ours.get("value"):
        raise InvalidInput(
            f"{control.about['file']} does not say which value it steers; give --value NAME"
        )
    return value_of(control, value)


def _wants_typical(norms: str) -> bool:
    from valueflow.registry import unknown_name

    if norms not in ("typical", "file"):
        raise unknown_name("kind of norm", norms, ["typical", "file"])
    return norms == "typical"
