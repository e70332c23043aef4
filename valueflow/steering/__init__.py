"""Steering: from graded texts to directions of the residual stream, and what to do with them."""

import importlib
from typing import Any

# The function `contrasts` is missing: its module has the name here.
_HOME = {
    "Activations": "activations",
    "answer_activations": "activations",
    "typical_norms": "activations",
    "Contrast": "contrasts",
    "pairs": "contrasts",
    "shuffled": "contrasts",
    "derive": "derivation",
    "ESTIMATORS": "directions",
    "LayerScore": "directions",
    "choose_layer": "directions",
    "held_out_score": "directions",
    "middle_layers": "directions",
    "check_fits": "store",
    "load_vector": "store",
    "save_vector": "store",
    "SteeringVector": "vector",
    "intervention": "vector",
    "random_like": "vector",
}

__all__ = sorted(_HOME)


# Lazy, so that naming this package costs no torch.
def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
