"""What a model's residual stream holds while it gives an answer.

Two kinds of token never count, by rule: the first of the sequence and the special ones. They serve
attention as sinks and can be ten times as long as all others, so that a mean over them says little
about the text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.backends.base import check_layers
from valueflow.backends.hf import HFBackend
from valueflow.errors import InvalidInput
from valueflow.models.chat import (
    Answered,
    PaddingSide,
    Template,
    answer_mask,
    check_length,
    encode,
    format_answered,
    format_prompts,
)
from valueflow.models.layers import decoder_blocks
from valueflow.models.loading import LoadedModel
from valueflow.steering.contrasts import Contrast
from valueflow.typing import Item

Progress = Callable[[int, int], None]
"""Called with the number of texts done and of all."""

_MARK = "{the prompt}"


@runtime_checkable
class Captures(Protocol):
    """The part of a `valueflow.backends.base.Backend` that is needed here."""

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        ...

    def capture(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        layers: Sequence[int],
    ) -> dict[int, Float[Tensor, "batch seq hidden"]]:
        """Residual stream after each of `layers`."""
        ...


@dataclass(frozen=True, eq=False)
class Activations:
    """One residual stream vector per text and layer.

    Attributes:
        by_layer: per layer (0 = output of block 0), fp32, on the CPU, in the order of the texts.
        norms: per layer the median norm of the single tokens that were averaged over.
        n_layers: how many layers the model has.
    """

    by_layer: Mapping[int, Float[Tensor, "texts hidden"]]
    norms: Mapping[int, float]
    n_layers: int


def answer_activations(
    loaded: LoadedModel,
    texts: Sequence[Contrast | Item],
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    template: Template = "auto",
    padding_side: PaddingSide = "left",
    backend: Captures | None = None,
    progress: Progress | None = None,
) -> Activations:
    """Mean of the residual stream over each answer's tokens, in the model's own chat format.

    Question, format, BOS and other special tokens, the first token and padding are left out of the
    mean; they matter only through the model. Blocks after the last of `layers` do not run. Batches
    hold texts of similar length; neither their size nor the padding side changes the result beyond
    rounding.

    Args:
        loaded: the model and its tokenizer.
        texts: answers with what they answer: an item's context, a contrast's question.
        layers: layers to read, 0 = output of block 0.
        batch_size: texts per forward pass.
        template: the format of the conversation (`valueflow.models.chat.format_prompts`).
        padding_side: where batches are padded.
        backend: what runs the model; None for transformers with hooks.
        progress: called after every batch.

    Raises:
        InvalidInput: no texts, an item without context, a layer the model lacks, an empty answer,
            one without any token that counts, or one that is too long for the model.
    """
    questions = [_question(text) for text in texts]
    answers = [text.text for text in texts]
    answered = format_answered(loaded.tokenizer, questions, answers, template=template)
    reader = _Reader(loaded, layers, batch_size, padding_side, backend)
    return reader.read(answered, progress)


def _question(text: Contrast | Item) -> str:
    question = text.question if isinstance(text, Contrast) else text.context
    if question is None:
        raise InvalidInput(
            f"expected an answer with what it answers, got {text!r}; give the question as context"
        )
    return question


def typical_norms(
    loaded: LoadedModel,
    prompts: Sequence[str],
    layers: Sequence[int],
    *,
    batch_size: int = 16,
    template: Template = "auto",
    backend: Captures | None = None,
) -> dict[int, float]:
    """What a coefficient of 1 stands for: the median residual norm of the prompts' content tokens.

    Content tokens are those of what the user says; the format around it, special tokens (BOS) and
    the first token of the sequence are left out. Norms are taken in fp32 over the tokens of all
    prompts together; of an even number the lower middle one counts.

    Raises:
        InvalidInput: no prompts, a layer the model lacks, a prompt that is empty, that is too long
            for the model, or that the chat template does not repeat literally.
    """
    formatted = format_prompts(loaded.tokenizer, prompts, template=template)
    # What follows the prompt cannot reach back to its tokens, so the text may end there.
    (marked,) = format_prompts(loaded.tokenizer, [_MARK], template=template)
    head, _, _ = marked.partition(_MARK)
    told = [_user_part(text, head, p) for text, p in zip(formatted, prompts, strict=True)]
    reader = _Reader(loaded, layers, batch_size, "left", backend)
    return dict(reader.read(told, None).norms)


def _user_part(formatted: str, head: str, prompt: str) -> Answered:
    content = prompt.strip()
    end = formatted.find(content, len(head)) + len(content)
    if not content or formatted[len(head) : end].strip() != content:
        raise InvalidInput(
            f"prompt {prompt!r:.60} is empty, or the chat template does not repeat it as it is; "
            "use template='plain'"
        )
    return Answered(formatted[:end], end - len(content))


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads the marked part of texts, batch by batch."""

    loaded: LoadedModel
    layers: Sequence[int]
    batch_size: int
    padding_side: PaddingSide
    backend: Captures | None

    def read(self, texts: Sequence[Answered], progress: Progress | None) -> Activations:
        if not texts or self.batch_size < 1:
            raise InvalidInput(
                f"expected texts and a batch size of 1 or more, "
                f"got {len(texts)} texts and batch size {self.batch_size}"
            )
        backend = self.backend
        if backend is None:
            _, blocks = decoder_blocks(self.loaded.model)
            backend = HFBackend(self.loaded.model, blocks)
        layers = check_layers(self.layers, backend.n_layers)
        whole, marked = [item.text for item in texts], [item.text[item.start :] for item in texts]
        check_length(self.loaded.model, self.loaded.tokenizer, whole, told=marked)
        # Longest first: if a batch does not fit into memory, it is the first one.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i].text))
        means: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        norms: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        for start in range(0, len(order), self.batch_size):
            batch = [texts[i] for i in order[start : start + self.batch_size]]
            for layer, (mean, norm) in self._batch(backend, batch, layers).items():
                means[layer].append(mean)
                norms[layer].append(norm)
            if progress is not None:
                progress(start + len(batch), len(order))
        back = torch.tensor(order).argsort()
        return Activations(
            {layer: torch.cat(parts)[back] for layer, parts in means.items()},
            {layer: float(torch.cat(parts).median()) for layer, parts in norms.items()},
            backend.n_layers,
        )

    def _batch(
        self, backend: Captures, batch: Sequence[Answered], layers: Sequence[int]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        side, device = self.padding_side, self.loaded.device
        encoded = encode(self.loaded.tokenizer, [item.text for item in batch], padding_side=side)
        ids, attended = encoded["input_ids"], encoded["attention_mask"]
        counted = answer_mask(self.loaded.tokenizer, batch, padding_side=side)
        # The first real token is where the count of real tokens is 1.
        counted &= attended.cumsum(1) > 1
        empty = (~counted.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise InvalidInput(f"{batch[empty[0]].text!r:.80}: the marked part has no token")
        hidden = backend.capture(ids.to(device), attended.to(device), layers)
        return {layer: _pooled(hidden[layer], counted.to(hidden[layer].device)) for layer in layers}


def _pooled(
    hidden: Float[Tensor, "batch seq hidden"], counted: Bool[Tensor, "batch seq"]
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, " tokens"]]:
    """Mean over the counted tokens of each row, and the norm of each of them; fp32 on the CPU."""
    # Filled, not multiplied by 0: padding may hold anything, NaN included.
    kept = hidden.float().masked_fill(~counted[:, :, None], 0.0)
    mean = kept.sum(1) / counted.sum(1, keepdim=True)
    return mean.cpu(), hidden[counted].float().norm(dim=-1).cpu()
