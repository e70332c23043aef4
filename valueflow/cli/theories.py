"""`valueflow theories`: what the theories say, down to the single value."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import JsonFile, write_json

if TYPE_CHECKING:
    from valueflow.theories import Theory, Value

EXAMPLE = "valueflow theories power"


def run(
    name: Annotated[str | None, typer.Argument(help="A theory or value; none for a list.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the theories, or show a theory's tree or all that is said of a value."""
    from valueflow.theories import Theory, theories

    found = None if name is None else _find(name)
    if found is None:
        result: Any = [_summary(theory) for theory in theories()]
        for row in result:
            counts = f"{row['nodes']:3} nodes, {row['steered']:2} steered"
            typer.echo(f"{row['id']:6} {counts}  {row['name']}")
    elif isinstance(found, Theory):
        result = _theory(found)
        typer.echo(f"{found.name} (* steered)\n{found.source.strip()}\n")
        for top in (value for value in found.values if not value.parents):
            _show_tree(found, top, 0)
    else:
        result = _value(found)
        for label, said in result.items():
            if said or said is False:
                typer.echo(f"{label:11} {', '.join(said) if isinstance(said, tuple) else said}")
    write_json(json_file, result)


def _find(name: str) -> "Theory | Value":
    from valueflow.errors import UnknownName
    from valueflow.registry import near_misses
    from valueflow.theories import get_theory, get_value, theories
    from valueflow.theories.base import THEORY_ALIASES, theory_key

    known = [theory.id for theory in theories()]
    if theory_key(name) in known:
        return get_theory(name)
    close = near_misses(name, [*known, *THEORY_ALIASES])
    try:
        return get_value(name)
    except UnknownName:
        if not close:
            raise
        raise UnknownName(f"unknown name {name!r}: did you mean the theory {close[0]}?") from None


def _show_tree(theory: "Theory", value: "Value", depth: int) -> None:
    mark = " *" if value.steered else ""
    typer.echo(f"{'  ' * depth}{value.id.partition('/')[2]}{mark}")
    for child in theory.children(value.id):
        _show_tree(theory, theory.value(child), depth + 1)


def _summary(theory: "Theory") -> dict[str, Any]:
    counts = {"nodes": len(theory.values), "steered": len(theory.steered)}
    return {"id": theory.id, "name": theory.name, "source": theory.source, **counts}


def _theory(theory: "Theory") -> dict[str, Any]:
    values = [_value(value) for value in theory.values]
    return {**_summary(theory), "circle": theory.circle, "values": values}


def _value(value: "Value") -> dict[str, Any]:
    from valueflow.theories import get_theory

    theory = get_theory(value.theory)
    fields = ("id", "name", "definition", "supports", "opposes", "article", "aliases")
    on_circle = value.id in (theory.circle or ())
    return {
        **{field: getattr(value, field) for field in fields},
        "steered": value.steered,
        "parents": value.parents,
        "children": theory.children(value.id),
        "siblings": theory.siblings(value.id),
        "neighbours": theory.neighbours(value.id) if on_circle else (),
        "opposites": theory.opposites(value.id) if on_circle else (),
    }
