"""`valueflow vidb`: build, rank, check and look at a value intensity database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from valueflow.cli.common import JsonFile, Judge, Seed, check_parent, stages, write_json, write_text

if TYPE_CHECKING:
    from valueflow.vidb import Ladder, RankingRecord, Vidb

app = typer.Typer(
    help="Build, rank, check and look at a value intensity database.",
    epilog="Example: valueflow vidb check",
    no_args_is_help=True,
)

Folder = Annotated[
    Path | None,
    typer.Argument(help="With ladders/*.jsonl and rankings/*.jsonl; else the starter's."),
]
Value = Annotated[str | None, typer.Option(help="One value; else all.")]


@app.command(epilog="Example: valueflow vidb build my-vidb --out my-vidb/vidb.parquet")
def build(
    folder: Annotated[Path, typer.Argument(help="With ladders/*.jsonl and rankings/*.jsonl.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The database, as parquet.")],
    json_file: JsonFile = None,
) -> None:
    """Compute intensities from texts and rankings; the same input gives the same file."""
    from valueflow.vidb.store import build_folder, save

    check_parent(out)
    vidb = build_folder(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    save(vidb, out)
    typer.echo(f"{len(vidb)} texts of {len(vidb.values)} values, {vidb.fingerprint()}: {out}")
    write_json(
        json_file,
        {"texts": len(vidb), "values": vidb.values, "fingerprint": vidb.fingerprint()},
    )


@app.command(epilog="Example: valueflow vidb windows my-vidb --out plan.jsonl")
def windows(
    folder: Annotated[Path, typer.Argument(help="With ladders/*.jsonl, perhaps rankings/*.jsonl.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The plan, as JSON lines.")],
    kind: Annotated[
        Literal["connected", "random", "adaptive"],
        typer.Option(help="What is missing, any, or where errors are largest."),
    ] = "connected",
    n: Annotated[int, typer.Option("-n", min=1, help="Per value, random and adaptive.")] = 100,
    per_text: Annotated[int, typer.Option(min=1, help="Cross-ladder windows per text.")] = 5,
    size: Annotated[int, typer.Option(min=2, help="Texts per window.")] = 5,
    value: Value = None,
    seed: Seed = 0,
) -> None:
    """Plan which windows are to be ranked next."""
    import numpy as np

    from valueflow.vidb import planning

    check_parent(out)
    ladders, records = _read(folder, value)
    rng = np.random.default_rng(seed)
    if kind == "connected":
        planned = planning.connected_windows(
            ladders, records, size=size, per_text=per_text, rng=rng
        )
    elif kind == "random":
        planned = planning.random_windows(ladders, records, n=n, size=size, rng=rng)
    else:
        from valueflow.vidb.build import build as compute
        from valueflow.vidb.store import Vidb

        vidb = Vidb(compute(ladders, records))
        planned = planning.adaptive_windows(vidb, records, n=n, size=size, rng=rng)
    planning.write_plan(planned, out)
    typer.echo(f"{len(planned)} windows: {out}")


@app.command(
    epilog="Example: valueflow vidb rank my-vidb plan.jsonl --out my-vidb/rankings/a.jsonl"
)
def rank(
    folder: Annotated[Path, typer.Argument(help="With ladders/*.jsonl.")],
    plan: Annotated[Path, typer.Argument(help="What `vidb windows` wrote.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Rankings; goes on where it stopped.")],
    judge: Judge = "hives",
    json_file: JsonFile = None,
) -> None:
    """Have a judge rank planned windows; killed half-way, nothing that was ranked is lost."""
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.vidb.collect import collect
    from valueflow.vidb.planning import read_plan

    JUDGES[judge]  # noqa: B018  A wrong name fails here, before anything is loaded.
    check_parent(out)
    planned = read_plan(plan)
    ladders, _ = _read(folder, None, rankings=False)
    with stages() as stage:
        stage(f"load judge {judge}")
        ready = get_judge(judge)
        found = collect(planned, ladders, ready, out, progress=stage("rank"))
    typer.echo(
        f"{found.ranked} windows ranked, {found.known} known, {len(found.unranked)} unranked: {out}"
    )
    for window, reason in found.unranked[:5]:
        typer.echo(f"unranked {window}: {reason}", err=True)
    write_json(json_file, vars(found))


@app.command(epilog="Example: valueflow vidb check --value power")
def check(
    folder: Folder = None,
    value: Value = None,
    duplicates: Annotated[bool, typer.Option(help="Look for them, with an encoder.")] = True,
    json_file: JsonFile = None,
) -> None:
    """Print, per value, how good texts and rankings are; exit code 1 if anything falls short."""
    from valueflow.vidb.build import build as compute
    from valueflow.vidb.quality import quality
    from valueflow.vidb.store import Vidb

    ladders, records = _read(folder, value)
    vidb = Vidb(compute(ladders, records))
    with stages() as stage:
        embed = None
        if duplicates:
            stage("load encoder")
            from valueflow.hives.encoder import load_frozen_encoder

            embed = load_frozen_encoder().embed
        stage("check")
        found = quality(vidb, ladders, records, embed=embed)
    typer.echo(_QUALITY_HEAD)
    for row in found:
        typer.echo(_quality_line(row))
    problems = [f"{row.value}: {problem}" for row in found for problem in row.problems]
    write_json(json_file, {"values": [vars(row) for row in found], "problems": problems})
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo("check failed" if problems else "check passed")
    if problems:
        raise typer.Exit(1)


@app.command(epilog="Example: valueflow vidb stats")
def stats(folder: Folder = None, value: Value = None, json_file: JsonFile = None) -> None:
    """Count ladders by register and split, rankings by kind, and words."""
    from collections import Counter

    ladders, records = _read(folder, value)
    rows = []
    for value_id in sorted({ladder.value for ladder in ladders}):
        own = [ladder for ladder in ladders if ladder.value == value_id]
        ranked = [r for r in records if r.shown[0].startswith(f"{value_id}/")]
        words = [len(text.split()) for ladder in own for text in ladder.rungs]
        row: dict[str, Any] = {
            "value": value_id,
            "ladders": len(own),
            "registers": Counter(ladder.register for ladder in own),
            "splits": Counter(ladder.split for ladder in own),
            "windows": Counter(r.kind for r in ranked),
            "mean_words": sum(words) / len(words),
        }
        rows.append(row)
        told = "; ".join(
            " ".join(f"{name} {count}" for name, count in sorted(row[key].items()))
            for key in ("registers", "splits", "windows")
        )
        typer.echo(f"{value_id}: {len(own)} ladders; {told}; {row['mean_words']:.0f} words a text")
    write_json(json_file, rows)


@app.command(epilog="Example: valueflow vidb show power")
def show(
    value: Annotated[str, typer.Argument(help="A value the database grades.")],
    folder: Folder = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Texts, spread over the scale.")] = 9,
    json_file: JsonFile = None,
) -> None:
    """Print texts of a value from the strongest support to the strongest opposition."""
    frame = _vidb(folder, value).of(value).frame.sort_values("intensity", ascending=False)
    n = min(n, len(frame))
    picked = frame.iloc[[round(i * (len(frame) - 1) / max(n - 1, 1)) for i in range(n)]]
    for row in picked.itertuples():
        asked = f"[{row.context}] " if row.context else ""
        typer.echo(f"{row.intensity:+5.1f} ±{row.stderr:.1f}  {asked}{row.text}")
    columns = ["id", "intensity", "stderr", "context", "text"]
    write_json(json_file, picked[columns].to_dict("records"))


@app.command(epilog="Example: valueflow vidb export power --out power.csv")
def export(
    value: Annotated[str, typer.Argument(help="A value the database grades.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="CSV: text, final_rating.")],
    folder: Folder = None,
) -> None:
    """Write a value's texts as the table of the VALUEFLOW paper."""
    from valueflow.vidb.exchange import export_csv

    check_parent(out)
    write_text(out, export_csv(_vidb(folder, value), value))
    typer.echo(str(out))


