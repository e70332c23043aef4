"""Asking a chat-completions server many questions: bounded in concurrency, time and money.

Keys are read from the environment when questions are asked, and held nowhere: what a server or the
`openai` client says is cleared of them before it goes into an answer or a message.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from valueflow.errors import InvalidInput, JudgeUnavailable
from valueflow.judges.base import Unranked
from valueflow.judges.budget import Budget, Usage
from valueflow.judges.cache import Answer
from valueflow.judges.server import NO_KEY, check_url, cleared, import_openai, key_for

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_GIVE_UP_AFTER = 20
_BYTES_PER_TOKEN = 3
# Parts of a request that some servers or models do not take, with other words for them.
_OPTIONAL = {
    "response_format": ("response_format", "json_schema", "response format", "structured"),
    "seed": ("seed",),
    "temperature": ("temperature",),
    "max_tokens": ("max_completion_tokens", "max_tokens"),
}


@dataclass(frozen=True)
class Question:
    """A prompt, and the JSON schema of its answer for servers that hold models to one."""

    key: str
    prompt: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What decides an answer besides model and prompt; the temperature is 0.

    Attributes:
        max_tokens: of an answer.
        seed: for servers that take one.
        structured: ask for JSON of a schema, where the server can.
    """

    max_tokens: int = 512
    seed: int = 0
    structured: bool = True

    def as_json(self) -> dict[str, Any]:
        """For keys and fingerprints."""
        return asdict(self) | {"temperature": 0}


@dataclass
class _Run:
    """One call of `ask`: failures since the last answer, and what makes it pointless to go on."""

    failures: int = 0
    fatal: str | None = None


