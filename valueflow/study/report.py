"""What a calibration showed, as plain JSON, and as a page that needs nothing but itself.

`results` computes and `write_report` writes; neither does the other's work.
"""

import base64
import json
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import valueflow
from valueflow.dose.arms import Arm, row_means
from valueflow.dose.calibrate import Calibration, Verified, mean_absolute_error, rank_correlation
from valueflow.errors import InvalidInput
from valueflow.study._image import image_bytes

PLACEBOS = {"random": "random directions", "shuffled": "label-shuffled"}
"""Kinds of placebo that are reported, with what they are called."""


def results(
    calibration: Calibration,
    verified: Sequence[Verified],
    *,
    value: str,
    seconds: float | int,
    n_verification: int,
    second_judge: str | None = None,
    vidb_fingerprint: str | None = None,
) -> dict[str, Any]:
    """What was measured, as plain JSON: string keys, lists, null for NaN and infinity.

    Args:
        calibration: placebos of other kinds than "random" and "shuffled" are left out.
        verified: one row per target.
        value: id of the value.
        seconds: wall time of the whole study.
        n_verification: number of prompts that the targets were asked of.
        second_judge: name of the confirming judge; None if there was none.
        vidb_fingerprint: of the database behind vector, judge and panel.

    Returns:
        `layer` is an int, or a list where the vector has several. `coefficients`, `intensity`,
        `intensity_ci` and `damage_nll` go together. `placebo_intensity` (random directions) and
        `shuffled_intensity` have a list per draw, over the `placebo_coefficients`. `changes` are
        signed, over the usable range: the vector's, and per kind a list of one per draw;
        `placebo_change` has per kind the mean of their sizes, and the span ratios are the size of
        the vector's in units of that. `arms` holds the vector's measurements, and per kind a list
        of each draw's. What belongs to a kind is null if there is none of it. `spearman` and `span`
        hold for `usable_range`; `mae` for the reachable targets. `n_prompts` is the sum of
        `prompts_calibration` and `prompts_verification`, which are numbers too.
    """
    curve, own = calibration.curve, calibration.arm
    layers, known = calibration.vector.layers, calibration.provenance
    return _plain(
        {
            "model": known["model"]["name"],
            "value": value,
            "layer": layers[0] if len(layers) == 1 else list(layers),
            "coefficients": own.coefficients,
            "intensity": own.means,
            "intensity_ci": _intervals(calibration),
            "damage_nll": row_means(own.damage),
            "damage_limit": curve.damage_limit,
            "spearman": curve.spearman_,
            "usable_range": curve.usable_range_,
            "span": curve.span_,
            **_changes(calibration),
            "targets": [asdict(row) for row in verified],
            "mae": mean_absolute_error(verified),
            "second_judge": _second(calibration, second_judge),
            "judge": known["judge"],
            "seed": known["seed"],
            "n_prompts": len(known["prompts"]) + n_verification,
            "prompts_calibration": len(known["prompts"]),
            "prompts_verification": n_verification,
            "decoding": asdict(calibration.decoding),
            "fingerprints": {
                "model": known["model"],
                "evaluator": known.get("evaluator"),
                "panel": known.get("panel"),
                "vidb": vidb_fingerprint,
            },
            "seconds": seconds,
            "version": valueflow.__version__,
        }
    )


def write_report(
    folder: str | Path,
    results_dict: Mapping[str, Any],
    figure: Figure,
    examples: Sequence[Mapping[str, Any]],
) -> None:
    """Write `results.json`, `dose.png` and `report.html` into a folder, replacing older ones.

    All three are made in memory first and appear by renaming: a failure leaves the older files.

    Args:
        folder: made if it is not there.
        results_dict: what `results` gave.
        figure: what `dose_figure` gave.
        examples: each with `prompt` and `answers`, and those with `target`, `status`, `nearest`,
            `coefficient` and `text`.

    Raises:
        InvalidInput: results that are no plain JSON.
    """
    try:
        text = json.dumps(results_dict, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"results are no plain JSON ({error}); pass what `results` gave"
        ) from None
    image = image_bytes(figure)
    page = _page(results_dict, image, examples)
    files = {
        "results.json": f"{text}\n".encode(),
        "dose.png": image,
        "report.html": page.encode(),
    }
    _write(Path(folder), files)


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "coefficients": arm.coefficients,
        "intensity": arm.means,
        "damage_nll": row_means(arm.damage),
        "degenerate": arm.degenerate,
        "outside_panel": arm.outside,
    }


