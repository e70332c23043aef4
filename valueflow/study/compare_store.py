"""Measurements of a comparison on disk: one artifact per value, whole or not there.

What is kept are the answers, their intensities and damage, and the plans; every figure is computed
from them again.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from valueflow import artifacts
from valueflow.errors import ArtifactError, StaleArtifact
from valueflow.study.bench import Cell
from valueflow.study.compare import Measurement
from valueflow.study.ways import Asked, Choice, Plan, Setting

KIND = "comparison"


def folder_of(out: Path, value: str) -> Path:
    """Where a value's measurement is kept; `value` is an id."""
    return out / "values" / value.replace("/", "-")


def save_measurement(measurement: Measurement, settings: Mapping[str, Any], folder: Path) -> None:
    """Write a measurement with the settings it was made with, plain JSON, replacing an older one.

    Raises:
        ArtifactError: the folder holds something else.
    """
    m = measurement
    metadata = {
        "settings": settings,
        "value": m.value,
        "prompts": m.prompts,
        "limit": m.limit,
        "plans": {way: _of_plan(plan) for way, plan in m.plans.items()},
        "controls": {name: [asdict(s) for s in own] for name, own in m.controls.items()},
        "cells": [_of_cell(cell) for cell in m.cells],
        "chosen": m.chosen,
    }
    artifacts.save(folder, KIND, {}, plain(metadata), overwrite=True)


def load_measurement(folder: Path, settings: Mapping[str, Any] | None = None) -> Measurement:
    """A measurement written by `save_measurement`.

    Args:
        folder: where it is.
        settings: what it must have been made with; None for anything.

    Raises:
        ArtifactError: none there, or damaged.
        StaleArtifact: made with other settings; names the first that differs.
    """
    _, data = artifacts.load(folder, KIND)
    try:
        if settings is not None:
            _check_settings(folder, data["settings"], plain(settings))
        return Measurement(
            value=data["value"],
            prompts=tuple(data["prompts"]),
            limit=data["limit"],
            plans={way: _plan(own) for way, own in data["plans"].items()},
            controls={
                name: tuple(Setting(**s) for s in own) for name, own in data["controls"].items()
            },
            cells=tuple(map(_cell, data["cells"])),
            chosen=data["chosen"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{folder}: no comparison in it: {error!r}; measure again") from None


def plain(data: Any) -> Any:
    """As JSON types: lists, string keys, null for what is not finite."""
    if isinstance(data, Mapping):
        return {str(key): plain(item) for key, item in data.items()}
    if isinstance(data, list | tuple):
        return [plain(item) for item in data]
    if hasattr(data, "tolist"):  # numpy's numbers and arrays
        return plain(data.tolist())
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _check_settings(folder: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in dict.fromkeys([*expected, *found]):
        if found.get(name) != expected.get(name):
            raise StaleArtifact(
                f"{folder} was measured with another setting of {name!r}; give another --out, or "
                "delete that folder to measure it again"
            )


def _of_plan(plan: Plan) -> dict[str, Any]:
    return {
        "low": _of_choice(plan.low),
        "high": _of_choice(plan.high),
        "asked": [asked._asdict() | {"setting": asdict(asked.setting)} for asked in plan.asked],
    }


def _of_choice(choice: Choice) -> dict[str, Any]:
    return choice._asdict() | {"setting": asdict(choice.setting)}


def _of_cell(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in _ARRAYS} | {
        "setting": asdict(cell.setting),
        "texts": cell.texts,
    }


_ARRAYS = ("intensities", "damage", "degenerate")


def _plan(data: Mapping[str, Any]) -> Plan:
    asked = tuple(Asked(**own | {"setting": Setting(**own["setting"])}) for own in data["asked"])
    return Plan(_choice(data["low"]), _choice(data["high"]), asked)


def _choice(data: Mapping[str, Any]) -> Choice:
    return Choice(Setting(**data["setting"]), data["expected"], _number(data["damage"]))


def _cell(data: Mapping[str, Any]) -> Cell:
    return Cell(
        Setting(**data["setting"]),
        np.array([_number(x) for x in data["intensities"]]),
        np.array([_number(x) for x in data["damage"]]),
        np.array(data["degenerate"], dtype=bool),
        tuple(data["texts"]),
    )


def _number(x: float | None) -> float:
    return math.nan if x is None else float(x)
