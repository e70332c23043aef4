"""A judge that is a causal language model in this process.

It orders a window by writing the ranking ("list"), or by preferring one of two texts ("pairwise"):
the log-odds of the next token being A rather than B, asked in both orders, so that a liking for the
first place cancels out.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.judges.base import Unranked, Verdict
from valueflow.judges.cache import Answer, AnswerCache, answer_key, default_cache
from valueflow.judges.parsing import parse_ranking, parse_rating
from valueflow.judges.prompting import (
    Task,
    compare_prompt,
    rank_prompt,
    rate_prompt,
    template_hash,
)
from valueflow.theories import Value
from valueflow.typing import Item, Window

METHODS = ("pairwise", "list")

_CHUNK = 64
"""Prompts after which answers are kept: what a killed run loses at most."""


@runtime_checkable
class LanguageModel(Protocol):
    """What the judge needs of a model; `valueflow.judges.causal_lm.CausalLM` is one."""

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    def fingerprint(self) -> str:
        """Hash of weights, tokenizer and chat template."""
        ...

    def complete(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str | Unranked]:
        """The greedy answer to each prompt, or why there is none."""
        ...

    def choose(self, prompts: Sequence[str], options: tuple[str, str]) -> Float[np.ndarray, " n"]:
        """Log-odds that an answer begins with the first option, not the second; NaN if unknown."""
        ...


@dataclass(frozen=True)
class Preference:
    """How much more one text supports a value than another, asked in both orders.

    Attributes:
        as_first: log-odds, in nats, that the one is preferred, where it is shown first.
        as_second: the same, where it is shown second.
    """

    as_first: float
    as_second: float

    @property
    def log_odds(self) -> float:
        """That the one is preferred: the mean of both orders, in which their bias cancels out."""
        return (self.as_first + self.as_second) / 2

    @property
    def position_bias(self) -> float:
        """Log-odds that being shown first adds; 0 for a judge that does not mind."""
        return (self.as_first - self.as_second) / 2


class LocalLMJudge:
    """Has a causal language model order the texts of a window, or rate one text.

    "pairwise" compares all pairs of a window in both orders. A text's score is the sum of its
    log-odds against the others, which is the least-squares Bradley-Terry fit to all pairs. Equal
    scores are ordered by a hash of value and text, never by place; texts that are the same keep the
    order shown. Each ordered pair is computed once, whatever windows it is in.

    "list" has the model write the ranking; an answer that cannot be read is `Unranked`.

    Args:
        model: see `LanguageModel`.
        method: "pairwise" or "list".
        max_new_tokens: of a written ranking or rating.
        cache: where answers are kept; None keeps them in memory, for as long as the judge is there.

    Raises:
        InvalidInput: another method.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        method: str = "pairwise",
        max_new_tokens: int = 256,
        cache: AnswerCache | None = None,
    ) -> None:
        if method not in METHODS:
            raise InvalidInput(f"method: expected 'pairwise' or 'list', got {method!r}")
        self.model = model
        self.method = method
        self.max_new_tokens = max_new_tokens
        self.cache = cache
        self._known: dict[str, Answer] = {}

    @property
    def name(self) -> str:
        """`local:`, the model, and how it is asked."""
        return f"local:{self.model.name}:{self.method}"

    def fingerprint(self) -> str:
        """Hash of model, prompt, method and its settings."""
        task: Task = "compare" if self.method == "pairwise" else "rank"
        content = json.dumps([self.method, self._identity(task)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def rank(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:
        """One verdict per window; a window of a single text is not asked about."""
        if self.method == "pairwise":
            return self._rank_pairwise(value, windows)
        asked = [window for window in windows if len(window) > 1]
        answers = iter(self._written("rank", [rank_prompt(value, window) for window in asked]))
        verdicts: list[Verdict] = []
        for window in windows:
            if len(window) < 2:
                verdicts.append(tuple(range(len(window))))
                continue
            answer = next(answers)
            read = answer if isinstance(answer, Unranked) else parse_ranking(answer, len(window))
            verdicts.append(read)
        return verdicts

    def rate(self, value: Value, items: Sequence[Item]) -> list[float | Unranked]:
        """Per text the rating from -10 to 10 that the model writes, or why there is none."""
        answers = self._written("rate", [rate_prompt(value, item) for item in items])
        return [a if isinstance(a, Unranked) else parse_rating(a) for a in answers]

    def compare(self, value: Value, pairs: Sequence[tuple[Item, Item]]) -> list[Preference]:
        """For the first of each pair over the second; NaN where the model gives no odds."""
        prompts = [
            compare_prompt(value, *shown)
            for one, other in pairs
            for shown in ((one, other), (other, one))
        ]
        odds = self._odds(prompts)
        # In the second order A is the other text.
        return [Preference(odds[2 * i], -odds[2 * i + 1]) for i in range(len(pairs))]

    def _rank_pairwise(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:
        pairs = [pair for window in windows for pair in combinations(window, 2)]
        found = iter(self.compare(value, pairs))
        verdicts: list[Verdict] = []
        for window in windows:
            scores = np.zeros(len(window))
            for i, j in combinations(range(len(window)), 2):
                log_odds = next(found).log_odds
                scores[i] += log_odds
                scores[j] -= log_odds
            verdicts.append(_order(value, window, scores))
        return verdicts

    def _odds(self, prompts: Sequence[str]) -> list[float]:
        """Log-odds of A over B, each prompt once; what is not finite is asked again next time."""

        def choose(part: list[str]) -> list[str | Unranked]:
            odds = self.model.choose(part, ("A", "B")).tolist()
            return [repr(x) if math.isfinite(x) else Unranked("no log-odds") for x in odds]

        answers = self._answers("compare", prompts, choose)
        return [math.nan if isinstance(a, Unranked) else float(a) for a in answers]

    def _written(self, task: Task, prompts: Sequence[str]) -> list[str | Unranked]:
        def complete(part: list[str]) -> list[str | Unranked]:
            return self.model.complete(part, max_new_tokens=self.max_new_tokens)

        return self._answers(task, prompts, complete)

    def _answers(self, task: Task, prompts: Sequence[str], ask: Any) -> list[str | Unranked]:
        """One answer per prompt; known ones are not asked for, new ones kept chunk by chunk."""
        identity = self._identity(task)
        key_of = {prompt: answer_key(**identity, prompt=prompt) for prompt in prompts}
        if self.cache is not None:
            unknown = [key for key in key_of.values() if key not in self._known]
            self._known |= self.cache.get_many(unknown)
        # Long ones first: what does not fit into memory fails at once, and batches are even.
        todo = [prompt for prompt in key_of if key_of[prompt] not in self._known]
        todo.sort(key=lambda prompt: (-len(prompt), prompt))
        failed: dict[str, Unranked] = {}
        for start in range(0, len(todo), _CHUNK):
            part = todo[start : start + _CHUNK]
            found: list[tuple[str, Answer]] = []
            for prompt, answer in zip(part, ask(part), strict=True):
                if isinstance(answer, Unranked):
                    failed[prompt] = answer
                else:
                    found.append((key_of[prompt], Answer(answer)))
            self._known |= dict(found)
            if self.cache is not None:
                self.cache.put_many(self.model.name, found)
        return [
            failed[prompt] if prompt in failed else self._known[key_of[prompt]].text
            for prompt in prompts
        ]

    def _identity(self, task: Task) -> dict[str, Any]:
        identity = {"kind": "local", "model": self.model.fingerprint(), "task": task}
        identity["template"] = template_hash(task)
        return identity | ({} if task == "compare" else {"max_new_tokens": self.max_new_tokens})


def load_local_judge(
    model: str = "google/gemma-3-27b-it",
    *,
    method: str = "pairwise",
    cache: AnswerCache | None = None,
    max_new_tokens: int = 256,
    **options: Any,
) -> LocalLMJudge:
    """The judge on a model by name, with its answers in the default cache or in the one given.

    Args:
        model: a packaged name, a folder, or a hub id; the default is the paper's judge.
        method: see `LocalLMJudge`.
        cache: None for the default cache.
        max_new_tokens: see `LocalLMJudge`.
        options: `device`, `dtype` and `batch_size`, as of `load_causal_lm`.

    Raises:
        UnknownName, ModelUnavailable: as `valueflow.models.load`.
    """
    from valueflow.judges.causal_lm import load_causal_lm

    loaded = load_causal_lm(model, **options)
    if cache is None:
        cache = default_cache()
    return LocalLMJudge(loaded, method=method, max_new_tokens=max_new_tokens, cache=cache)


def _order(value: Value, window: Window, scores: Float[np.ndarray, " texts"]) -> Verdict:
    if not np.isfinite(scores).all():
        return Unranked("the model gives no log-odds for a pair: too long, or not finite")
    # Rounded, or the order of a sum's terms would break ties.
    rounded = np.round(scores, 9)

    def place(i: int) -> tuple[float, str]:
        content = json.dumps([value.id, *window[i]])
        return -float(rounded[i]), hashlib.sha256(content.encode()).hexdigest()

    return tuple(sorted(range(len(window)), key=place))
