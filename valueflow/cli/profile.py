"""`valueflow profile`: which values somebody's texts speak of, and how strongly."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import (
    JsonFile,
    Seed,
    check_parent,
    encoder_named,
    read_with,
    stages,
    write_json,
)

if TYPE_CHECKING:
    from valueflow.hives.profile import ValueDifference, ValueProfile, ValueScore

EXAMPLE = "valueflow profile posts.txt --against others.jsonl --plot profiles.png"

SHOWN = 60
"""Characters of a text in the table."""


def run(
    file: Annotated[Path, typer.Argument(help="One text a line; or JSONL, CSV with `text`.")],
    against: Annotated[
        Path | None, typer.Option(help="Another such file, to compare with.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="hives, hives-small, a trained folder, or a base encoder.")
    ] = "hives",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours per text.")] = 10,
    top: Annotated[int | None, typer.Option(min=1, help="Rows to print; else all.")] = None,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw the basic values here, as PNG.")
    ] = None,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Read a value profile off texts: intensity with standard error, share and evidence."""
    from valueflow.errors import InvalidInput
    from valueflow.hives.profile import ValueProfile, compare
    from valueflow.vidb import load_starter

    _check_outputs(json_file, plot)
    load = encoder_named(encoder)
    groups = {name: read_texts(path) for name, path in _named(file, against).items()}
    vidb = load_starter()
    if k > len(vidb):
        raise InvalidInput(f"--k {k}: the database has {len(vidb)} texts; give fewer neighbours")
    with stages() as stage:
        stage(f"load encoder {encoder}")
        loaded = load()
        given = [text for texts in groups.values() for text in texts]
        read_with(loaded, [*given, *vidb.frame["text"]], stage("embed"))
    profiles = {
        name: ValueProfile.from_texts(
            texts, embed=loaded.embed, vidb=vidb, k=k, encoder=loaded.name, seed=seed
        )
        for name, texts in groups.items()
    }
    first, *others = profiles.values()
    differences = list(compare(first, others[0]).values()) if others else None
    if differences is None:
        _show_profile(first, top)
    else:
        _show_differences(profiles, differences, top)
        _warn_of_shared(*groups.values())
    _write(json_file, plot, profiles, differences, seed)


def read_texts(path: Path) -> list[str]:
    """The texts of a file, by its ending: column or field `text` of .csv and .jsonl, else lines.

    Blank lines are left out; white space at the ends of a text is, too.

    Raises:
        InvalidInput: what the readers of `valueflow.vidb.importers.reading` refuse; no text.
    """
    from valueflow.errors import InvalidInput
    from valueflow.vidb.importers.reading import delimited, json_lines, lines, text_in

    ending = path.suffix.lower()
    if ending == ".jsonl":
        return [text_in(where, row, "text") for where, row in json_lines(path)]
    if ending == ".csv":
        return [text_in(where, row, "text") for where, row in delimited(path, ["text"])]
    texts = [line.strip() for line in lines(path) if line.strip()]
    if not texts:
        raise InvalidInput(f"{path}: expected one text a line, found none")
    return texts


def _named(file: Path, against: Path | None) -> dict[str, Path]:
    """Files by the names they are shown with: short ones, unless these are alike."""
    from valueflow.errors import InvalidInput

    if against is None:
        return {file.name: file}
    if file.resolve() == against.resolve():
        raise InvalidInput(f"--against {against}: is the file itself; give another person's texts")
    if file.name == against.name:
        return {str(file): file, str(against): against}
    return {file.name: file, against.name: against}


def _check_outputs(json_file: Path | None, plot: Path | None) -> None:
    from valueflow.errors import InvalidInput

    if plot is not None and plot.suffix.lower() != ".png":
        raise InvalidInput(f"--plot {plot}: expected a name that ends in .png")
    for path in (json_file, plot):
        if path is not None:
            check_parent(path)


