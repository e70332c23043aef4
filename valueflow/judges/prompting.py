"""What a language model is asked: the templates of `prompts/`, filled in.

Texts under judgement are hostile: one may ask for the first place, hold a ranking, or try to close
the lines around it. So these lines carry a tag made from a hash of all that is shown, and one that
no text holds; a model's turn markers inside a text are broken.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Literal

from valueflow.theories import Value
from valueflow.typing import Item, Window

Task = Literal["rank", "compare", "rate"]

# What chat formats begin and end turns with; servers read them inside a message too.
_MARKERS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<(?:start|end)_of_turn>|</?s>|<[be]os>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)


def rank_prompt(value: Value, window: Window) -> str:
    """Asks for the order of the texts, which are numbered from 1 in the order shown."""
    return _fill("rank", value, window, [f" {number}" for number in range(1, len(window) + 1)])


def compare_prompt(value: Value, first: Item, second: Item) -> str:
    """Asks which of two texts supports more; the two orders differ in nothing but the order."""
    return _fill("compare", value, (first, second), [" A", " B"])


def rate_prompt(value: Value, item: Item) -> str:
    """Asks for a number from -10 to 10."""
    return _fill("rate", value, (item,), [""])


@functools.cache
def template(task: Task) -> str:
    """The text of a template, with its `$` fields."""
    file = resources.files("valueflow") / "judges" / "prompts" / f"{task}.txt"
    return file.read_text(encoding="utf-8")


def template_hash(*tasks: Task) -> str:
    """16 hex digits that change with the words of these templates, or the way texts are put in."""
    probe = Value("a/b", "a", "name", "What.", None, None, (), (), False)
    shown = [template(task) for task in tasks] + [
        _fill("rank", probe, (Item("<|x|>"), Item("text", "question")), [" 1", " 2"])
    ]
    return _hash(json.dumps(shown))[:16]


def tag_of(value: Value, items: Sequence[Item]) -> str:
    """The tag of the lines around the texts: the same in every order of them, and in none of them.

    Nobody who writes one text knows it: it is a hash of all of them.
    """
    shown = sorted(json.dumps([item.text, item.context]) for item in items)
    everything = "".join(f"{item.text}\n{item.context or ''}\n" for item in items).lower()
    salt = 0
    while True:
        content = json.dumps([value.id, value.definition, shown, salt])
        tag = f"text-{_hash(content)[:6]}"
        if tag not in everything:
            return tag
        salt += 1


def defused(text: str) -> str:
    """The text with the markers of chat formats broken by a space, so that they end no turn.

    Halves of surrogate pairs, which no encoding takes, become question marks.
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return _MARKERS.sub(lambda found: f"{found[0][0]} {found[0][1:]}", whole)


def _fill(task: Task, value: Value, items: Sequence[Item], labels: Sequence[str]) -> str:
    tag = tag_of(value, items)
    blocks = [
        f"<{tag}{label}>\n{_shown(item)}\n</{tag}{label}>"
        for item, label in zip(items, labels, strict=True)
    ]
    # One pass: what stands in a text, "$name" too, is not filled in.
    return Template(template(task)).substitute(
        name=value.name,
        definition=value.definition,
        n=len(items),
        tag=tag,
        texts="\n\n".join(blocks),
    )


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _shown(item: Item) -> str:
    context = item.context.strip() if isinstance(item.context, str) else ""
    if not context:
        return defused(item.text)
    return f"Question: {defused(context)}\nAnswer: {defused(item.text)}"
