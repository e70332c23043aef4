"""Compiled models run uncompiled while they are steered."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside the `with`, whatever `torch.compile` compiled runs as the Python it was made from.

    A graph that was compiled before hooks were installed runs without them, and says nothing: a
    model would go unsteered. Applies to all threads, and to kernels that transformers compiles for
    itself (flex attention). Nothing is done before the compiler was first imported.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
