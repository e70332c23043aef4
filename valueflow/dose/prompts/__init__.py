"""The shipped prompt suites: 64 prompts to calibrate on, 64 to verify on, 24 to search."""

from importlib import resources
from typing import Literal


def load_prompts(suite: Literal["calibration", "verification", "search"]) -> list[str]:
    """The prompts of a suite; of the first two every 16 lines cover all topics."""
    text = (resources.files(__name__) / f"{suite}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]