def _show_profile(profile: "ValueProfile", top: int | None) -> None:
    from rich.console import Console
    from rich.table import Table

    heard = profile.top(len(profile.scores))
    if heard:
        table = Table("value")
        for column in ("intensity", "share", "texts"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("evidence", no_wrap=True, overflow="ellipsis", ratio=1)
        for score in heard[:top]:
            shown = (score.value, _intensity(score), f"{score.share:.0%}", str(score.n_texts))
            table.add_row(*shown, _shortened(score.evidence[0].text))
        Console().print(table)
    _tell(_left_out(heard, top))
    _tell(f"{profile.n_texts} texts; {_silent(profile)}")
    _tell(_made(profile))


def _show_differences(
    profiles: "dict[str, ValueProfile]", differences: "list[ValueDifference]", top: int | None
) -> None:
    """Largest differences first; those without an error, from a single text, last."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    first, second = profiles.values()
    heard = [d for d in differences if d.difference == d.difference]
    heard.sort(key=lambda d: (d.stderr != d.stderr, -abs(d.difference)))
    if heard:
        table = Table("value")
        for column in (*profiles, "difference"):
            table.add_column(Text(_plain(column)), justify="right")
        for each in heard[:top]:
            own = (_intensity(profile.scores[each.value]) for profile in (first, second))
            table.add_row(each.value, *own, _with_error(each.difference, each.stderr))
        Console().print(table)
    _tell(_left_out(heard, top))
    for name, profile in profiles.items():
        _tell(f"{_plain(name)}: {profile.n_texts} texts; {_silent(profile)}")
    _tell(_made(first))


def _intensity(score: "ValueScore") -> str:
    told = _with_error(score.intensity, score.stderr)
    return f"{told} (one text)" if score.status == "single" else told


def _with_error(number: float, stderr: float) -> str:
    return f"{number:+.1f} ± {stderr:.1f}" if stderr == stderr else f"{number:+.1f}"


def _left_out(heard: Sequence[Any], top: int | None) -> str:
    return f"{len(heard) - top} more left out by --top" if top and len(heard) > top else ""


def _silent(profile: "ValueProfile") -> str:
    return f"silent: {', '.join(profile.silent) or 'none'}"


def _made(profile: "ValueProfile") -> str:
    return (
        f"{profile.k} neighbours a text, with a cosine above {profile.min_similarity:.3f}; "
        f"encoder {profile.encoder}, database {profile.vidb}"
    )


def _warn_of_shared(first: Sequence[str], second: Sequence[str]) -> None:
    shared = len(set(first) & set(second))
    if shared:
        typer.echo(
            f"{shared} texts are in both files; the errors of the differences take the two for "
            "independent",
            err=True,
        )


def _tell(line: str) -> None:
    if line:
        typer.echo(line)


def _shortened(text: str) -> Any:
    """Never read as markup; what is no printable character cannot reach the terminal."""
    from rich.text import Text

    plain = _plain(text)
    return Text(plain if len(plain) <= SHOWN else plain[: SHOWN - 1].rstrip() + "…")


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _write(
    json_file: Path | None,
    plot: Path | None,
    profiles: "dict[str, ValueProfile]",
    differences: "list[ValueDifference] | None",
    seed: int,
) -> None:
    """The JSON is the first profile's own, as `ValueProfile.from_json` reads, and what goes on."""
    import json

    first, *others = [json.loads(profile.to_json()) for profile in profiles.values()]
    first |= {"files": list(profiles), "seed": seed, "against": others[0] if others else None}
    first["differences"] = None if differences is None else [vars(d) for d in differences]
    write_json(json_file, first)
    if plot is not None:
        from valueflow.artifacts import write_file
        from valueflow.study._image import image_bytes
        from valueflow.study.profile_plot import profile_figure

        figure = profile_figure({_label(n): p for n, p in profiles.items()})
        write_file(plot, image_bytes(figure))


def _label(name: str) -> str:
    # matplotlib reads $...$ as mathematics, and keeps names with a leading _ out of legends.
    plain = _plain(name).replace("$", r"\$")
    return f"./{plain}" if plain.startswith("_") else plain
