"""What a calibration showed, as plain JSON, and as a page that needs nothing but itself.

`results` computes and `write_report` writes; neither does the other's work.
"""

import base64
import io
import json
import math
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import valueflow
from valueflow.dose.calibrate import (
    Arm,
    Calibration,
    Verified,
    mean_absolute_error,
    rank_correlation,
)
from valueflow.errors import InvalidInput

DPI = 180


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
        calibration: needs the arm "vector"; "random" and "shuffled" are null where absent.
        verified: one row per target.
        value: id of the value.
        seconds: wall time of the whole study.
        n_verification: number of prompts that the targets were asked of.
        second_judge: name of the confirming judge; None if there was none.
        vidb_fingerprint: of the database behind vector, judge and panel.

    Returns:
        `layer` is an int, or a list where the vector has several. `coefficients`, `intensity`,
        `intensity_ci` and `damage_nll` go together, as do `placebo_coefficients` and
        `placebo_intensity` (random direction; `shuffled_intensity` likewise). `spearman`, `span`
        and the span ratios (size of the vector's change in units of a placebo's) hold for
        `usable_range`; `mae` for the reachable targets. `n_prompts` is the
        sum of `prompts_calibration` and `prompts_verification`, which are numbers too.
    """
    curve, own = calibration.curve, calibration.arms["vector"]
    layers, known = calibration.vector.layers, calibration.provenance
    arms = {name: _arm(arm) for name, arm in calibration.arms.items()}
    random, shuffled = arms.get("random", {}), arms.get("shuffled", {})
    return _plain(
        {
            "model": known["model"]["name"],
            "value": value,
            "layer": layers[0] if len(layers) == 1 else list(layers),
            "coefficients": own.coefficients,
            "intensity": arms["vector"]["intensity"],
            "intensity_ci": _intervals(calibration),
            "damage_nll": arms["vector"]["damage_nll"],
            "damage_limit": curve.damage_limit,
            "placebo_coefficients": random.get("coefficients"),
            "placebo_intensity": random.get("intensity"),
            "shuffled_intensity": shuffled.get("intensity"),
            "spearman": curve.spearman_,
            "usable_range": curve.usable_range_,
            "span": curve.span_,
            "span_ratio_random": _span_ratio(calibration, "random"),
            "span_ratio_shuffled": _span_ratio(calibration, "shuffled"),
            "targets": [asdict(row) for row in verified],
            "mae": mean_absolute_error(verified),
            "second_judge": _second(calibration, second_judge),
            "arms": arms,
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
    image = _png(figure)
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
        "intensity": _row_means(arm.intensities),
        "damage_nll": _row_means(arm.damage),
        "degenerate": arm.degenerate,
        "outside_panel": arm.outside,
    }


def _row_means(matrix: np.ndarray) -> list[float]:
    with warnings.catch_warnings():
        # A coefficient at which nothing was measured has no mean, and says so by NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(matrix, axis=1).tolist()


def _intervals(calibration: Calibration) -> list[list[float]]:
    """The curve's intervals by coefficient; NaN where it left one out."""
    curve = calibration.curve
    known = dict(zip(curve.coefficients_.tolist(), curve.ci_.tolist(), strict=True))
    nothing = [math.nan, math.nan]
    return [known.get(c, nothing) for c in calibration.arms["vector"].coefficients]


def _span_ratio(calibration: Calibration, arm: str) -> float | None:
    return calibration.span_ratio(arm) if arm in calibration.arms else None


def _second(calibration: Calibration, name: str | None) -> dict[str, Any] | None:
    """What the confirming judge saw; its sign and order within the usable range."""
    own = calibration.arms["vector"]
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


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # The library's own version in the file would make equal figures differ.
    figure.savefig(stream, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


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
        rows=_arm_rows(data["arms"]),
    )


def _arm_rows(arms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per coefficient that any arm was measured at; None where an arm was not."""
    at = {name: {c: i for i, c in enumerate(arm["coefficients"])} for name, arm in arms.items()}
    every = sorted({c for places in at.values() for c in places})

    def cell(name: str, key: str, coefficient: float) -> float | None:
        place = at[name].get(coefficient)
        return None if place is None else arms[name][key][place]

    return [
        {
            "coefficient": c,
            "cells": {
                name: {key: cell(name, key, c) for key in arms[name] if key != "coefficients"}
                for name in arms
            },
        }
        for c in every
    ]


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
