"""Options of transformers' `generate`, as every backend takes them."""

import copy
from typing import Any

from torch import nn
from transformers import GenerationConfig

# Whatever picks or stops tokens otherwise, at the value that does nothing. A model's own
# `generation_config` may set any of these, and would be followed where nothing else is said.
_GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,  # 0 is warned about
    "max_time": None,
    "stop_strings": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "guidance_scale": None,
    "watermarking_config": None,
    "token_healing": False,
    "remove_invalid_values": False,
    "penalty_alpha": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "use_mtp": False,
}


def greedy_unless_told(options: dict[str, Any]) -> dict[str, Any]:
    """`generate`'s options: greedy by default, never compiled, as that would run without hooks.

    Greedy is the likeliest token, whatever the model's own `generation_config` says. Where options
    hold another one, what it leaves open is greedy too, but for what has no value that does
    nothing (`bad_words_ids`); there the model's own counts. The result is token ids alone.
    """
    config = copy.deepcopy(options.get("generation_config"))
    if config is None:
        # Versions of transformers differ in what they know, and refuse what they do not.
        known = vars(GenerationConfig())
        greedy = {name: value for name, value in _GREEDY.items() if name in known}
        return greedy | {"disable_compile": True} | options | {"return_dict_in_generate": False}
    for name, value in _GREEDY.items():
        if value is not None and getattr(config, name, value) is None:
            setattr(config, name, value)
    config.disable_compile = True
    config.return_dict_in_generate = False
    return options | {"generation_config": config}


def sequences_per_prompt(model: nn.Module, options: dict[str, Any]) -> int:
    """How many batch rows `generate` makes of each prompt, asked where it looks itself."""
    configs = (options.get("generation_config"), getattr(model, "generation_config", None))
    sources = [options, *(vars(config) for config in configs if config is not None)]

    def setting(name: str) -> int:
        return next((s[name] for s in sources if s.get(name) is not None), 1)

    return max(setting("num_beams"), setting("num_return_sequences"))
