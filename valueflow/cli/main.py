"""The command `valueflow`.

A verb is a file of this package with a function `run` and an EXAMPLE (or a typer app of its own),
and a name below. Files of verbs import typer alone at the top, and the rest where it is used, so
that `--help` is quick.
"""

import sys
from typing import Annotated

import typer

from valueflow import __version__
from valueflow.cli import (
    calibrate,
    compare,
    demo,
    derive,
    evaluate,
    hives,
    models,
    probes,
    profile,
    release,
    reliability,
    specificity,
    steer,
    sweep,
    theories,
    vectors,
    vidb,
)
from valueflow.errors import ValueflowError

app = typer.Typer(
    help="Human values in language models, at chosen, measured intensities.",
    epilog="Example: valueflow demo --value power",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _verb in (
    demo,
    theories,
    derive,
    sweep,
    calibrate,
    steer,
    compare,
    evaluate,
    reliability,
    profile,
    specificity,
):
    _name = _verb.__name__.rpartition(".")[2]
    app.command(_name, epilog=f"Example: {_verb.EXAMPLE}")(_verb.run)
app.add_typer(hives.app, name="hives")
app.add_typer(models.app, name="models")
app.add_typer(vectors.app, name="vectors")
app.add_typer(probes.app, name="probes")
app.add_typer(release.app, name="release")
app.add_typer(vidb.app, name="vidb")


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"valueflow {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; what a user can mend becomes one line on stderr and exit code 2."""
    try:
        app()
    except (ValueflowError, OSError) as error:
        typer.echo(f"valueflow: {error}", err=True)
        sys.exit(2)
