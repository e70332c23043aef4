"""`valueflow hives`: train and measure value spaces."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import (
    JsonFile,
    Seed,
    check_parent,
    encoder_named,
    read_prompts,
    read_text,
    read_with,
    stages,
    write_json,
)
from valueflow.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

    from valueflow.hives.encoder import Encoder
    from valueflow.hives.evaluation import Figure
    from valueflow.hives.questions import QuestionPair
    from valueflow.vidb.store import Vidb

app = typer.Typer(
    help="Train and measure value spaces.",
    epilog="Example: valueflow hives eval",
    no_args_is_help=True,
)

DEFAULT = ("hives", "all-mpnet-base-v2")
"""The shipped space, and the base it was trained on."""

GEOMETRY = {
    "tree order, pairs": "ranking_pairs",
    "tree order, strict": "ranking_strict",
    "similarity, Spearman": "spearman",
    "similarity, Pearson": "pearson",
    "orthogonality": "orthogonality",
    "orthogonality, svt": "orthogonality svt",
    "orthogonality, mft": "orthogonality mft",
    "neighbours, level 1": "knn_level_1",
    "neighbours, level 2": "knn_level_2",
    "neighbours, level 3": "knn_level_3",
    "neighbours, direction": "knn_direction",
}
PER_VALUE = {
    "ladders, all pairs": "ladders_all",
    "ladders, within": "ladders_within",
    "graded sample, pairs": "sample",
    "ValueEval, touch AUC": "touch_auc",
    "MFRC, touch Spearman": "touch_correlation",
}
ANSWERS = {"kept answers, pairs in order": "pairs", "kept answers, right side": "sides"}

Graded = Mapping[str, tuple[list[str], list[float]]]
Corpora = Mapping[str, "pd.DataFrame"]


@app.command("eval", epilog="Example: valueflow hives eval hives all-mpnet-base-v2 --json f.json")
def evaluate(
    encoders: Annotated[
        list[str] | None,
        typer.Argument(
            help="hives, hives-small, a trained folder, or a base; else hives and its base."
        ),
    ] = None,
    vidb_sample: Annotated[
        Path | None, typer.Option(help='Graded texts: {value: [{"text": ..., "intensity": ...}]}.')
    ] = None,
    valueeval: Annotated[
        Path | None, typer.Option(help="arguments-*.tsv of ValueEval'23, labels beside it.")
    ] = None,
    mfrc: Annotated[Path | None, typer.Option(help="Folder with mfrc*.tsv.")] = None,
    profiles: Annotated[bool, typer.Option(help="Profiles; reads the whole database.")] = True,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure value spaces on held-out texts of the starter, and on corpora that are given."""
    from valueflow.vidb.store import load_starter

    names = list(dict.fromkeys(encoders or DEFAULT))
    if json_file is not None:
        check_parent(json_file)
    graded = None if vidb_sample is None else _read_sample(vidb_sample)
    corpora = _import({"valueeval23": valueeval, "mfrc": mfrc})
    found = {}
    with stages() as stage:
        loaders = [encoder_named(name) for name in names]
        ready = []
        for name, load in zip(names, loaders, strict=True):  # All before the first long work.
            stage(f"load {name}")
            ready.append(load())
        for name, encoder in zip(names, ready, strict=True):
            read_with(encoder, _texts(graded, corpora, profiles), stage(f"read with {name}"))
            stage(f"measure {name}")
            found[name] = _measure(encoder, graded, corpora, profiles, seed)
    _show(found)
    encoders_told = {
        name: {"fingerprint": encoder.fingerprint(), **_plain(found[name])}
        for name, encoder in zip(names, ready, strict=True)
    }
    about = {"vidb": load_starter().fingerprint(), "seed": seed}
    write_json(json_file, {**about, "encoders": encoders_told})


