"""The command `valueflow`.

A verb is a file of this package with a typer app or function, and one line below. Files of verbs
import typer alone at the top, and the rest where it is used, so that `--help` is quick.
"""

import sys
from typing import Annotated

import typer

from valueflow import __version__
from valueflow.cli import models
from valueflow.errors import ValueflowError

app = typer.Typer(
    help="Human values in language models, at chosen, measured intensities.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models.app, name="models")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"valueflow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a `ValueflowError` becomes one line on stderr and exit code 2."""
    try:
        app()
    except ValueflowError as error:
        typer.echo(f"valueflow: {error}", err=True)
        sys.exit(2)
