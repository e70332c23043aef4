"""Models: where weights come from, which layers they have, and how they are asked."""

import importlib
from typing import Any

_HOME = {
    "Answered": "chat",
    "answer_mask": "chat",
    "encode": "chat",
    "format_answered": "chat",
    "format_prompts": "chat",
    "template_hash": "chat",
    "decoder_blocks": "layers",
    "LoadedModel": "loading",
    "ModelFingerprint": "loading",
    "fingerprint": "loading",
    "load": "loading",
    "load_encoder": "loading",
    "Packaged": "packaged",
    "find_packaged": "packaged",
    "list_packaged": "packaged",
    "fetch": "sources",
    "home": "sources",
    "is_fetched": "sources",
}

__all__ = sorted(_HOME)


# Lazy, so that naming this package costs no torch.
def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
