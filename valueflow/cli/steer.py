"""`valueflow steer`: answers at chosen intensities."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from valueflow.cli.common import (
    JsonFile,
    Model,
    load_model,
    read_prompts,
    read_text,
    stages,
    write_json,
)

if TYPE_CHECKING:
    from valueflow.dose.steerer import Card
    from valueflow.evaluate.evaluator import AnchorEvaluator

EXAMPLE = "valueflow steer smollm2-135m-instruct --set power=+4 --prompt 'Who decides?'"


def run(
    model: Model,
    card: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that `calibrate` wrote; repeatable. Else the released cards."),
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--set", help="VALUE=INTENSITY on -10 to 10; repeatable.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="JSON of `valueflow profile`; --set goes before it.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A value of the profile to leave out, say one out of reach; repeatable."),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A user message; repeatable.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with one prompt a line.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Refuse cards that another judge or panel measured.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Answer prompts at calibrated intensities of one value or several, or of a value profile."""
    from valueflow.errors import InvalidInput

    wanted = _targets(targets or [])
    if not wanted and profile is None:
        raise InvalidInput("nothing to express: give --set VALUE=INTENSITY or --profile FILE")
    left_out = _left_out(without or [], profile)
    asked = _prompts(prompt or [], prompts)
    person = None if profile is None else read_text(profile)
    from valueflow.dose.released import load_released
    from valueflow.dose.steerer import Steerer, load_card
    from valueflow.hives.profile import ValueProfile

    person = None if person is None else ValueProfile.from_json(person)
    if card:
        cards = [load_card(folder) for folder in card]
    else:
        cards = load_released(model, None if person is not None else list(wanted))
    with stages() as stage:
        stage("load")
        steerer = Steerer(load_model(model), cards, evaluators=_evaluators(judge, cards))
        if person is not None:
            of_profile = steerer.profile_targets(person)
            wanted = {v: x for v, x in of_profile.items() if v not in left_out} | wanted
        if not wanted:
            raise InvalidInput("nothing to express: --without leaves out all that could be steered")
        coefficients = {value: steerer.coefficient(value, x) for value, x in wanted.items()}
        stage("generate")
        answers = steerer.generate(asked, wanted)
    for question, answer in zip(asked, answers, strict=True):
        typer.echo(f"> {question}\n{answer}\n")
    rows = [
        {"prompt": question, "response": answer}
        for question, answer in zip(asked, answers, strict=True)
    ]
    result = {"targets": wanted, "coefficients": coefficients, "answers": rows}
    write_json(json_file, {"model": model, **result})


def _left_out(names: list[str], profile: Path | None) -> set[str]:
    from valueflow.errors import InvalidInput
    from valueflow.theories import get_value

    if names and profile is None:
        raise InvalidInput("--without leaves values of a --profile out, and none is given")
    return {get_value(name).id for name in names}


def _evaluators(judge: str | None, cards: "list[Card]") -> "dict[str, AnchorEvaluator] | None":
    """What the cards must have been measured by."""
    if judge is None:
        return None
    from valueflow.evaluate import vidb_evaluator
    from valueflow.judges.base import get_judge
    from valueflow.vidb import load_starter

    vidb, ruler = load_starter(), get_judge(judge)
    return {c.value: vidb_evaluator(vidb, c.value, ruler, seed=0) for c in cards}


def _targets(settings: list[str]) -> dict[str, float]:
    from valueflow.errors import InvalidInput
    from valueflow.theories import get_value

    targets: dict[str, float] = {}
    for setting in settings:
        name, equals, number = setting.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"--set {setting!r}: expected VALUE=INTENSITY, such as power=+4")
        try:
            intensity = float(number)
        except ValueError:
            intensity = math.nan
        if not math.isfinite(intensity):
            raise InvalidInput(f"--set {setting!r}: {number!r} is not a number; write power=+4")
        value = get_value(name.strip()).id
        if value in targets:
            raise InvalidInput(f"--set {setting!r}: {value} is set twice")
        targets[value] = intensity
    return targets


def _prompts(given: list[str], file: Path | None) -> list[str]:
    from valueflow.errors import InvalidInput

    asked = given + ([] if file is None else read_prompts(file))
    if not asked or not all(text.strip() for text in asked):
        raise InvalidInput("nothing to answer: give --prompt TEXT or --prompts FILE")
    return asked