@app.command(epilog="Example: valueflow vidb agreement graded.json --judge hives")
def agreement(
    file: Annotated[Path, typer.Argument(help='JSON: {value: [{"text": ..., "intensity": ...}]}.')],
    judge: Judge = "hives",
    gap: Annotated[float, typer.Option(min=0, help="Pairs graded further apart count.")] = 3.0,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Score texts that others graded with the shipped anchors, and say how pairs agree."""
    from valueflow.evaluate.agreement import compare, read_graded, total
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.vidb.store import load_starter

    JUDGES[judge]  # noqa: B018  A wrong name fails here, before anything is loaded.
    graded, vidb = read_graded(file), load_starter()
    for value in graded:
        vidb.of(value)
    from valueflow.evaluate import vidb_evaluator

    with stages() as stage:
        stage(f"load judge {judge}")
        ready = get_judge(judge)
        found = compare(
            graded,
            lambda value: vidb_evaluator(vidb, value, ready, seed=seed),
            gap=gap,
            progress=stage("score"),
        )
    theories = sorted({row.value.partition("/")[0] for row in found})
    rows = found + [
        total([row for row in found if row.value.startswith(f"{name}/")], value=name)
        for name in theories
    ]
    rows.append(total(found))
    typer.echo(f"{'value':31} texts  pairs  right  unranked")
    for row in rows:
        typer.echo(f"{row.value:31} {row.texts:5}  {row.pairs:5}  {row.share:5.1%}  {row.unranked}")
    write_json(json_file, [vars(row) | {"share": row.share} for row in rows])


@app.command("import", epilog="Example: valueflow vidb import mfrc mfrc.tsv --out mfrc.csv")
def import_(
    corpus: Annotated[str, typer.Argument(help="Name of a public corpus; see the importers.")],
    path: Annotated[Path, typer.Argument(help="Your own copy of it.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="CSV of texts, values, directions.")],
    json_file: JsonFile = None,
) -> None:
    """Read a public corpus: which texts speak of which value, and in which direction."""
    from valueflow.vidb.importers import import_corpus

    check_parent(out)
    frame = import_corpus(corpus, path)
    write_text(out, frame.to_csv(index=False))
    left_out = frame.attrs.get("left_out", {})
    told = "".join(f", {count} left out ({reason})" for reason, count in left_out.items())
    typer.echo(f"{len(frame)} rows of {frame['value'].nunique()} values{told}: {out}")
    write_json(json_file, {"rows": len(frame), "left_out": left_out})


_QUALITY_HEAD = (
    f"{'value':31} texts ladders  share per fifth of the scale   zero  signs stderr  retest (n) "
    "other first-first (z)  held-out  near-dup"
)


def _quality_line(row: Any) -> str:
    shares = " ".join(f"{share:4.0%}" for share in row.shares)
    twins = "-" if row.near_duplicates is None else len(row.near_duplicates)
    return (
        f"{row.value:31} {row.texts:5} {row.ladders:7}  {shares}       {row.zero:+5.2f}  "
        f"{row.signs:4.0%}  {row.stderr:4.2f}   {row.retest:5.1%} ({row.retest_pairs}) "
        f"{'yes' if row.other_reader else 'no':5} {row.first_first:5.1%} ({row.order_bias:+.1f})  "
        f"{row.held_out:7.1%}  {twins:>6}"
    )


def _read(
    folder: Path | None, value: str | None, *, rankings: bool = True
) -> "tuple[list[Ladder], list[RankingRecord]]":
    from valueflow.vidb.store import read_folder

    return read_folder(folder, value, rankings=rankings)


def _vidb(folder: Path | None, value: str) -> "Vidb":
    from valueflow.vidb.build import build as compute
    from valueflow.vidb.store import Vidb, load_starter

    return load_starter() if folder is None else Vidb(compute(*_read(folder, value)))