def _changes(calibration: Calibration) -> dict[str, Any]:
    """Vector and placebos side by side; null for a kind without draws."""
    own, ends = calibration.arm, calibration.curve.usable_range_
    found = {kind: calibration.placebos.get(kind, ()) for kind in PLACEBOS}

    def each(what: Callable[[Arm], Any]) -> dict[str, list[Any] | None]:
        return {kind: [what(arm) for arm in draws] or None for kind, draws in found.items()}

    def together(what: Callable[[str], float]) -> dict[str, float | None]:
        return {kind: what(kind) if draws else None for kind, draws in found.items()}

    means, ratios = each(lambda arm: arm.means), together(calibration.span_ratio)
    return {
        "placebo_coefficients": next((d[0].coefficients for d in found.values() if d), None),
        "placebo_intensity": means["random"],
        "shuffled_intensity": means["shuffled"],
        "placebo_change": together(calibration.placebo_change),
        "changes": {"vector": own.change(*ends)} | each(lambda arm: arm.change(*ends)),
        "span_ratio_random": ratios["random"],
        "span_ratio_shuffled": ratios["shuffled"],
        "arms": {"vector": _arm(own)} | each(_arm),
    }


def _intervals(calibration: Calibration) -> list[list[float]]:
    """The curve's intervals by coefficient; NaN where it left one out."""
    curve = calibration.curve
    known = dict(zip(curve.coefficients_.tolist(), curve.ci_.tolist(), strict=True))
    nothing = [math.nan, math.nan]
    return [known.get(c, nothing) for c in calibration.arm.coefficients]


def _second(calibration: Calibration, name: str | None) -> dict[str, Any] | None:
    """What the confirming judge saw; its sign and order within the usable range."""
    own = calibration.arm
    if own.second is None:
        return None
    lower, upper = calibration.curve.usable_range_
    inside = [i for i, c in enumerate(own.coefficients) if lower <= c <= upper]
    # One mean per coefficient, in the shape of an arm.
    means = np.tile(np.array(own.second, dtype=np.float64)[:, None], own.intensities.shape[1])
    theirs = replace(own, intensities=means)
    return {
        "name": name,
        "intensity": own.second,
        "spearman": rank_correlation(
            [own.coefficients[i] for i in inside], [own.second[i] for i in inside]
        ),
        "same_sign": own.change(lower, upper) * theirs.change(lower, upper) > 0,
    }


def _plain(data: Any) -> Any:
    """Data as JSON types; what is no finite number is null."""
    if isinstance(data, Mapping):
        return {str(key): _plain(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(item) for item in data]
    if isinstance(data, np.generic | np.ndarray):
        return _plain(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def _page(data: Mapping[str, Any], image: bytes, shown: Sequence[Mapping[str, Any]]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # What a model wrote is hostile input: everything is escaped, nothing marked safe.
    environment = Environment(
        loader=PackageLoader("valueflow", "study/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=_signed, number=_number, share=_share)
    return environment.get_template("report.html.j2").render(
        r=data,
        image=base64.b64encode(image).decode(),
        examples=shown,
        placebos=_placebo_table(data),
    )


def _placebo_table(data: Mapping[str, Any]) -> dict[str, Any]:
    """Draws by kind, and the coefficients that any was measured at; None where a draw was not."""
    arms = {kind: data["arms"][kind] for kind in PLACEBOS if data["arms"][kind]}
    every = sorted({c for found in arms.values() for arm in found for c in arm["coefficients"]})

    def cells(arm: Mapping[str, Any], key: str, at: Sequence[float]) -> list[float | None]:
        own = dict(zip(arm["coefficients"], arm[key], strict=True))
        return [own.get(c) for c in at]

    ends = [c for c in every if c != 0]
    kinds = [
        {
            "name": PLACEBOS[kind],
            "change": data["placebo_change"][kind],
            "ratio": data[f"span_ratio_{kind}"],
            "draws": [
                {
                    "intensity": cells(arm, "intensity", every),
                    "change": change,
                    "damage": cells(arm, "damage_nll", ends),
                }
                for arm, change in zip(found, data["changes"][kind], strict=True)
            ],
        }
        for kind, found in arms.items()
    ]
    return {"coefficients": every, "ends": ends, "kinds": kinds}


def _signed(number: float | int | None, digits: int = 1) -> str:
    """+2.1, −4.0, 0; a dash where there is none. Never a signed zero."""
    if number is None:
        return "–"
    text = f"{number:+.{digits}f}"
    if float(text) == 0:
        return "0"
    return text.replace("-", "−")


def _number(number: float | int | None, digits: int = 2) -> str:
    return "–" if number is None else f"{number:.{digits}f}".replace("-", "−")


def _share(number: float | int | None) -> str:
    return "–" if number is None else f"{number:.0%}"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    partial = {name: folder / f".{name}-{mark}" for name in files}
    try:
        for name, content in files.items():
            partial[name].write_bytes(content)
        for name, path in partial.items():
            os.replace(path, folder / name)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
