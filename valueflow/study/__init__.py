"""The whole loop, and what it showed: results as plain JSON, a figure and a page."""

import importlib
from typing import Any

_HOME = {
    "Loop": "runner",
    "dose_figure": "plots",
    "results": "report",
    "run_demo": "runner",
    "run_loop": "runner",
    "write_report": "report",
}

__all__ = sorted(_HOME)


# Lazy: matplotlib, jinja2 and torch are for those who report.
def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
