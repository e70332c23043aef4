"""Coefficient to intensity and back: sweeps, curves, calibration, steering to a target."""

from valueflow.lazy import facade

# The functions `calibrate` and `sweep` are missing: their modules have these names here.
# Lazy: the curve alone needs no torch.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "Calibration": "calibrate",
        "Candidate": "candidates",
        "verify": "calibrate",
        "Dose": "inverse",
        "Unreachable": "inverse",
        "DoseCurve": "curve",
        "Search": "search",
        "Steerer": "steerer",
        "load_prompts": "prompts",
        "load_released": "released",
    },
)
