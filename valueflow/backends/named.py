"""Backends by name."""

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import nn

from valueflow.backends.base import Backend
from valueflow.errors import BackendUnavailable
from valueflow.registry import Registry


@runtime_checkable
class Loaded(Protocol):
    """What is needed of a `valueflow.models.loading.LoadedModel`."""

    @property
    def model(self) -> Any:
        """The transformers model."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        ...

    @property
    def blocks(self) -> nn.ModuleList:
        """Its decoder blocks."""
        ...


BACKENDS: Registry[Callable[[Loaded], Backend]] = Registry("backend")


def load_backend(name: str, loaded: Loaded) -> Backend:
    """The model behind one of `BACKENDS`: "hf", "nnsight" or "transformer_lens".

    The last two work on a twin of the model that shares its weights, so that the model itself
    stays as it is. Move or convert a model before, not after.

    Raises:
        UnknownName: no such backend; names near misses.
        BackendUnavailable: its package is not installed or cannot be imported.
        InvalidInput: the tool does not support the model.
    """
    return BACKENDS[name](loaded)


def twin(model: nn.Module) -> Any:
    """Another model of the same parameters and buffers: nothing is copied but the structure.

    A tool may replace the modules of one without the other noticing.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _hf(loaded: Loaded) -> Backend:
    from valueflow.backends.hf import HFBackend

    return HFBackend(loaded.model, loaded.blocks)


def _nnsight(loaded: Loaded) -> Backend:
    try:
        from valueflow.backends.nnsight import NNsightBackend
    except ImportError as error:
        raise _missing("nnsight", error) from error
    model = twin(loaded.model)
    return NNsightBackend(model, _same_blocks(loaded, model))


def _transformer_lens(loaded: Loaded) -> Backend:
    try:
        from valueflow.backends.transformer_lens import TransformerLensBackend, bridged
    except ImportError as error:
        raise _missing("transformer-lens", error) from error
    return TransformerLensBackend(bridged(twin(loaded.model), loaded.tokenizer))


def _same_blocks(loaded: Loaded, model: nn.Module) -> Any:
    blocks = loaded.blocks
    path = next(name for name, module in loaded.model.named_modules() if module is blocks)
    return model.get_submodule(path)


def _missing(package: str, error: ImportError) -> BackendUnavailable:
    return BackendUnavailable(
        f"this backend needs the package {package}, which cannot be imported ({error}); "
        f"pip install {package}"
    )


BACKENDS.add("hf", _hf)
BACKENDS.add("nnsight", _nnsight)
BACKENDS.add("transformer_lens", _transformer_lens)
