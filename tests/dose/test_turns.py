"""A base model goes on to ask itself: its answer ends there, in text and in damage."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from valueflow.backends.hf import HFBackend
from valueflow.dose.sweep import Decoding, sweep
from valueflow.dose.turns import NEXT_TURN, cut_turn, until_next_turn
from valueflow.models import load
from valueflow.models.chat import format_prompts

SAID = " Go home.\n\nQuestion: And then?\nAnswer: Sleep."


def ids(tokenizer, texts):
    rows = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    width = max(map(len, rows))
    real = torch.tensor([[i < len(r) for i in range(width)] for r in rows])
    return torch.tensor([r + [0] * (width - len(r)) for r in rows]), real


def test_the_turn_ends_with_the_words_that_open_the_next():
    tokenizer = tiny_tokenizer()
    tokens, real = ids(tokenizer, [SAID, "A Question: none", "Question: none", "x\nQuestion:"])
    kept = until_next_turn(tokenizer, tokens, real)
    said = [tokenizer.decode(row[keep]) for row, keep in zip(tokens, kept, strict=True)]
    assert said == [" Go home.\n\nQuestion:", "A Question: none", "Question: none", "x\nQuestion:"]
    assert [cut_turn(s).strip() for s in said] == ["Go home.", *said[1:3], "x"]
    assert not (kept & ~real).any()


@pytest.fixture
def scripted(monkeypatch):
    """A model that says what it is given, whatever it is asked."""
    tokenizer = tiny_tokenizer(chat=True)
    loaded = load((tiny_model("llama"), tokenizer))
    asked = []

    def generate(self, input_ids, attention_mask, intervention=None, **options):
        asked.extend(tokenizer.batch_decode(input_ids, skip_special_tokens=True))
        return ids(tokenizer, [SAID] * len(input_ids))[0]

    monkeypatch.setattr(HFBackend, "generate", generate)
    return loaded, asked


def test_the_template_of_the_decoding_formats_prompts_and_ends_answers(scripted):
    loaded, asked = scripted
    grid = sweep(loaded, {}, [{}], ["Why so?"], decoding=Decoding(template="plain"))
    assert grid.texts == (("Go home.",),)
    assert asked == format_prompts(loaded.tokenizer, ["Why so?"], template="plain")
    asked.clear()
    whole = sweep(loaded, {}, [{}], ["Why so?"], decoding=Decoding(template="chat"))
    assert whole.texts == ((SAID.strip(),),)
    assert asked != format_prompts(loaded.tokenizer, ["Why so?"], template="plain")


def test_damage_is_counted_up_to_there(scripted):
    """The same as of a model that stopped there."""
    loaded, _ = scripted
    plain = sweep(loaded, {}, [{}], ["Why so?"], decoding=Decoding(template="plain"))
    prompt = format_prompts(loaded.tokenizer, ["Why so?"], template="plain")
    head = loaded.tokenizer(prompt[0], return_tensors="pt")["input_ids"]
    new, _ = ids(loaded.tokenizer, [" Go home.\n" + NEXT_TURN])
    whole = torch.cat([head, new], dim=1)
    with torch.no_grad():
        logp = loaded.model(whole).logits.log_softmax(-1)[0]
    losses = [-logp[t - 1, whole[0, t]] for t in range(head.shape[1], whole.shape[1])]
    np.testing.assert_allclose(plain.nll, float(torch.stack(losses).mean()), atol=1e-4)
