"""A judge behind an API of OpenAI's kind: OpenAI itself, vLLM, Ollama, llama.cpp's server.

Every answer is kept on disk as soon as it is there, so that a run that is killed loses none and a
repeated one costs nothing.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from valueflow.errors import InvalidInput
from valueflow.judges.base import Unranked, Verdict
from valueflow.judges.budget import Budget, Usage
from valueflow.judges.cache import Answer, AnswerCache, answer_key, default_cache
from valueflow.judges.chat_client import ChatClient, Question, Settings
from valueflow.judges.parsing import parse_ranking, parse_rating
from valueflow.judges.prompting import Task, rank_prompt, rate_prompt, template_hash
from valueflow.judges.server import OFFICIAL, host_of
from valueflow.theories import Value
from valueflow.typing import Item, Window

_Read = TypeVar("_Read")

_RATING: dict[str, Any] = {"type": "number"}
_RANKING: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}


class OpenAIJudge:
    """Has a chat model order the texts of a window, or rate one text.

    A window that is not answered (time-out, error of the server, budget spent) or whose answer
    cannot be read is `Unranked`. Only a server that refuses the key or does not know the model
    raises. The key is read from OPENAI_API_KEY whenever it is needed, and held nowhere.

    Args:
        model: as the server names it. The name is trusted: where a server answers to any
            (llama.cpp), give one that tells the weights, as answers are kept under it.
        base_url: of the server, with "/v1"; None for OPENAI_BASE_URL, else OpenAI's own.
        cache: where answers are kept; None keeps none.
        settings: of the answers.
        budget: of tokens and cost; where it is spent, the windows left are `Unranked("budget ...")`
            and those that were answered are kept.
        options: `concurrency`, `timeout`, `max_retries`, `deadline`, as of `ChatClient`.

    Raises:
        JudgeUnavailable: the `openai` package is missing, or the key that OpenAI's server wants.
        InvalidInput: a URL that is none or holds a secret, or an option out of its range.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        cache: AnswerCache | None = None,
        settings: Settings | None = None,
        budget: Budget | None = None,
        **options: Any,
    ) -> None:
        self.client = ChatClient(
            model,
            base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL,
            settings or Settings(),
            budget=budget or Budget(),
            **options,
        )
        self.cache = cache

    def __repr__(self) -> str:
        return f"OpenAIJudge({self.client.model!r} at {host_of(self.client.base_url)})"

    @property
    def name(self) -> str:
        """`openai:` and the model."""
        return f"openai:{self.client.model}"

    @property
    def usage(self) -> Usage:
        """What was spent so far."""
        return self.client.usage

    def fingerprint(self) -> str:
        """Hash of host, model, the prompt for rankings, and settings; not of key, port or cache."""
        content = json.dumps(self._identity("rank"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def rank(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:
        """One verdict per window; the same window is asked once, and one of a single text never.

        Raises:
            JudgeUnavailable: the server refuses the key, or does not know the model.
        """
        asked = [window for window in windows if len(window) > 1]
        prompts = [rank_prompt(value, window) for window in asked]
        answers = iter(self._answers("rank", prompts, {"ranking": _RANKING}))
        verdicts: list[Verdict] = []
        for window in windows:
            if len(window) < 2:
                verdicts.append(tuple(range(len(window))))
                continue
            n = len(window)
            verdicts.append(_read(next(answers), lambda said, n=n: parse_ranking(said, n)))
        return verdicts

    def rate(self, value: Value, items: Sequence[Item]) -> list[float | Unranked]:
        """Per text a rating from -10 to 10; errors as `rank`."""
        prompts = [rate_prompt(value, item) for item in items]
        answers = self._answers("rate", prompts, {"rating": _RATING})
        return [_read(answer, parse_rating) for answer in answers]

    def _identity(self, task: Task) -> dict[str, Any]:
        return {
            "kind": "chat",
            "host": host_of(self.client.base_url),
            "model": self.client.model,
            "template": template_hash(task),
            "settings": self.client.settings.as_json(),
        }

    def _answers(
        self, task: Task, prompts: Sequence[str], answer: dict[str, Any]
    ) -> list[Answer | Unranked]:
        identity, required = self._identity(task), list(answer)
        schema = {
            "type": "object",
            "properties": answer,
            "required": required,
            "additionalProperties": False,
        }
        keys = [answer_key(**identity, prompt=prompt) for prompt in prompts]
        by_key = dict(zip(keys, prompts, strict=True))
        known: dict[str, Answer | Unranked] = {}
        if self.cache is not None and keys:
            known.update(self.cache.get_many(keys))
            self.client.count_cached(len(known))
        todo = [Question(key, prompt, schema) for key, prompt in by_key.items() if key not in known]
        if todo:
            found = self.client.ask(todo, self._keep)
            known.update((q.key, answer) for q, answer in zip(todo, found, strict=True))
        return [known[key] for key in keys]

    def _keep(self, question: Question, answer: Answer) -> None:
        if self.cache is not None:
            self.cache.put(question.key, self.client.model, answer)


def load_openai_judge(
    model: str | None = None,
    *,
    cache: AnswerCache | None = None,
    budget_tokens: int | None = None,
    **options: Any,
) -> OpenAIJudge:
    """An `OpenAIJudge` that keeps its answers in the default cache, or in the one given.

    Args:
        model: see `OpenAIJudge`.
        cache: None for the default cache.
        budget_tokens: short for `budget=Budget(tokens=...)`.
        options: of `OpenAIJudge`.

    Raises:
        InvalidInput: no model, or a budget given twice.
    """
    if budget_tokens is not None:
        if "budget" in options:
            raise InvalidInput("a budget is given as budget or as budget_tokens, not both")
        options["budget"] = Budget(tokens=budget_tokens)
    if model is None:
        raise InvalidInput("judge 'openai' needs a model: openai:MODEL")
    if cache is None:
        cache = default_cache()
    return OpenAIJudge(model, cache=cache, **options)


def _read(answer: Answer | Unranked, parse: Callable[[str], _Read | Unranked]) -> _Read | Unranked:
    if isinstance(answer, Unranked):
        return answer
    if answer.finish in ("refusal", "content_filter"):
        return Unranked(f"the model does not answer ({answer.finish})", answer.text)
    found = parse(answer.text)
    if isinstance(found, Unranked) and answer.finish == "length":
        return Unranked(f"{found.reason}; it was cut off", found.raw)
    return found
