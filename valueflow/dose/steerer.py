"""Generation at measured intensities: `steerer.generate(prompts, {"power": +4})`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from valueflow import artifacts
from valueflow.dose.calibrate import Calibration
from valueflow.dose.curve import DoseCurve
from valueflow.dose.inverse import Unreachable
from valueflow.dose.stale import check_decodings, check_evaluator, check_model, check_vector
from valueflow.dose.sweep import Decoding, sweep
from valueflow.errors import InvalidInput, StaleArtifact, UnknownName
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.hives.profile import ValueProfile
from valueflow.models.chat import checked_texts, format_used
from valueflow.models.loading import LoadedModel, fingerprint
from valueflow.registry import unknown_name
from valueflow.steering.store import check_fits, load_vector, save_vector
from valueflow.steering.vector import SteeringVector
from valueflow.theories import get_value

T = TypeVar("T")
Targets = Mapping[str, float | int]
"""Value -> intensity."""


class UnreachableTarget(InvalidInput):
    """A target intensity that the calibrated curve does not reach; says what it does reach."""


@dataclass(frozen=True)
class Card:
    """What is kept of a calibration: enough to steer, and to say how it was measured.

    Attributes:
        vector: what is injected.
        curve: coefficient -> intensity.
        decoding: the generation settings that the curve holds for.
        provenance: model, judge, panel, prompts, seed.
        measured: what was found beside the curve, as plain JSON: arms, placebos, targets on new
            prompts, the scale's own noise. Empty where nothing was kept.
    """

    vector: SteeringVector
    curve: DoseCurve
    decoding: Decoding
    provenance: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> str:
        """Id of the value."""
        return get_value(self.vector.value).id


class Steerer:
    """A model with calibrated vectors.

    Args:
        loaded: the model that the calibrations were made on.
        calibrations: one per value.
        evaluators: whose intensities the targets are to be, by any name of a value; a calibration
            measured by another judge or panel is refused. None trusts the cards, and so are those
            trusted whose value is not named.

    Raises:
        StaleArtifact: a calibration of another model, tokenizer, chat template, layer set, judge or
            panel; names the field. Also at `generate`, for what was changed since, and for decoding
            settings with another format of prompts.
        InvalidInput: two calibrations of one value, an evaluator of a value without one, or
            differing decoding settings.
        UnknownName: an evaluator of what is no value.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        calibrations: Sequence[Calibration | Card],
        *,
        evaluators: Mapping[str, AnchorEvaluator] | None = None,
    ) -> None:
        self.loaded = loaded
        self.cards: dict[str, Card] = {}
        for calibration in calibrations:
            card = _card(calibration)
            if card.value in self.cards:
                raise InvalidInput(f"two calibrations of {card.value}; give one")
            self.cards[card.value] = card
        self._check_model()
        for card in self.cards.values():
            check_vector(card.value, card.provenance, card.vector)
        for value, evaluator in _by_id("evaluators", evaluators or {}).items():
            if value not in self.cards:
                raise InvalidInput(
                    f"evaluators: expected values with a calibration "
                    f"({', '.join(self.cards) or 'there is none'}), got one of {value}; leave it "
                    "out, or give the calibration"
                )
            check_evaluator(value, self.cards[value].provenance, evaluator)
        check_decodings({value: card.decoding for value, card in self.cards.items()})

    def coefficient(self, value: str, target: float | int) -> float:
        """The coefficient that gives the target intensity.

        Raises:
            UnknownName: the value is not calibrated here.
            InvalidInput: the target is no finite number.
            UnreachableTarget: outside the curve; says which intensities are reachable.
        """
        value_id = get_value(value).id
        if not self.cards:
            raise UnknownName(
                f"no value is calibrated here: expected a calibration of {value_id}, got no cards; "
                "give them, as from load_released or load_card"
            )
        if value_id not in self.cards:
            raise unknown_name("calibrated value", value_id, self.cards)
        if isinstance(target, bool) or not isinstance(target, Real):
            raise InvalidInput(
                f"target of {value_id}: expected an intensity, which is a number, got {target!r}; "
                "leave the value out where it is not to be steered"
            )
        dose = self.cards[value_id].curve.inverse(float(target))
        if isinstance(dose, Unreachable):
            raise UnreachableTarget(
                f"{value_id} {target:+.1f} is out of reach on {self.loaded.name}: its calibrated "
                f"range is {dose.lowest:+.2f} to {dose.highest:+.2f}; ask within it, or leave "
                f"{value_id} out"
            )
        return dose.coefficient

    def profile_targets(self, profile: ValueProfile) -> dict[str, float]:
        """Value id -> intensity of the profile's values that are calibrated here.

        Values that a single text speaks of, or none, are left out: they are not known well enough.
        The intensities are taken as they are, though a profile draws them to the middle of the
        scale; whether they are within reach, `coefficient` says.

        Raises:
            InvalidInput: no such value; names those of the profile and those calibrated.
        """
        known = [value for value, score in profile.scores.items() if score.status == "ok"]
        usable = {v: profile.scores[v].intensity for v in known if v in self.cards}
        if not usable:
            raise InvalidInput(
                "nothing of the profile can be steered: several texts speak of "
                f"{', '.join(known) or 'no value'}, calibrated is "
                f"{', '.join(self.cards) or 'none'}"
            )
        return usable

    def generate(
        self,
        prompts: Sequence[str],
        targets: Targets | Sequence[Targets] = (),
        *,
        profile: ValueProfile | None = None,
        decoding: Decoding | None = None,
    ) -> list[str]:
        """One answer per prompt at the target intensities.

        Args:
            prompts: user messages; the model's own chat format is added.
            targets: value -> intensity, for all prompts or one mapping per prompt; no target, no
                steering. Several values at once are added up, each by its own curve; how far they
                disturb each other is not corrected for.
            profile: somebody's values, for all prompts: `profile_targets` of it. A value that is
                in `targets` too has the intensity given there.
            decoding: None for the settings that were calibrated; others void the calibration, and
                with another format of prompts they are refused.

        Raises:
            UnreachableTarget, UnknownName: as `coefficient`; nothing is generated then.
            InvalidInput: as many mappings as prompts are needed; no value of the profile is usable;
                a value under two names, or a target that is no number; one string for prompts.
            StaleArtifact: the calibrations hold for another format of prompts than `decoding`; or
                model, tokenizer or chat template have been changed, names which.
        """
        cells = self._cells(prompts, targets, profile)
        self._check_model()
        decoding = self._decoding(decoding)
        vectors = {value: card.vector for value, card in self.cards.items()}
        answers = []
        for cell in _distinct(cells):
            rows = [i for i, own in enumerate(cells) if own == cell]
            grid = sweep(
                self.loaded, vectors, [cell], [prompts[i] for i in rows], decoding=decoding
            )
            answers += zip(rows, grid.texts[0], strict=True)
        return [text for _, text in sorted(answers)]

    def _cells(
        self,
        prompts: Sequence[str],
        targets: Targets | Sequence[Targets],
        profile: ValueProfile | None,
    ) -> list[dict[str, float]]:
        """The coefficients of every prompt, by value."""
        wanted = _per_prompt(prompts, targets)
        base = {} if profile is None else self.profile_targets(profile)
        merged = [base | _by_id("targets", mapping) for mapping in wanted]
        return [{v: self.coefficient(v, x) for v, x in mapping.items()} for mapping in merged]

    def _check_model(self) -> None:
        """Refuse cards of another model, tokenizer or chat template than these are now."""
        if not self.cards:
            return
        here = fingerprint(self.loaded.model, self.loaded.tokenizer)
        for card in self.cards.values():
            check_fits(card.vector, self.loaded, here=here)
            check_model(card.value, card.provenance, self.loaded, here=here)

    def _decoding(self, given: Decoding | None) -> Decoding | None:
        """The settings to use: those calibrated, or others with the same format of prompts."""
        calibrated = next((card.decoding for card in self.cards.values()), None)
        if given is None or calibrated is None:
            return given or calibrated
        formats = [
            format_used(self.loaded.tokenizer, decoding.template)
            for decoding in (calibrated, given)
        ]
        if formats[0] != formats[1]:
            raise StaleArtifact(
                f"the calibrations hold for template {formats[0]!r}, and generation was asked for "
                f"with {formats[1]!r}; calibrate with that template"
            )
        return given