@app.command(epilog="Example: valueflow hives train --config hives --out my-space")
def train(
    config: Annotated[
        str, typer.Option(help="A recipe, hives or hives-small, or a YAML file like them.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the trained space.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A public corpus to learn from; repeat for more."),
    ] = None,
    without: Annotated[
        Path | None,
        typer.Option(help="Texts that corpora must not teach, one a line: those of a test set."),
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="More texts to distil the teacher on, one a line.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Trained space to go on from, without its hidden layer.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Trained space to learn from.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on where a run was cut off.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Else the recipe's.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Train a value space on the starter's judge split, lessons, answers, concepts and corpora."""
    from valueflow.hives.recipe import find_recipe, load_recipe
    from valueflow.hives.run import train_and_save

    changes: dict[str, Any] = {"start": start, "teacher": teacher, "seed": seed}
    corpora = dict(_named(each) for each in corpus or [])
    if corpora:
        changes["corpora"] = corpora
    given = {name: value for name, value in changes.items() if value is not None}
    recipe = load_recipe(find_recipe(config), **given)
    left_out = [] if without is None else read_text(without).splitlines()
    more = [] if unlabelled is None else read_prompts(unlabelled)
    card = train_and_save(recipe, out, without=left_out, unlabelled=more, resume=resume)
    for source in card["data"]:
        typer.echo(source)
    typer.echo(f"{out}: measure it with `valueflow hives eval {out}`")
    write_json(json_file, card)


@app.command(epilog="Example: valueflow hives draw --map map.png --heat-map cosines.png")
def draw(
    encoder: Annotated[
        str, typer.Argument(help="hives, hives-small, a trained folder, or a base.")
    ] = "hives",
    map_file: Annotated[
        Path | None, typer.Option("--map", dir_okay=False, help="Values in a plane; PNG or SVG.")
    ] = None,
    heat_map: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Cosines of values; PNG or SVG.")
    ] = None,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Draw the vectors of the values, of held-out texts, and tell whether they keep the circle."""
    from valueflow.hives.evaluation import held_out
    from valueflow.hives.metrics import value_vectors
    from valueflow.hives.space import vidb_space
    from valueflow.study.circle import FEWEST_ON_CIRCLE, circular_order
    from valueflow.study.space_plot import check_ending, draw_heat_map, draw_map
    from valueflow.vidb.store import load_starter

    if map_file is None and heat_map is None:
        raise InvalidInput("nothing to draw: give --map FILE or --heat-map FILE")
    for path in (map_file, heat_map, json_file):
        if path is not None:
            check_parent(path)
    for path in (map_file, heat_map):
        if path is not None:
            check_ending(path)
    load, vidb = encoder_named(encoder), held_out(load_starter())
    with stages() as stage:
        stage(f"load {encoder}")
        loaded = load()
        read_with(loaded, vidb.frame["text"], stage("read"))
    vectors = value_vectors(vidb_space(vidb, loaded.embed))
    enough = sum(value.startswith("svt/") for value in vectors) >= FEWEST_ON_CIRCLE
    order = circular_order(vectors, seed=seed) if enough else None
    if map_file is not None:
        draw_map(vectors, map_file, title=encoder, order=order)
    if heat_map is not None:
        draw_heat_map(vectors, heat_map, title=encoder)
    typer.echo(
        "too few basic values for their circle"
        if order is None
        else f"circle of the {order.n} basic values: Spearman {order.statistic:+.2f} of steps and "
        f"angles, p {order.p:.4f}"
    )
    cosines = {a: {b: float(x @ y) for b, y in vectors.items()} for a, x in vectors.items()}
    circle = None if order is None else vars(order)
    write_json(json_file, {"encoder": encoder, "circle": circle, "cosines": cosines})


def _named(corpus: str) -> tuple[str, str]:
    name, equals, path = corpus.partition("=")
    if not (name and equals and path):
        raise InvalidInput(f"--corpus {corpus!r}: expected NAME=PATH, say ethics=data/ethics")
    return name, path


def _read_sample(path: Path) -> Graded:
    from valueflow.evaluate.agreement import read_graded
    from valueflow.vidb.store import load_starter

    graded = read_graded(path)
    for value in graded:
        load_starter().of(value)
    return {v: ([item.text for item in items], grades) for v, (items, grades) in graded.items()}


def _import(paths: Mapping[str, Path | None]) -> Corpora:
    from valueflow.vidb.importers import import_corpus

    return {name: import_corpus(name, path) for name, path in paths.items() if path is not None}


def _texts(graded: Graded | None, corpora: Corpora, profiles: bool) -> list[str]:
    from valueflow.hives.evaluation import held_out
    from valueflow.hives.questions import as_read, rows_as_read
    from valueflow.vidb.store import load_starter

    vidb = held_out(load_starter())
    measured = vidb.frame
    texts = set((load_starter().frame if profiles else measured)["text"])
    texts.update(rows_as_read(measured))
    texts.update(as_read(*x) for pair in _kept_pairs(vidb) for x in (pair.supports, pair.opposes))
    texts.update(text for own, _ in (graded or {}).values() for text in own)
    texts.update(text for rows in corpora.values() for text in rows_as_read(rows))
    return list(texts)


def _kept_pairs(vidb: "Vidb") -> "list[QuestionPair]":
    from valueflow.hives.questions import load_questions

    return [pair for pair in load_questions("kept") if pair.value in vidb.values]


def _measure(
    encoder: "Encoder", graded: Graded | None, corpora: Corpora, profiles: bool, seed: int
) -> dict[str, Any]:
    from valueflow.hives import evaluation
    from valueflow.hives.answering import question_agreement
    from valueflow.vidb.store import load_starter

    vidb = evaluation.held_out(load_starter())
    found: dict[str, Any] = {"geometry": evaluation.geometry(encoder, vidb, seed=seed)}
    for name, rows in evaluation.ladder_agreement(encoder, vidb, seed=seed).items():
        found[f"ladders_{name}"] = rows
    kept = _kept_pairs(vidb)
    if kept:
        found["answers"] = question_agreement(encoder, kept, vidb, seed=seed)
    if graded is not None:
        found["sample"] = evaluation.sample_agreement(encoder, graded, seed=seed)
    if "valueeval23" in corpora:
        rows = corpora["valueeval23"]
        found["touch_auc"] = evaluation.touch_auc(encoder, rows, vidb, seed=seed)
    if "mfrc" in corpora:
        rows = corpora["mfrc"]
        found["touch_correlation"] = evaluation.touch_correlation(encoder, rows, vidb, seed=seed)
    if profiles:
        found["profiles"] = evaluation.profile_recovery(encoder, load_starter(), seed=seed)
    return found


def _figures(found: Mapping[str, Any]) -> "dict[str, Figure]":
    rows = {label: found["geometry"].get(name) for label, name in GEOMETRY.items()}
    rows |= {label: found[name].mean for label, name in PER_VALUE.items() if name in found}
    if "answers" in found:
        rows |= {label: getattr(found["answers"], name) for label, name in ANSWERS.items()}
    if "profiles" in found:
        rows["profiles, own value first"] = found["profiles"].first
    return {label: figure for label, figure in rows.items() if figure is not None}


def _show(found: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    columns = {name: _figures(rows) for name, rows in found.items()}
    table = Table("", Column("n", justify="right"), *(Column(Text(name)) for name in columns))
    for label, first in next(iter(columns.values())).items():
        # As they are: brackets and names of folders are no markup.
        cells = [Text(_cell(figures[label])) for figures in columns.values()]
        table.add_row(label, str(first.n), *cells)
    Console().print(table)


def _cell(figure: "Figure") -> str:
    if isnan(figure.estimate):
        return "-"
    interval = "" if isnan(figure.low) else f" [{figure.low:.3f}, {figure.high:.3f}]"
    return f"{figure.estimate:.3f}{interval}"


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    geometry = {name: asdict(figure) for name, figure in found["geometry"].items()}
    return {name: geometry if name == "geometry" else asdict(x) for name, x in found.items()}
