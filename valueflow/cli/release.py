"""`valueflow release`: vectors with calibrations to hand out: build, list, check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valueflow.cli.common import (
    JsonFile,
    Judge,
    Model,
    Seed,
    Template,
    checked_template,
    load_model,
    stages,
    write_json,
)
from valueflow.errors import InvalidInput

if TYPE_CHECKING:
    from valueflow.dose.recheck import Rechecked

app = typer.Typer(
    help="Released vectors: calibrate many values, list what there is, measure cards again.",
    no_args_is_help=True,
)

Values = Annotated[
    list[str] | None,
    typer.Option("--value", help="Id or name; repeatable. Default: all there are."),
]


@app.command(
    epilog="Example: valueflow release build smollm2-135m-instruct --value power --layer 12 "
    "--out out/vectors/smollm2-135m-instruct --work out/release"
)
def build(
    model: Model,
    out: Annotated[Path, typer.Option(help="The model's folder of cards; those there stay.")],
    work: Annotated[Path, typer.Option(help="Where texts are kept: a killed run goes on there.")],
    values: Values = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(help="Repeatable; 0 is the output of block 0. Default: chosen per value."),
    ] = None,
    apart: Annotated[
        list[str] | None,
        typer.Option(help="A value whose siblings are projected out of its vector; repeatable."),
    ] = None,
    widest: Annotated[
        float,
        typer.Option(
            min=0.01,
            help="Nine coefficients are swept, from minus to plus this; several layers want less.",
        ),
    ] = 0.4,
    prompts: Annotated[int, typer.Option(min=2, help="Calibration prompts.")] = 24,
    checks: Annotated[int, typer.Option(min=2, help="Verification prompts.")] = 24,
    tokens: Annotated[int, typer.Option(min=1, help="At most so many per answer.")] = 48,
    template: Template = "auto",
    judge: Judge = "hives",
    seed: Seed = 0,
) -> None:
    """Derive, calibrate and verify values one after the other; write a card each, and a table.

    The table is README.md beside the model's folder; a README.md of something else is refused.
    """
    from valueflow.dose.sweep import Decoding
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.study.release import build_release
    from valueflow.study.release_plan import Plan
    from valueflow.study.release_table import write_release_page
    from valueflow.theories import get_value, steered_values
    from valueflow.vidb import load_starter

    page = out.parent / "README.md"
    _check_page(page)
    wanted = [get_value(v).id for v in values or [v.id for v in steered_values()]]
    JUDGES[judge]  # noqa: B018  A wrong name fails here, before the model is loaded.
    plan = Plan(
        layer=tuple(sorted(set(layer))) if layer else "auto",
        apart=tuple(sorted({get_value(v).id for v in apart or []})),
        coefficients=tuple(round(widest * step / 4, 6) for step in range(-4, 5)),
        n_calibration=prompts,
        n_verification=checks,
        decoding=Decoding(max_new_tokens=tokens, template=checked_template(template)),
        seed=seed,
    )
    vidb = load_starter()
    with stages() as stage:
        stage("load")
        loaded = load_model(model)
        build_release(
            loaded,
            wanted,
            out,
            work=work,
            vidb=vidb,
            judge=get_judge(judge),
            plan=plan,
            stage=stage,
        )
    cards = _released_in(out.parent)
    write_release_page(cards, page)
    typer.echo(f"{len(cards.get(out.name, []))} cards in {out}; table in {page}")


@app.command("list", epilog="Example: valueflow release list smollm2-135m-instruct")
def list_(
    model: Annotated[str | None, typer.Argument(help="Default: name the models.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Name the models with released vectors, or show one's cards."""
    from valueflow.dose.released import load_released, released_models

    if model is None:
        found = {name: str(folder) for name, folder in released_models().items()}
        for name, folder in found.items():
            typer.echo(f"{name}  {folder}")
        write_json(json_file, found)
        return
    from valueflow.study.release_table import COLUMNS, release_rows

    rows = release_rows(load_released(model))
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in COLUMNS}
    for row in ({c: c for c in COLUMNS}, *rows):
        typer.echo("  ".join(row[c].ljust(widths[c]) for c in COLUMNS).rstrip())
    write_json(json_file, rows)


@app.command(
    epilog="Example: valueflow release check smollm2-135m-instruct --value power --value hedonism "
    "--seed 1"
)
def check(
    model: Model,
    values: Values = None,
    prompts: Annotated[
        int, typer.Option(min=2, help="New prompts, drawn from those no card was made with.")
    ] = 24,
    targets: Annotated[int, typer.Option(min=1, help="Per value, over its range.")] = 7,
    judge: Judge = "hives",
    seed: Seed = 1,
    json_file: JsonFile = None,
) -> None:
    """Measure released cards again: other prompts, another seed of the evaluator."""
    from valueflow.dose.recheck import recheck, share_inside
    from valueflow.dose.released import load_released
    from valueflow.evaluate import vidb_evaluator
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.study.release_plan import unused_prompts
    from valueflow.vidb import load_starter

    JUDGES[judge]  # noqa: B018
    cards, vidb = load_released(model, values), load_starter()
    asked = unused_prompts(cards, prompts, seed=seed)
    rows: list[Rechecked] = []
    with stages() as stage:
        stage("load")
        loaded, ruler = load_model(model), get_judge(judge)
        for card in cards:
            stage(f"{card.value}: scale")
            evaluator = vidb_evaluator(vidb, card.value, ruler, seed=seed)
            found, _ = recheck(
                loaded,
                card,
                evaluator,
                prompts=asked,
                n_targets=targets,
                progress=stage(f"{card.value}: generate"),
            )
            rows += found
            _show(found)
    inside = sum(row.inside for row in rows)
    share = share_inside(rows)
    typer.echo(f"inside the promised interval: {inside} of {len(rows)} targets ({share:.0%})")
    result = {"model": model, "seed": seed, "prompts": asked, "share_inside": share}
    write_json(json_file, result | {"targets": [row.__dict__ for row in rows]})


def _show(rows: "list[Rechecked]") -> None:
    for row in rows:
        low, high = row.promised
        typer.echo(
            f"{row.value}  target {row.target:+.2f}  coefficient {row.coefficient:+.3f}  "
            f"promised {low:+.2f} to {high:+.2f}  achieved {row.achieved:+.2f}  "
            f"{'inside' if row.inside else 'OUTSIDE'}"
        )


def _check_page(page: Path) -> None:
    """Refuse a page that is not a release's, before the work rather than in its place after it."""
    from valueflow.study.release_table import HEAD

    first = HEAD.splitlines()[0]
    if page.exists() and not (
        page.is_file() and page.read_bytes().splitlines()[:1] == [first.encode()]
    ):
        raise InvalidInput(
            f"{page}: expected no file or a release's table ({first!r}), found something else that "
            "the table would replace; put --out one folder deeper, as vectors/MODEL"
        )


def _released_in(folder: Path) -> dict[str, list]:
    """Every card below a folder of models, by model."""
    from valueflow.dose.steerer import load_card

    found: dict[str, list] = {}
    for path in sorted(folder.glob("*/*/card/calibration.json")):
        found.setdefault(path.parents[2].name, []).append(load_card(path.parents[1]))
    return found
