"""Coefficient to intensity and back: sweeps, curves, calibration, steering to a target."""

import importlib
from typing import Any

_HOME = {
    "Calibration": "calibrate",
    "calibrate": "calibrate",
    "verify": "calibrate",
    "Dose": "inverse",
    "Unreachable": "inverse",
    "DoseCurve": "curve",
    "Steerer": "steerer",
    "load_prompts": "prompts",
    "sweep": "sweep",
}

__all__ = sorted(_HOME)


# Lazy: the curve alone needs no torch.
def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
