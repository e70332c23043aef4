"""Options of transformers' `generate`, as every backend takes them."""

import copy
from typing import Any

from torch import nn


def greedy_unless_told(options: dict[str, Any]) -> dict[str, Any]:
    """`generate`'s options: greedy by default, never compiled, as that would run without hooks."""
    config = copy.deepcopy(options.get("generation_config"))
    if config is None:
        return {"do_sample": False, "disable_compile": True} | options
    config.disable_compile = True
    return options | {"generation_config": config}


def sequences_per_prompt(model: nn.Module, options: dict[str, Any]) -> int:
    """How many batch rows `generate` makes of each prompt, asked where it looks itself."""
    configs = (options.get("generation_config"), getattr(model, "generation_config", None))
    sources = [options, *(vars(config) for config in configs if config is not None)]

    def setting(name: str) -> int:
        return next((s[name] for s in sources if s.get(name) is not None), 1)

    return max(setting("num_beams"), setting("num_return_sequences"))
