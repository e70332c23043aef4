"""The format in which a model is asked and answers, and which tokens of it are the answer.

Text is made with `apply_chat_template(tokenize=False)` and tokenised here: what that method returns
when it tokenises has changed between versions of transformers, and tokenising its text in the usual
way adds a second BOS, which shifts every activation.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import BatchEncoding

from valueflow.errors import InvalidInput
from valueflow.registry import unknown_name

Template = Literal["auto", "chat", "plain"]
TEMPLATES: tuple[Template, ...] = get_args(Template)
PaddingSide = Literal["left", "right"]

# A template that prints today's date would give another prompt tomorrow.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"

PLAIN = "Question: {question}\nAnswer:"


class Answered(NamedTuple):
    """A formatted question with its answer, which is `text[start:]`."""

    text: str
    start: int


def template_hash(tokenizer: Any) -> str:
    """16 hex digits that change whenever the text format of "auto" changes."""
    template = _chat_template(tokenizer)
    content = f"plain {PLAIN}" if template is None else f"chat {template}"
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def check_template(template: str) -> None:
    """Refuse what is no `Template`; raises UnknownName with near misses."""
    if template not in TEMPLATES:
        raise unknown_name("template", str(template), TEMPLATES)


def checked_texts(what: str, texts: Iterable[str]) -> list[str]:
    """The texts as a list; a string in place of a list would be read letter by letter.

    Args:
        what: what they are, for the message: "prompts".
        texts: any number of strings.

    Raises:
        InvalidInput: one string, no list at all, or anything but a string among the texts.
    """
    if isinstance(texts, str):
        raise InvalidInput(f"expected a list of {what}, got one string: write [{texts!r:.60}]")
    if not isinstance(texts, Iterable):
        raise InvalidInput(f"expected a list of {what}, got {texts!r:.60}")
    found = list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise InvalidInput(
                f"expected a list of {what}, all strings; number {number} of them (from 0) is "
                f"{text!r:.60}: leave it out or give its text"
            )
    return found


def format_used(tokenizer: Any, template: Template) -> Literal["chat", "plain"]:
    """The format that a template stands for with this tokenizer; "auto" is one of the others.

    Raises:
        UnknownName: No such template; names near misses.
        InvalidInput: "chat" without a chat template.
    """
    check_template(template)
    if _chat_template(tokenizer) is not None:
        return "plain" if template == "plain" else "chat"
    if template == "chat":
        raise InvalidInput("the tokenizer has no chat template: use template='plain' or 'auto'")
    return "plain"


def format_prompts(
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    system: str | None = None,
    template: Template = "auto",
) -> list[str]:
    """Each prompt as the model expects it, up to where its answer begins.

    Args:
        tokenizer: The model's tokenizer.
        prompts: What the user says, one turn each.
        system: A system prompt; None leaves whatever the template itself puts there (SmolLM2 and
            Qwen2.5 have a default of their own). Without a system role in the format it goes before
            the user's words.
        template: "chat" is the model's own format, with thinking switched off where the template
            can and any date in it fixed; "plain" is `PLAIN`, one line for the question and one that
            opens the answer; "auto" is "chat" if there is a chat template, else "plain".

    Raises:
        UnknownName: No such template; names near misses.
        InvalidInput: "chat" without a chat template, one string in place of a list, or a prompt
            that is no string.
    """
    used, chat = format_used(tokenizer, template), _chat_template(tokenizer)
    prompts = checked_texts("prompts", prompts)
    if used == "plain" or chat is None:
        head = "" if system is None else f"{system}\n\n"
        return [head + PLAIN.format(question=prompt) for prompt in prompts]
    return [_apply(tokenizer, chat, prompt, system) for prompt in prompts]


def format_answered(
    tokenizer: Any,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    system: str | None = None,
    template: Template = "auto",
) -> list[Answered]:
    """Each question with its answer, exactly as if the model had just generated the answer.

    The text ends with the answer: no end-of-turn marker follows. White space around an answer is
    dropped. Arguments as in `format_prompts`.

    Raises:
        UnknownName: No such template; names near misses.
        InvalidInput: Not as many answers as questions, an empty answer, or no lists of strings.
    """
    questions, answers = checked_texts("questions", questions), checked_texts("answers", answers)
    if len(questions) != len(answers):
        raise InvalidInput(f"{len(questions)} questions but {len(answers)} answers")
    empty = [number for number, answer in enumerate(answers) if not answer.strip()]
    if empty:
        raise InvalidInput(f"answer {empty[0]} is empty: it has no tokens to read")
    prompts = format_prompts(tokenizer, questions, system=system, template=template)
    gap = _gap(tokenizer, template)
    return [
        Answered(f"{prompt}{gap}{answer.strip()}", len(prompt) + len(gap))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def encode(
    tokenizer: Any, texts: Sequence[str], *, padding_side: PaddingSide = "left"
) -> BatchEncoding:
    """Token ids and attention mask of formatted texts, with one BOS if the tokenizer uses BOS.

    Args:
        tokenizer: Any transformers tokenizer.
        texts: Formatted prompts; whether a template wrote BOS into them makes no difference.
        padding_side: "left" for generation. The tokenizer's own is neither used nor changed.

    Returns:
        `input_ids` and `attention_mask`, int64 [batch, seq], to be passed on as `model(**encoded)`.

    Raises:
        InvalidInput: No texts, no list of strings, or different lengths and no token to pad with.
    """
    rows = [_tokens(tokenizer, text)[0] for text in checked_texts("texts", texts)]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if not rows or (pad is None and len({len(row) for row in rows}) > 1):
        raise InvalidInput(
            "expected texts, and a tokenizer with a pad or EOS token to pad them with"
        )
    ids = _padded(rows, pad or 0, padding_side)
    mask = _padded([[1] * len(row) for row in rows], 0, padding_side)
    return BatchEncoding({"input_ids": ids, "attention_mask": mask})


def check_length(
    model: Any, tokenizer: Any, texts: Sequence[str], *, told: Sequence[str], new_tokens: int = 0
) -> None:
    """Refuse a text for which the model has too few positions.

    A model with a table of positions would fail amid a batch, and one with rotary positions go on
    where it never was trained. A configuration without `max_position_embeddings` sets no limit.

    Args:
        model: a transformers model.
        tokenizer: its tokenizer.
        texts: formatted texts.
        told: what an error names in place of each text: the user's part of it.
        new_tokens: how many more are to be generated.

    Raises:
        InvalidInput: a text that is too long; says how long, and what the model takes.
    """
    config = model.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    # Some configurations say -1 for "no limit".
    if not isinstance(limit, int) or limit < 1:
        return
    for text, name in dict(zip(texts, told, strict=True)).items():
        size = len(_tokens(tokenizer, text)[0])
        if size + new_tokens > limit:
            more = f" and {new_tokens} more to generate" if new_tokens else ""
            fewer = ", or generate fewer" if new_tokens else ""
            raise InvalidInput(
                f"{name!r:.60} is too long: in the model's format it has {size} tokens{more}, and "
                f"the model has positions for {limit}; shorten it{fewer}"
            )


def answer_mask(
    tokenizer: Any, answered: Sequence[Answered], *, padding_side: PaddingSide = "left"
) -> Bool[Tensor, "batch seq"]:
    """Which tokens are the answer's, aligned with `encode` of the same texts and padding side.

    True where a token holds at least one character of the answer; BOS, other special tokens, the
    format around the answer and padding are False. A tokenizer without character offsets (a slow
    one) is asked for the tokens of the part before the answer instead.
    """
    rows = [_answer_row(tokenizer, item) for item in answered]
    return _padded(rows, 0, padding_side).bool()


def _chat_template(tokenizer: Any) -> str | None:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = tokenizer.get_chat_template()
    if template is not None and "strftime_now" in template:
        template = _FIXED_DATE + template
    return template


def _apply(tokenizer: Any, chat: str, prompt: str, system: str | None) -> str:
    import jinja2

    options = _options(chat) | {"add_generation_prompt": True}
    user = {"role": "user", "content": prompt}
    if system is None:
        return tokenizer.apply_chat_template([user], **options)
    try:
        turns = [{"role": "system", "content": system}, user]
        text = tokenizer.apply_chat_template(turns, **options)
    except jinja2.TemplateError:
        text = ""
    if system.strip() in text:
        return text
    merged = {"role": "user", "content": f"{system}\n\n{prompt}"}
    return tokenizer.apply_chat_template([merged], **options)


def _options(chat: str) -> dict[str, Any]:
    options: dict[str, Any] = {"tokenize": False, "chat_template": chat}
    if "enable_thinking" in chat:
        options["enable_thinking"] = False
    return options


def _gap(tokenizer: Any, template: Template) -> str:
    """What the format puts between prompt and answer: a space in some, nothing in most."""
    chat = _chat_template(tokenizer)
    if chat is None or template == "plain":
        return " "
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}]
    whole = tokenizer.apply_chat_template(turns, **_options(chat))
    prompt = _apply(tokenizer, chat, "q", None)
    between = whole.removeprefix(prompt).partition("answer")[0] if whole.startswith(prompt) else ""
    return between if between.isspace() else ""


def _uses_bos(tokenizer: Any) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
    """Token ids with at most one BOS, and each token's characters (None from a slow tokenizer).

    Special tokens are added by hand: the tokenizer's own way may also append EOS.
    """
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast)
    ids = list(encoded["input_ids"])
    offsets = [(a, b) for a, b in encoded["offset_mapping"]] if fast else None
    if _uses_bos(tokenizer) and ids[:1] != [tokenizer.bos_token_id]:
        ids = [tokenizer.bos_token_id, *ids]
        offsets = None if offsets is None else [(0, 0), *offsets]
    return ids, offsets


def _answer_row(tokenizer: Any, item: Answered) -> list[int]:
    ids, offsets = _tokens(tokenizer, item.text)
    if offsets is not None:
        inside = [start < end and end > item.start for start, end in offsets]
    else:
        head = item.text[: item.start]
        # With and without a space at the end, which may or may not be a token of its own.
        shared = max(_shared(_tokens(tokenizer, h)[0], ids) for h in (head, head.rstrip(" ")))
        inside = [i >= shared for i in range(len(ids))]
    # The unknown token stands for content; all other special tokens do not.
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return [int(flag and i not in special) for i, flag in zip(ids, inside, strict=True)]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in pairs)


def _padded(rows: Sequence[Sequence[int]], fill: int, side: PaddingSide) -> Tensor:
    width = max(len(row) for row in rows)
    blank = [[fill] * (width - len(row)) for row in rows]
    full = [
        [*b, *row] if side == "left" else [*row, *b] for b, row in zip(blank, rows, strict=True)
    ]
    return torch.tensor(full, dtype=torch.long)