def save_card(
    calibration: Calibration | Card, folder: str | Path, *, overwrite: bool = False
) -> None:
    """Write the vector and the calibration card into `folder/vector` and `folder/card`."""
    card, folder = _card(calibration), Path(folder)
    metadata = {
        "value": card.value,
        "curve": card.curve.to_dict(),
        "decoding": asdict(card.decoding),
        "provenance": card.provenance,
        "measured": card.measured,
        "usable_range": [float(x) for x in card.curve.usable_range_],
        "reachable": [float(x) for x in np.sort(card.curve.predict(card.curve.usable_range_))],
    }
    # Written last: what cannot be told leaves no half of a card behind.
    save_vector(card.vector, folder / "vector", overwrite=overwrite)
    artifacts.save(folder / "card", "calibration", {}, metadata, overwrite=overwrite)


def load_card(folder: str | Path) -> Card:
    """A card written by `save_card`.

    Raises:
        ArtifactError: missing or damaged.
    """
    folder = Path(folder)
    _, metadata = artifacts.load(folder / "card", "calibration")
    curve, decoding = DoseCurve.from_dict(metadata["curve"]), Decoding(**metadata["decoding"])
    vector, provenance = load_vector(folder / "vector"), metadata["provenance"]
    return Card(vector, curve, decoding, provenance, metadata.get("measured", {}))


def _card(calibration: Calibration | Card) -> Card:
    if isinstance(calibration, Card):
        return calibration
    c = calibration
    return Card(c.vector, c.curve, c.decoding, c.provenance)


def _per_prompt(prompts: Sequence[str], targets: Targets | Sequence[Targets]) -> Sequence[Targets]:
    """One mapping per prompt, empty where there are no targets."""
    prompts = checked_texts("prompts", prompts)
    wanted = [targets] * len(prompts) if isinstance(targets, Mapping) else targets
    if not isinstance(wanted, Sequence) or not all(isinstance(one, Mapping) for one in wanted):
        raise InvalidInput(
            "targets: expected a mapping of values to intensities, as {'power': 3}, or one per "
            f"prompt, got {targets!r}"
        )
    if wanted and len(wanted) != len(prompts):
        raise InvalidInput(f"{len(prompts)} prompts but {len(wanted)} target mappings")
    return wanted or [{}] * len(prompts)


def _by_id(what: str, given: Mapping[str, T]) -> dict[str, T]:
    """What is given by any names of values, by their ids; two names of one value are refused."""
    names: dict[str, str] = {}
    for name in given:
        first = names.setdefault(get_value(name).id, name)
        if first != name:
            raise InvalidInput(
                f"{what}: expected each value once, got {get_value(name).id} as {first!r} and as "
                f"{name!r}; leave one of them out"
            )
    return {value: given[name] for value, name in names.items()}


def _distinct(cells: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []
    for cell in cells:
        if cell not in seen:
            seen.append(cell)
    return seen
