"""Packages whose names load the module behind them when they are first asked for."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def facade(
    package: str, home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports nothing heavy itself.

    Args:
        package: its `__name__`.
        home: public name -> submodule that defines it.
    """
    names = sorted(home)

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return get, lambda: names, names