@dataclass
class ChatClient:
    """Asks one model on one server; safe to keep, to print and to copy, as it holds no key.

    Attributes:
        model: name of the model on the server.
        base_url: of the server, "/v1" included.
        settings: see `Settings`.
        concurrency: requests under way at once.
        timeout: seconds that a server may be silent before a request is repeated.
        max_retries: repetitions of a request after time-outs, lost connections and the answers 408,
            409, 429 and 5xx, with growing pauses, or the pause that the server asks for.
        deadline: seconds for one question, repetitions and pauses included.
        budget: see `Budget`.
        usage: what was spent.
    """

    model: str
    base_url: str
    settings: Settings = field(default_factory=Settings)
    concurrency: int = 8
    timeout: float | int = 60.0
    max_retries: int = 4
    deadline: float | int = 600.0
    budget: Budget = field(default_factory=Budget)
    usage: Usage = field(default_factory=Usage)
    _refused: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.max_retries < 0 or min(self.timeout, self.deadline) <= 0:
            raise InvalidInput(
                "expected concurrency of 1 or more, max_retries of 0 or more, and timeout and "
                f"deadline above 0; got {self.concurrency}, {self.max_retries}, {self.timeout}, "
                f"{self.deadline}"
            )
        check_url(self.base_url)
        import_openai()
        key_for(self.base_url)

    def ask(
        self, questions: Sequence[Question], keep: Callable[[Question, Answer], None]
    ) -> list[Answer | Unranked]:
        """One answer per question, or why there is none; `keep` has each as soon as it is there.

        Works within a running event loop too, such as a notebook's.

        Raises:
            JudgeUnavailable: the server refuses the key, or does not know the model.
        """
        run = _Run()
        answers = _run(self._ask_all(questions, keep, run))
        if run.fatal is not None:
            raise JudgeUnavailable(run.fatal)
        return answers

    def count_cached(self, n: int) -> None:
        """Note answers that needed no request."""
        self.usage = replace(self.usage, cached=self.usage.cached + n)

    async def _ask_all(
        self, questions: Sequence[Question], keep: Callable[[Question, Answer], None], run: _Run
    ) -> list[Answer | Unranked]:
        key = key_for(self.base_url)
        answers: list[Answer | Unranked] = [Unranked("not asked")] * len(questions)
        todo: Iterator[tuple[int, Question]] = iter(enumerate(questions))

        async def work(client: Any) -> None:
            for place, question in todo:
                stopped = self._stopped(run)
                if stopped is not None:
                    answers[place] = Unranked(stopped)
                    continue
                answer = await self._ask(client, question, key, run)
                run.failures = 0 if isinstance(answer, Answer) else run.failures + 1
                if isinstance(answer, Answer):
                    keep(question, answer)
                answers[place] = answer

        client = import_openai().AsyncOpenAI(
            api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=self.max_retries
        )
        async with client:
            workers = min(self.concurrency, len(questions))
            await asyncio.gather(*(work(client) for _ in range(workers)))
        return answers

    def _stopped(self, run: _Run) -> str | None:
        if run.fatal is not None:
            return run.fatal
        if run.failures >= _GIVE_UP_AFTER:
            return f"not asked: {run.failures} requests in a row had failed"
        return self.usage.exhausted(self.budget)

    async def _ask(self, client: Any, question: Question, key: str, run: _Run) -> Answer | Unranked:
        openai = import_openai()
        self.usage = replace(self.usage, asked=self.usage.asked + 1)
        try:
            completion = await asyncio.wait_for(self._request(client, question), self.deadline)
            answer = _answer_of(completion)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            sent = "the server refuses the key in OPENAI_API_KEY"
            missing = "the server wants a key, and OPENAI_API_KEY is not set"
            run.fatal = f"{missing if key == NO_KEY else sent} ({error.status_code})"
            return Unranked(run.fatal)
        except openai.NotFoundError as error:
            run.fatal = (
                f"the server has no model {self.model!r}: {cleared(_details(error), key):.300}"
            )
            return Unranked(run.fatal)
        except openai.APIStatusError as error:
            said = cleared(_details(error), key)
            return Unranked(f"the server answered {error.status_code}", said)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            return Unranked("no answer in time")
        except (openai.OpenAIError, ValueError) as error:
            # Only the kind of error: what it holds may be the request, with the key.
            return Unranked(f"no answer that can be read ({type(error).__name__})")
        self._count(question, answer)
        return replace(
            answer,
            text=cleared(answer.text, key),
            finish=cleared(answer.finish or "", key) or None,
            served=cleared(answer.served or "", key) or None,
        )

    async def _request(self, client: Any, question: Question) -> Any:
        """The completion; what the server does not take is left out, from then on."""
        openai = import_openai()
        refused = self._refused
        messages = [{"role": "user", "content": question.prompt}]
        while True:
            sent = self._options(question, refused)
            try:
                completion = await client.chat.completions.create(
                    model=self.model, messages=messages, **sent
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = _refused_by(error, sent, question.prompt)
                if name is None:
                    raise
                refused |= {name}
                continue
            if refused - self._refused:
                _LOG.warning("%s does not take %s", self.model, ", ".join(sorted(refused)))
                self._refused |= refused
            return completion

    def _options(self, question: Question, refused: frozenset[str]) -> dict[str, Any]:
        options: dict[str, Any] = {"temperature": 0, "seed": self.settings.seed}
        if self.settings.structured:
            schema = {"name": "answer", "strict": True, "schema": question.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        kept = {name: option for name, option in options.items() if name not in refused}
        newer = "max_tokens" in refused
        return kept | {"max_completion_tokens" if newer else "max_tokens": self.settings.max_tokens}

    def _count(self, question: Question, answer: Answer) -> None:
        def size(known: int | None, text: str) -> int:
            return -(-len(text.encode()) // _BYTES_PER_TOKEN) if known is None else known

        self.usage = replace(
            self.usage,
            prompt_tokens=self.usage.prompt_tokens + size(answer.prompt_tokens, question.prompt),
            answer_tokens=self.usage.answer_tokens + size(answer.answer_tokens, answer.text),
        )


def _answer_of(completion: Any) -> Answer:
    """What a server sent, which may have any form; ValueError if not that of a completion."""
    try:
        choice = completion.choices[0]
        text, refusal = choice.message.content, choice.message.refusal
    except (AttributeError, TypeError, IndexError, KeyError):
        raise ValueError("no completion") from None
    if not isinstance(text, str) and not isinstance(refusal, str):
        raise ValueError("no text")
    usage = getattr(completion, "usage", None)
    said = text if isinstance(text, str) else str(refusal)
    return Answer(
        # Halves of surrogate pairs cannot be stored.
        text=said.encode("utf-8", "replace").decode("utf-8"),
        finish=_word(choice.finish_reason) if isinstance(text, str) else "refusal",
        prompt_tokens=_whole(getattr(usage, "prompt_tokens", None)),
        answer_tokens=_whole(getattr(usage, "completion_tokens", None)),
        served=_word(getattr(completion, "model", None)),
    )


def _word(said: Any) -> str | None:
    return said if isinstance(said, str) else None


def _whole(said: Any) -> int | None:
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else None


def _refused_by(error: Any, sent: dict[str, Any], prompt: str) -> str | None:
    """The optional part of the request that the server's error is about, if any.

    Words of the prompt do not count: errors may repeat it, and it must not choose the settings.
    """
    said, asked = _details(error).lower(), prompt.lower()
    if "context" in said and "length" in said:
        return None  # Names max_tokens too, but the prompt is at fault.
    named = (
        name
        for name, words in _OPTIONAL.items()
        if name in sent and any(word in said and word not in asked for word in words)
    )
    return next(named, "response_format" if "response_format" in sent else None)


def _details(error: Any) -> str:
    """All that a server said of an error; the client's message leaves out what it cannot read."""
    return f"{error} {'' if error.body is None else error.body}".strip()


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of `work`; in a thread of its own where a loop runs in this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()
