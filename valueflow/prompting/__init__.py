"""Steering by instruction, the baseline: intensity levels, texts of a person, profiles."""

from valueflow.lazy import facade

# Lazy: what formats a prompt needs transformers.
__getattr__, __dir__, __all__ = facade(
    __name__,
    {
        "LEVELS": "instruct",
        "ValuePrompt": "instruct",
        "level_prompt": "instruct",
        "placebo_prompt": "instruct",
        "text_prompt": "persona_texts",
        "templates_hash": "wording",
        "wordings": "wording",
    },
)
