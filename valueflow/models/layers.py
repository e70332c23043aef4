"""Finding the decoder blocks of a language model from its structure, without a table of names."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from valueflow.errors import LayerNotFound

# Parts of a path that name another modality's stack, or the encoder of an encoder-decoder.
_TOWER = re.compile(
    r"(vision|visual|image|video|audio|speech|clip|siglip)|(^|_)(vit|encoder)(_|$)", re.IGNORECASE
)

Blocks = list[tuple[str, nn.ModuleList]]


def decoder_blocks(model: nn.Module, *, override: str | None = None) -> tuple[str, nn.ModuleList]:
    """The dotted path and the list of the decoder blocks; block 0 is the first after the embedding.

    A block list is a `ModuleList` as long as the text configuration's `num_hidden_layers`. Among
    several, those inside another list (experts), in a vision, audio or encoder part, or of mixed
    classes give way; if more than one is left, a forward pass over two tokens shows which one the
    model runs.

    Args:
        model: A causal language model of transformers, or any module with such a `config`.
        override: The dotted path of the list (`"model.layers"`), for a model this does not
            understand; taken as it is.

    Raises:
        LayerNotFound: No list fits, several fit equally, or `override` names none. The message
            lists the candidates with their length and the class of their blocks.
    """
    lists = _block_lists(model)
    if override is not None:
        return _overridden(dict(lists), override)
    n_layers = _n_layers(model)
    found = [(path, blocks) for path, blocks in lists if len(blocks) == n_layers]
    for fits in (_not_nested, _not_in_tower, _of_one_class):
        found = _prefer(fits, found)
    if len(found) > 1:
        found = _prefer(_runs(model, found), found)
    if len(found) != 1:
        expected = "no block count" if n_layers is None else f"{n_layers} decoder blocks"
        problem = "several lists fit" if found else "no list fits"
        raise LayerNotFound(
            f"{type(model).__name__}: its configuration has {expected}, and {problem}. Give the "
            f"path as override. {_describe(found or lists)}"
        )
    return found[0]


def _block_lists(model: nn.Module) -> Blocks:
    modules = model.named_modules()
    return [(path, m) for path, m in modules if isinstance(m, nn.ModuleList) and len(m) > 0]


def _overridden(lists: dict[str, nn.ModuleList], path: str) -> tuple[str, nn.ModuleList]:
    if path not in lists:
        raise LayerNotFound(f"{path!r} is no list of blocks. {_describe(lists.items())}")
    return path, lists[path]


def _n_layers(model: nn.Module) -> int | None:
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    return getattr(config, "num_hidden_layers", None)


def _prefer(fits: Callable[[str, nn.ModuleList], bool], candidates: Blocks) -> Blocks:
    """Those that fit; all if none does, so that a wrong guess cannot rule out the only one."""
    return [item for item in candidates if fits(*item)] or candidates


def _not_nested(path: str, _: nn.ModuleList) -> bool:
    return not any(part.isdigit() for part in path.split("."))


def _not_in_tower(path: str, _: nn.ModuleList) -> bool:
    return not any(_TOWER.search(part) for part in path.split("."))


def _of_one_class(_: str, blocks: nn.ModuleList) -> bool:
    return len({type(block) for block in blocks}) == 1


def _runs(model: nn.Module, candidates: Blocks) -> Callable[[str, nn.ModuleList], bool]:
    """A test for the lists whose blocks a forward pass over text runs, each once and in order."""
    calls: list[int] = []

    def note(module: nn.Module, _: Any) -> None:
        calls.append(id(module))

    handles = [b.register_forward_pre_hook(note) for _, blocks in candidates for b in blocks]
    parameter = next(model.parameters())
    tokens = torch.zeros((1, 2), dtype=torch.long, device=parameter.device)
    try:
        with torch.no_grad():
            model(input_ids=tokens)
    except Exception:
        # A model that needs more than text cannot be asked so; the error lists the candidates.
        calls.clear()
    finally:
        for handle in handles:
            handle.remove()

    def ran(_: str, blocks: nn.ModuleList) -> bool:
        wanted = [id(block) for block in blocks]
        return [call for call in calls if call in set(wanted)] == wanted

    return ran


def _describe(lists: Iterable[tuple[str, nn.ModuleList]]) -> str:
    rows = [f"{path} ({len(b)} x {type(b[0]).__name__})" for path, b in lists]
    return f"Candidates: {', '.join(rows)}" if rows else "It has no ModuleList at all"
