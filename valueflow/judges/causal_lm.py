"""A causal language model of transformers, asked in batches."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from valueflow.backends.scoring import forward
from valueflow.errors import InvalidInput
from valueflow.judges.base import Unranked
from valueflow.models.chat import encode, format_prompts
from valueflow.models.loading import LoadedModel, load

_WORTHWHILE = 16
"""Tokens that rows must have in common to be run once for all."""


class CausalLM:
    """Greedy answers, and the odds between two first words; in the model's own chat format.

    Prompts are data: special tokens of the tokenizer that a prompt spells out are broken by a
    space, or a text could end its turn and answer in the model's place.

    Args:
        loaded: see `valueflow.models.load`.
        batch_size: prompts per pass.
    """

    def __init__(self, loaded: LoadedModel, *, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise InvalidInput(f"a batch is 1 prompt or more, got {batch_size}")
        self.loaded = loaded
        self.batch_size = batch_size
        self._specials = sorted(_special_tokens(loaded.tokenizer), key=len, reverse=True)

    @property
    def name(self) -> str:
        """The name that it was loaded by."""
        return self.loaded.name

    def fingerprint(self) -> str:
        """Of weights, tokenizer and chat template."""
        own = self.loaded.fingerprint
        return f"{own.model}-{own.tokenizer}-{own.chat_template}"

    def complete(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str | Unranked]:
        """The greedy answer to each prompt; a prompt beyond the model's context is `Unranked`."""
        tokenizer = self.loaded.tokenizer

        def write(ids: Tensor, mask: Tensor) -> list[str | Unranked]:
            with torch.inference_mode():
                # Sampling settings that come with a model would be warned about.
                sampling = {"temperature": None, "top_p": None, "top_k": None}
                new = self.loaded.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=tokenizer.pad_token_id,
                    **sampling,
                )[:, ids.shape[1] :]
            return tokenizer.batch_decode(new, skip_special_tokens=True)

        too_long = Unranked("the prompt is longer than the model's context")
        return self._batched(prompts, write, room=max_new_tokens, otherwise=too_long)

    def choose(self, prompts: Sequence[str], options: tuple[str, str]) -> Float[np.ndarray, " n"]:
        """Log-odds that the next token is the first option rather than the second, in nats.

        An option counts with and without a space before it. NaN for a prompt beyond the model's
        context.

        Raises:
            InvalidInput: an option is more than one token of this tokenizer.
        """
        first, second = (self._tokens_of(option) for option in options)

        def odds(ids: Tensor, mask: Tensor) -> list[float]:
            with torch.inference_mode():
                logits = next_logits(self.loaded.model, ids, mask)
            difference = logits[:, first].logsumexp(-1) - logits[:, second].logsumexp(-1)
            return difference.double().cpu().tolist()

        found = self._batched(prompts, odds, room=1, otherwise=float("nan"))
        return np.array(found, dtype=np.float64)

    def _batched(
        self,
        prompts: Sequence[str],
        run: Callable[[Tensor, Tensor], Iterable[Any]],
        *,
        room: int,
        otherwise: Any,
    ) -> list[Any]:
        """Results in the order of prompts, those of like length run together.

        Where the model's context does not hold prompt and `room` more tokens: `otherwise`.
        """
        tokenizer, model = self.loaded.tokenizer, self.loaded.model
        texts = format_prompts(tokenizer, [self._defused(prompt) for prompt in prompts])
        sizes = [encode(tokenizer, [text])["input_ids"].shape[1] for text in texts]
        limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        fitting = [i for i, size in enumerate(sizes) if limit is None or size + room <= limit]
        fitting.sort(key=lambda i: -sizes[i])
        results = [otherwise] * len(texts)
        for start in range(0, len(fitting), self.batch_size):
            part = fitting[start : start + self.batch_size]
            batch = encode(tokenizer, [texts[i] for i in part]).to(model.device)
            found = run(batch["input_ids"], batch["attention_mask"])
            for i, result in zip(part, found, strict=True):
                results[i] = result
        return results

    def _defused(self, prompt: str) -> str:
        for token in self._specials:
            if token in prompt:
                prompt = prompt.replace(token, f"{token[0]} {token[1:]}")
        return prompt

    def _tokens_of(self, option: str) -> list[int]:
        tokenizer = self.loaded.tokenizer
        forms = (
            tokenizer(form, add_special_tokens=False)["input_ids"]
            for form in (option, f" {option}")
        )
        found = sorted({ids[0] for ids in forms if len(ids) == 1})
        if not found:
            raise InvalidInput(f"{option!r} is no token of {self.name}; use method='list'")
        return found


def next_logits(
    model: nn.Module, ids: Int[Tensor, "rows seq"], mask: Int[Tensor, "rows seq"]
) -> Float[Tensor, "rows vocabulary"]:
    """Logits of the token after each row, in fp32; rows are padded on the left.

    What all rows begin with is run once.
    """
    n, seq = ids.shape
    lengths = mask.sum(1)
    # Aligned on the left, to see how far the rows are alike.
    aligned = torch.stack([row.roll(int(size)) for row, size in zip(ids, lengths, strict=True)])
    alike = (aligned == aligned[:1]).all(0).long()
    shared = min(int(alike.cumprod(0).sum()), int(lengths.min()) - 1)
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    if n == 1 or shared < _WORTHWHILE or not takes_positions:
        return forward(model, ids, mask, keep=1).logits[:, -1].float()
    prefix = aligned[:1, :shared]
    past = forward(model, prefix, torch.ones_like(prefix), keep=1, use_cache=True).past_key_values
    past.batch_repeat_interleave(n)
    # Padded on the right: a gap between prefix and rest would widen a sliding window.
    own = lengths - shared
    width, last = int(own.max()), own - 1
    real = torch.arange(shared + width, device=ids.device) < lengths[:, None]
    keep = width - int(last.min())
    rest = aligned[:, shared : shared + width]
    logits = forward(model, rest, real.long(), keep=keep, past_key_values=past).logits[:, -keep:]
    return logits[torch.arange(n, device=ids.device), last - (width - keep)].float()


def load_causal_lm(
    source: str,
    *,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    batch_size: int = 8,
) -> CausalLM:
    """A model by name, on the GPU in bfloat16 where there is one, else on the CPU in float32.

    Raises InvalidInput for the name of no floating-point type, else as `valueflow.models.load`.
    """
    if isinstance(dtype, str):
        named = getattr(torch, dtype, None)
        if not (isinstance(named, torch.dtype) and named.is_floating_point):
            raise InvalidInput(f"dtype: expected float32, bfloat16 or float16, got {dtype!r}")
        dtype = named
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if dtype is None:
        dtype = torch.float32 if place == "cpu" else torch.bfloat16
    return CausalLM(load(source, device=place, dtype=dtype), batch_size=batch_size)


def _special_tokens(tokenizer: Any) -> set[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = {str(token) for token in added if getattr(token, "special", False)}
    # A single character cannot be broken, and is hardly a marker.
    return {token for token in special | set(tokenizer.all_special_tokens) if len(token) > 1}
