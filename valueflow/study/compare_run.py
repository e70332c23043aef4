"""A comparison of many values on one model: each value's measurement is kept when it is done."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import valueflow
from valueflow.artifacts import write_file
from valueflow.dose.calibrate import TARGETS, Stage, calibrate
from valueflow.dose.prompts import load_prompts
from valueflow.dose.stale import check_evaluator
from valueflow.dose.steerer import Card, load_card, save_card
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput, ValueflowError
from valueflow.evaluate import vidb_evaluator
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.judges.base import Judge
from valueflow.models.loading import LoadedModel
from valueflow.prompting.wording import templates_hash
from valueflow.steering.derivation import derive
from valueflow.study.compare import RANDOM_DRAWS, Measurement, compare_value
from valueflow.study.compare_store import folder_of, load_measurement, plain, save_measurement
from valueflow.study.compare_summary import Summary, summarise
from valueflow.theories import get_value
from valueflow.vidb import Vidb


@dataclass(frozen=True)
class Comparison:
    """How a comparison is made.

    Attributes:
        prompts: for verification.
        calibration_prompts: where a value has no card; a card brings its own.
        targets: intensities asked of every way.
        decoding: where a value has no card.
        judge: name of the judge, which cards must have been made with.
        n_random: random directions per value.
        seed: of everything that chance decides; the evaluator of a card has the card's seed.
    """

    prompts: tuple[str, ...]
    calibration_prompts: tuple[str, ...]
    targets: tuple[float, ...] = TARGETS
    decoding: Decoding = field(default_factory=Decoding)
    judge: str = "hives"
    n_random: int = RANDOM_DRAWS
    seed: int = 0


def comparison(
    *, n_prompts: int, n_calibration: int, max_new_tokens: int, judge: str, seed: int
) -> Comparison:
    """With the first prompts of the shipped suites.

    Raises:
        InvalidInput: fewer than 2 prompts, or more than a suite has.
    """
    suites = {
        "verification": (load_prompts("verification"), n_prompts),
        "calibration": (load_prompts("calibration"), n_calibration),
    }
    for name, (suite, n) in suites.items():
        if not 2 <= n <= len(suite):
            raise InvalidInput(f"{name} prompts: expected 2 to {len(suite)}, got {n}")
    return Comparison(
        prompts=tuple(suites["verification"][0][:n_prompts]),
        calibration_prompts=tuple(suites["calibration"][0][:n_calibration]),
        decoding=Decoding(max_new_tokens=max_new_tokens),
        judge=judge,
        seed=seed,
    )


def cards_by_value(folders: Sequence[str | Path]) -> dict[str, Card]:
    """Saved cards by the id of their value.

    Raises:
        ArtifactError: a folder without a card.
        InvalidInput: two cards of one value.
    """
    cards: dict[str, Card] = {}
    for folder in folders:
        card = load_card(folder)
        if card.value in cards:
            raise InvalidInput(f"{folder}: a second card of {card.value}; give one")
        cards[card.value] = card
    return cards


def run_comparison(
    loaded: LoadedModel,
    values: Sequence[str],
    out: Path,
    how: Comparison,
    *,
    vidb: Vidb,
    judge: Judge,
    cards: Mapping[str, Card] | None = None,
    stage: Stage | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """Measure every value that `out` does not hold yet.

    A value's measurement is written when it is complete, to `out/values`, its new card to
    `out/cards`: a run that was killed goes on with the value it was at. A value that cannot be
    measured does not keep the others from it.

    Args:
        loaded: the model.
        values: ids or names, each once.
        out: folder of results; what it holds must have been made with the same settings.
        how: prompts, targets, decoding, seed.
        vidb: the graded texts.
        judge: of that name.
        cards: by value id; other values are derived and calibrated.
        stage: progress within a value.
        tell: told in a line what is done.

    Returns:
        Measurements by value id, and by value id why there is none.

    Raises:
        StaleArtifact: `out` holds a measurement with other settings, or by another judge.
    """
    cards, say = cards or {}, tell or (lambda _line: None)
    judged_by = judge.fingerprint()  # once: it reads all of the judge's weights
    ids = [get_value(value).id for value in values]
    found: dict[str, Measurement] = {}
    failed: dict[str, str] = {}
    todo = []
    for value in dict.fromkeys(ids):
        settings = settings_of(value, how, loaded, vidb, cards.get(value), judged_by)
        folder = folder_of(out, value)
        if folder.exists():
            found[value] = load_measurement(folder, settings)
            say(f"{value}: measured before")
        else:
            todo.append((value, settings, folder))
    for number, (value, settings, folder) in enumerate(todo, start=1):
        named = f"{value} ({number} of {len(todo)})"
        inner = None if stage is None else _named(stage, named)
        try:
            card, evaluator = _prepared(loaded, value, how, vidb, judge, cards.get(value), inner)
            made = compare_value(
                loaded,
                card,
                evaluator,
                vidb,
                prompts=how.prompts,
                targets=how.targets,
                n_random=how.n_random,
                seed=how.seed,
                stage=inner,
            )
        except ValueflowError as error:
            failed[value] = str(error)
            say(f"{named}: {error}")
            continue
        if value not in cards:
            save_card(card, out / "cards" / folder.name, overwrite=True)
        save_measurement(made, settings, folder)
        found[value] = made
        say(f"{named}: done")
    return {value: found[value] for value in dict.fromkeys(ids) if value in found}, failed


def settings_of(
    value: str,
    how: Comparison,
    loaded: LoadedModel,
    vidb: Vidb,
    card: Card | None,
    judge_fingerprint: str,
) -> dict[str, Any]:
    """What a measurement depends on, as plain JSON."""
    return plain(
        {
            "value": value,
            "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
            "vidb": vidb.fingerprint(),
            "instructions": templates_hash(),
            "card": None if card is None else _hash(card),
            "judge_fingerprint": judge_fingerprint,
            **{k: v for k, v in asdict(how).items() if card is None or k not in _CARDS},
        }
    )


def write_comparison(
    out: Path, summaries: Mapping[str, Summary], failed: Mapping[str, str], how: Comparison
) -> dict[str, Any]:
    """Write `comparison.json`: every figure of every value; gives it as plain JSON."""
    result = plain(
        {
            "version": valueflow.__version__,
            "settings": asdict(how),
            "values": {value: asdict(summary) for value, summary in summaries.items()},
            "failed": dict(failed),
            "counts": counts(list(summaries.values())),
        }
    )
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(out / "comparison.json", f"{text}\n".encode())
    return result


def summaries_of(measured: Mapping[str, Measurement], how: Comparison) -> dict[str, Summary]:
    """The figures of every value."""
    return {value: summarise(m, seed=how.seed) for value, m in measured.items()}


def counts(summaries: Sequence[Summary]) -> dict[str, int]:
    """For how many values activation steering reached further than the better prompting did.

    "wider" by mean range, "surely" with an interval of the difference above 0, "narrower" with one
    below 0; "wider_kept" by the range within the damage limit on the verification prompts. A
    difference without an interval, which too few prompts have, is neither surely nor narrower.
    """
    named = [(s, s.differences[f"activation - {s.prompting}"]) for s in summaries if s.prompting]
    return {
        "values": len(named),
        "wider": sum(d.mean > 0 for _, d in named),
        "surely": sum(d.low > 0 for _, d in named),
        "narrower": sum(d.high < 0 for _, d in named),
        "wider_kept": sum(
            s.ways["activation"].kept.mean > s.ways[s.prompting].kept.mean for s, _ in named
        ),
    }


_CARDS = ("calibration_prompts", "decoding")
"""Settings that a card brings itself."""


def _prepared(
    loaded: LoadedModel,
    value: str,
    how: Comparison,
    vidb: Vidb,
    judge: Judge,
    card: Card | None,
    stage: Stage | None,
) -> tuple[Card, AnchorEvaluator]:
    """The value's card, made if there is none, and the evaluator it was made with."""
    tell = stage or (lambda _name: None)
    tell("scale")
    seed = how.seed if card is None else int(card.provenance["seed"])
    evaluator = vidb_evaluator(vidb, value, judge, seed=seed)
    if card is not None:
        check_evaluator(card.value, card.provenance, evaluator)
        return card, evaluator
    prompts = list(how.calibration_prompts)
    vector = derive(
        loaded,
        vidb,
        value,
        prompts=prompts,
        template=how.decoding.template,
        seed=how.seed,
        progress=tell("derive"),
    )
    made = calibrate(
        loaded,
        vector,
        evaluator,
        prompts=prompts,
        decoding=how.decoding,
        seed=how.seed,
        stage=stage,
    )
    return Card(made.vector, made.curve, made.decoding, made.provenance), evaluator


def _named(stage: Stage, value: str) -> Stage:
    return lambda name: stage(f"{value}: {name}")


def _hash(card: Card) -> str:
    state = [
        card.curve.to_dict(),
        card.provenance,
        asdict(card.decoding),
        # Norms and directions to a few digits: bits of the last place are no other vector.
        {str(i): [round(x, 5) for x in d.tolist()] for i, d in card.vector.directions.items()},
    ]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
