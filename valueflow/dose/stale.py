"""What a calibration holds for, and whether that is what is at hand.

A calibration is of one model, tokenizer, chat template, vector and layer set, and its intensities
are those of one judge with one panel. Anything else makes it stale, and the error names what.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput, StaleArtifact
from valueflow.evaluate.evaluator import SETTINGS, AnchorEvaluator
from valueflow.models.loading import LoadedModel, ModelFingerprint, fingerprint
from valueflow.steering.store import changed_since_load, vector_hash
from valueflow.steering.vector import SteeringVector

COMPARED = tuple(name for name in SETTINGS if name != "seed")
"""Settings of an evaluator that its intensities depend on, but for chance."""


def measured_by(evaluator: AnchorEvaluator) -> dict[str, Any]:
    """What a calibration says of the evaluator it was measured by."""
    return {
        "judge": evaluator.judge.name,
        "judge_fingerprint": evaluator.judge.fingerprint(),
        "evaluator": evaluator.fingerprint(),
        "evaluator_settings": {name: getattr(evaluator, name) for name in COMPARED},
        "panel": evaluator.panel.fingerprint(),
    }


def check_model(
    value: str,
    provenance: Mapping[str, Any],
    loaded: LoadedModel,
    *,
    here: ModelFingerprint | None = None,
) -> None:
    """Refuse another model, tokenizer or chat template than those at hand, as they are now.

    Args:
        value: what is calibrated, for messages.
        provenance: of the calibration.
        loaded: the model; what was changed since `load`, in place, counts as well.
        here: its fingerprint as it is now, where many cards are checked; None takes it.

    Raises:
        StaleArtifact: names the field, what the calibration is of, and what is here.
    """
    made_for = provenance["model"]
    for field, found in asdict(here or fingerprint(loaded.model, loaded.tokenizer)).items():
        mend = "calibrate on this model"
        if changed_since_load(loaded, made_for, field):
            mend = "it was changed after the model was loaded: undo that, or load the model again"
        _compare(value, field, made_for.get(field), found, mend)


def check_vector(value: str, provenance: Mapping[str, Any], vector: SteeringVector) -> None:
    """Refuse another layer set, or another vector at the same layers.

    Raises:
        StaleArtifact: as `check_model`. A calibration that does not say passes.
    """
    mend = "use the vector it was calibrated with, or calibrate this one"
    _compare(value, "layers", provenance.get("layers"), list(vector.layers), mend)
    if "vector" in provenance:
        _compare(value, "vector", provenance["vector"], vector_hash(vector), mend)


def check_evaluator(value: str, provenance: Mapping[str, Any], evaluator: AnchorEvaluator) -> None:
    """Refuse another judge, panel, or way of making windows; the seed may differ.

    Raises:
        StaleArtifact: as `check_model`. What the calibration does not say is not compared, but
            the judge's name and the panel always are.
    """
    here = measured_by(evaluator)
    mend = "its intensities are on another scale; calibrate with this evaluator"
    for field in ("judge", "panel"):
        _compare(value, field, provenance.get(field, "unknown"), here[field], mend)
    _compare(value, "judge", provenance.get("judge_fingerprint"), here["judge_fingerprint"], mend)
    told = provenance.get("evaluator_settings") or {}
    for name in COMPARED:
        _compare(value, name, told.get(name), here["evaluator_settings"][name], mend)


def check_decodings(decodings: Mapping[str, Decoding]) -> None:
    """Refuse calibrations, by value, that were not made with the same decoding settings.

    Raises:
        InvalidInput: names two of the values, and each setting that differs.
    """
    values = list(decodings)
    for value in values[1:]:
        first, own = asdict(decodings[values[0]]), asdict(decodings[value])
        differing = [
            f"{name} is {first[name]!r} for {values[0]} and {own[name]!r} for {value}"
            for name in own
            if own[name] != first[name]
        ]
        if differing:
            raise InvalidInput(
                "expected calibrations made with the same decoding settings, but "
                f"{', '.join(differing)}; use either alone, or calibrate again"
            )


def _compare(value: str, field: str, made: Any, here: Any, mend: str) -> None:
    if made is not None and made != here:
        raise StaleArtifact(
            f"the calibration of {value} is of another {field.replace('_', ' ')} "
            f"({made}, here {here}); {mend}"
        )
