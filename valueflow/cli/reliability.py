"""`valueflow reliability`: how far a judge can be trusted with a value."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from valueflow.cli.common import JsonFile, Judge, JudgeOption, Seed, stages, write_json

if TYPE_CHECKING:
    from valueflow.evaluate.rating import RatingComparison
    from valueflow.evaluate.reliability import Reliability

EXAMPLE = "valueflow reliability --judge hives --value power"

Row = tuple[str, str]


def run(
    value: Annotated[str, typer.Option(help="A value the database grades.")],
    judge: Judge = "hives",
    judge_option: JudgeOption = None,
    second: Annotated[str | None, typer.Option(help="Another judge to compare with.")] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=15, help="Graded texts to measure.")] = 50,
    windows: Annotated[int, typer.Option(min=1, help="Rankings per text.")] = 8,
    size: Annotated[int, typer.Option(min=3, help="Texts per ranking.")] = 6,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Measure graded texts that the judge was not calibrated on, and say whether it is fit."""
    from valueflow.evaluate.reliability import measure_reliability
    from valueflow.evaluate.verdict import concerns, verdict
    from valueflow.judges.base import JUDGES, get_judge, parse_options
    from valueflow.theories import get_value
    from valueflow.vidb import load_starter

    value_id, vidb = get_value(value).id, load_starter()
    vidb.of(value_id)
    for name in (judge, second):
        if name is not None:
            JUDGES[name]  # noqa: B018  A wrong name fails here, before anything is loaded.
    options = parse_options(judge, judge_option or [])
    with stages() as stage:
        stage(f"load judge {judge}")
        first = get_judge(judge, **options)
        found = measure_reliability(
            vidb,
            value_id,
            first,
            second=None if second is None else get_judge(second),
            n_texts=n,
            n_windows=windows,
            window_size=size,
            progress=stage,
            seed=seed,
        )
    typer.echo(f"judge {judge} on {value_id}, 95% intervals in brackets")
    for name, told in rows(found):
        typer.echo(f"  {name:<44}{told}")
    typer.echo(f"verdict: {verdict(found)}")
    for sentence in concerns(found):
        typer.echo(f"  - {sentence}")
    result = asdict(found) | {"verdict": verdict(found), "concerns": concerns(found)}
    write_json(json_file, result)


def rows(found: "Reliability") -> list[Row]:
    """The report, a name and a number in words each."""
    order, texts = found.order, found.texts
    table = [
        ("anchors more than 3 apart in right order", f"{found.windows_right:.3f}"),
        ("windows not ordered", f"{found.unranked:.1%}, n {found.unranked.n}"),
        *((f"  {reason}"[:42], str(count)) for reason, count in found.reasons.items()),
        ("places moved per place shown later", f"{order.position_slope:+.3f}"),
        ("near pairs turned by another order", f"{order.reshuffled:.1%}"),
        ("  and by other company as well", f"{order.other_company:.1%}"),
        ("  what the company adds", f"{order.context_excess:+.1%}"),
    ]
    if texts is not None:
        bars = texts.calibration
        table += [
            ("texts measured", str(texts.error.n)),
            ("texts more than 3 apart in right order", f"{texts.agreement:.3f}"),
            ("mean absolute error, points", f"{texts.error:.2f}"),
            ("  of calling every text neutral", f"{texts.neutral_error:.2f}"),
            ("mean error, points", f"{texts.shift:+.2f}"),
            ("clear texts with the wrong sign", f"{texts.sign_flips:.1%}, n {texts.sign_flips.n}"),
            ("correlation of two measurements", f"{texts.retest:.3f}"),
            ("  SD of one, points", f"{texts.retest_sd:.2f}"),
            ("grades inside 95% intervals", f"{bars.covered_95:.1%}"),
            ("  inside 68% intervals", f"{bars.covered_68:.1%}"),
            ("  inside 1.96 stderr, misreading left out", f"{bars.bare_95:.1%}"),
            ("misreading of a text, SD in points", f"{bars.misreading:.2f}"),
            ("  as calibration took it to be", f"{bars.learned:.2f}"),
            ("won or lost every comparison", f"{texts.outside:.1%}"),
            ("seconds per text", f"{texts.seconds:.3f}"),
        ]
    if found.swap is not None:
        swap = found.swap
        told = f"{swap.correlation:.3f}" if swap.problem is None else swap.problem
        table.append((f"correlation with {swap.judge}", told))
        table.append(("  mean difference, points", f"{swap.difference:+.2f}"))
    return table + (_rating_rows(found.rating) if found.rating is not None else [])


def _rating_rows(found: "RatingComparison") -> list[Row]:
    table = []
    for name, own in (("ranking", found.ranking), ("rating", found.rating)):
        table += [
            (f"{name}: texts in right order", f"{own.agreement:.3f}"),
            ("  wrong sign", f"{own.sign_flips:.1%}"),
            ("  correlation of two times", f"{own.retest:.3f}"),
            ("  SD of one, of the spread of texts", f"{own.noise:.2f}"),
            ("  texts without a number", str(own.unmeasured)),
        ]
    return table
