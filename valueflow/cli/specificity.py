"""`valueflow specificity`: what steering along each value does to all values."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from valueflow.cli.common import Judge, Model, Seed, load_model, refuse_given, stages

if TYPE_CHECKING:
    from valueflow.dose.steerer import Card
    from valueflow.models.loading import LoadedModel
    from valueflow.study.specificity_run import SpecificityStudy

EXAMPLE = (
    "valueflow specificity smollm2-135m-instruct --theory svt --control plain --control all "
    "--out out/specificity"
)

PROMPTS, PLACEBOS = 24, 8
"""Of texts that are generated, where no number is given."""


def run(
    model: Model,
    out: Annotated[Path, typer.Option(help="Texts, scores, tables and pictures; a run goes on.")],
    cards: Annotated[
        Path | None, typer.Option(help="Folder of cards; else the model's released ones.")
    ] = None,
    theory: Annotated[
        str | None, typer.Option(help="Values of this theory alone, such as svt; else all.")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="plain, siblings, positivity, length or all; repeatable."),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option(min=0.0, help="Same for all; else each card's usable range. Not with --work."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Work folder of `release build`: its texts are used, none generated."),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=2, max=64, help=f"Calibration prompts; else {PROMPTS}. Not with --work."),
    ] = None,
    placebos: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=f"Random directions, 0 or at least 2; else {PLACEBOS}. Not with --work.",
        ),
    ] = None,
    judge: Judge = "hives",
    seed: Seed = 0,
) -> None:
    """Effects of every vector on every value, with length, tone and broken texts beside them."""
    from valueflow.errors import InvalidInput
    from valueflow.evaluate import vidb_evaluator
    from valueflow.hives.encoder import load_frozen_encoder
    from valueflow.judges.base import JUDGES, get_judge
    from valueflow.study.nuisance import CONTROLS
    from valueflow.study.specificity_cards import check_cards, common_decoding
    from valueflow.study.specificity_run import study_of_release, write_study
    from valueflow.study.tone import Tone
    from valueflow.theories import steered_values
    from valueflow.vidb import load_starter

    controls = control or ["plain"]
    for name in controls:
        if name not in CONTROLS:
            raise InvalidInput(f"--control {name}: expected one of {', '.join(CONTROLS)}")
    if work is not None and controls != ["plain"]:
        raise InvalidInput("--work has texts of the plain vectors only; leave out --control")
    if work is not None:
        refuse_given(
            "of texts to generate, and --work has its own",
            "--work",
            coefficient=coefficient,
            prompts=prompts,
            placebos=placebos,
        )
    if placebos == 1:
        raise InvalidInput("--placebos 1: expected 0 or at least 2; one direction has no spread")
    JUDGES[judge]  # noqa: B018  A wrong name fails here, before anything is loaded.
    values = [value.id for value in steered_values(theory)]
    own, vidb = _cards(model, cards, values), load_starter()
    common_decoding(own)
    with stages() as stage:
        loaded = None
        if work is None:
            stage("load")
            loaded = load_model(model)
            check_cards(own, loaded)
        stage("scales")
        ruler = get_judge(judge)
        evaluators = {v: vidb_evaluator(vidb, v, ruler, seed=seed) for v in values}
        tone = Tone(load_frozen_encoder())
        shared: dict[str, Any] = {"tone": tone, "stage": stage, "folder": out}
        if work is not None:
            studies = [study_of_release(own, evaluators, work=work, **shared)]
        else:
            assert loaded is not None
            n_prompts = PROMPTS if prompts is None else prompts
            n_placebos = PLACEBOS if placebos is None else placebos
            studies = _generated(
                loaded,
                own,
                evaluators,
                controls,
                coefficient,
                n_prompts,
                n_placebos,
                vidb,
                seed,
                shared,
            )
    for study in studies:
        write_study(study, out, title=f"{model}: {CONTROLS[study.control]}", seed=seed)
        _show(study, seed)
    typer.echo(f"tables and pictures: {out}")


def _generated(
    loaded: "LoadedModel",
    cards: "list[Card]",
    evaluators: Any,
    controls: list[str],
    coefficient: float | None,
    n_prompts: int,
    placebos: int,
    vidb: Any,
    seed: int,
    shared: dict[str, Any],
) -> "list[SpecificityStudy]":
    from valueflow.dose.prompts import load_prompts
    from valueflow.study.nuisance import controlled, nuisances
    from valueflow.study.specificity_cards import common_decoding
    from valueflow.study.specificity_run import specificity_study

    asked, decoding = load_prompts("calibration")[:n_prompts], common_decoding(cards)
    vectors = {card.value: card.vector for card in cards}
    ends = {card.value: card.curve.usable_range_ for card in cards}
    if coefficient is not None:
        ends = dict.fromkeys(ends, (-coefficient, coefficient))
    found = {}
    if set(controls) - {"plain", "siblings"}:
        shared["stage"]("nuisance directions")
        found = nuisances(loaded, vidb, vectors, prompts=asked, template=decoding.template)
    return [
        specificity_study(
            loaded,
            controlled(vectors, control, **found),
            ends,
            evaluators,
            prompts=asked,
            control=control,
            n_placebos=placebos,
            decoding=decoding,
            seed=seed,
            **shared,
        )
        for control in controls
    ]


def _cards(model: str, folder: Path | None, values: list[str]) -> "list[Card]":
    from valueflow.dose.released import load_released
    from valueflow.dose.steerer import load_card
    from valueflow.errors import InvalidInput

    if folder is None:
        found = load_released(model)
    else:
        found = [load_card(path.parents[1]) for path in folder.glob("*/card/calibration.json")]
    own = {card.value: card for card in found}
    kept = [own[value] for value in values if value in own]
    if not kept:
        raise InvalidInput(f"no cards of {', '.join(values)}; build them with `release build`")
    return kept


def _show(study: "SpecificityStudy", seed: int) -> None:
    from valueflow.study.specificity import CircleAgreement, own_effects, specificity_summary

    for kind, matrix in (("raw", study.raw), ("standardised", study.standardised)):
        if matrix is None:
            continue
        own = own_effects(matrix)
        line = f"{study.control}, {kind}: own effect largest for "
        line += f"{sum(row.largest for row in own)} of {len(own)}"
        circle = specificity_summary(matrix, seed=seed).get("circle")
        if circle is not None:
            found = CircleAgreement(**circle)  # pyright: ignore[reportCallIssue]
            line += f"; circle r {found.correlation:+.2f} (p {found.p:.4f})"
            line += f"; opposite moves the other way in {len(found.opposed)} of "
            line += f"{len(found.with_opposite)}"
        typer.echo(line)
    for row in own_effects(study.raw):
        side = study.sides[row.value]
        typer.echo(
            f"{row.value}: {row.effect:+.2f}, next {row.other} (margin {row.margin:+.2f}, "
            f"{row.ci[0]:+.2f} to {row.ci[1]:+.2f}); words {side.words_change[0]:+.1f}, "
            f"tone {side.tone_change[0]:+.2f}, degenerate {side.degenerate[0]:.0%} / "
            f"{side.degenerate[2]:.0%}, damage {side.damage[0]:.2f} / {side.damage[1]:.2f}"
        )
