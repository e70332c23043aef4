"""Vectors that were released with their calibrations, by the name of their model.

They lie beside the package, in `vectors/<model>/<value>/`, as in a checkout of the repository. An
installation from a wheel does not carry them: the variable VALUEFLOW_VECTORS names a folder that
does.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import valueflow
from valueflow.dose.steerer import Card, load_card
from valueflow.errors import InvalidInput
from valueflow.models.chat import checked_texts
from valueflow.registry import unknown_name
from valueflow.theories import get_value

VARIABLE = "VALUEFLOW_VECTORS"


def places() -> tuple[Path, ...]:
    """Where released vectors are looked for, the first of which has a model counts."""
    beside = Path(valueflow.__file__).resolve().parents[1] / "vectors"
    named = os.environ.get(VARIABLE)
    return (Path(named).expanduser(), beside) if named else (beside,)


def released_models() -> dict[str, Path]:
    """Names of models with released vectors, and where they are."""
    found: dict[str, Path] = {}
    for place in places():
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            if any(folder.glob("*/card/calibration.json")):
                found.setdefault(folder.name, folder)
    return found


def released_folder(model: str) -> Path:
    """The folder of a model's released vectors.

    Args:
        model: its packaged name, or a hub id or path, of which the last part counts.

    Raises:
        UnknownName: none for this model; names those there are, and where they were looked for.
    """
    found = released_models()
    name = model.rstrip("/").rpartition("/")[2].lower()
    if name in found:
        return found[name]
    looked = ", ".join(map(str, places()))
    if not found:
        raise InvalidInput(
            f"no released vectors in {looked}; name a folder that has them in {VARIABLE} (the "
            "repository's vectors/), or calibrate and give the card"
        )
    raise unknown_name("model with released vectors", name, found)


def load_released(model: str, values: Sequence[str] | None = None) -> list[Card]:
    """The released calibrations of a model, of all values or of some; `Steerer` takes them.

    Whether they fit the model at hand, `Steerer` says.

    Args:
        model: as `released_folder`.
        values: ids or names; None for all.

    Raises:
        UnknownName: nothing for the model, or not for a value; names near misses.
        InvalidInput: one string for the values, or nothing is released here.
        ArtifactError: a card is damaged.
    """
    if values is not None:
        values = checked_texts("values", values)
    folder = released_folder(model)
    known = {path.parent.parent.name: path.parent.parent for path in
             sorted(folder.glob("*/card/calibration.json"))}  # fmt: skip
    if values is None:
        return [load_card(path) for path in known.values()]
    wanted = [get_value(value).id for value in values]
    for value in wanted:
        if value_folder(value) not in known:
            names = [name.replace("-", "/", 1) for name in known]
            raise unknown_name(f"value released for {folder.name}", value, names)
    return [load_card(known[value_folder(value)]) for value in dict.fromkeys(wanted)]


def value_folder(value: str) -> str:
    """Name of a value's folder: `svt/power` is `svt-power`."""
    return get_value(value).id.replace("/", "-")
