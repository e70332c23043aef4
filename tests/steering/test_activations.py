import dataclasses

import pytest
import torch
from tiny import BOS, tiny_model, tiny_tokenizer
from tool_cases import EVERY_TOOL

from valueflow.backends.hf import HFBackend
from valueflow.backends.named import load_backend
from valueflow.errors import InvalidInput
from valueflow.models import decoder_blocks, load
from valueflow.steering.activations import answer_activations, typical_norms
from valueflow.steering.contrasts import Contrast
from valueflow.typing import Item

LAYERS = [0, 2]
CHAT_HEAD = "<s><|user|>\n{}<|end|>\n<|assistant|>\n"
PLAIN_HEAD = "<s>Question: {}\nAnswer: "
ANSWERS = [
    ("Who leads?", "I do."),
    ("What is on your mind today, my old friend?", "The other one is in the hand and on the hat."),
    ("Why?", "Then"),
    ("Tell me about yourself.", "I am what the weather makes of me; there is nothing in it."),
    ("How?", "Never, and never again."),
]
CONTRASTS = [Contrast(f"t{i}", "l", q, a, 0.0) for i, (q, a) in enumerate(ANSWERS)]


@pytest.fixture(scope="module")
def chat():
    return load((tiny_model("llama"), tiny_tokenizer(chat=True)))


@pytest.fixture(scope="module")
def plain():
    return load((tiny_model("gpt2"), tiny_tokenizer()))


def backend_of(loaded):
    return HFBackend(loaded.model, decoder_blocks(loaded.model)[1])


class Meddled:
    """A backend whose residual stream is altered on the way out."""

    def __init__(self, loaded, alter):
        self.inner, self.alter = backend_of(loaded), alter
        self.n_layers = self.inner.n_layers

    def capture(self, input_ids, attention_mask, layers):
        hidden = self.inner.capture(input_ids, attention_mask, layers)
        return {k: self.alter(h.clone(), input_ids, attention_mask) for k, h in hidden.items()}


@torch.no_grad()
def by_hand(loaded, head, question, answer, layer):
    """One text, one token at a time; what a tokenizer makes of the two parts put together."""
    tokens = loaded.tokenizer(head.format(question), add_special_tokens=False)["input_ids"]
    answer_tokens = loaded.tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([tokens + answer_tokens])
    hidden = loaded.model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0]
    rows = [hidden[t] for t in range(len(tokens), len(tokens) + len(answer_tokens))]
    return sum(rows) / len(rows), [float((row**2).sum() ** 0.5) for row in rows]


@pytest.mark.parametrize("which", ["chat", "plain"])
def test_equals_one_text_at_a_time(which, request):
    loaded = request.getfixturevalue(which)
    head = CHAT_HEAD if which == "chat" else PLAIN_HEAD
    found = answer_activations(loaded, CONTRASTS, LAYERS, batch_size=2)
    assert set(found.by_layer) == set(LAYERS)
    assert found.n_layers == 4
    for layer in LAYERS:
        expected = [by_hand(loaded, head, q, a, layer) for q, a in ANSWERS]
        means = torch.stack([mean for mean, _ in expected])
        assert found.by_layer[layer].dtype == torch.float32
        torch.testing.assert_close(found.by_layer[layer], means, rtol=1e-4, atol=1e-5)
        norms = sorted(norm for _, norms in expected for norm in norms)
        assert found.norms[layer] == pytest.approx(norms[(len(norms) - 1) // 2], rel=1e-4)


@pytest.mark.parametrize("which", ["chat", "plain"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_and_padding_do_not_matter(which, side, batch_size, request):
    loaded = request.getfixturevalue(which)
    one = answer_activations(loaded, CONTRASTS, LAYERS, batch_size=1)
    found = answer_activations(loaded, CONTRASTS, LAYERS, batch_size=batch_size, padding_side=side)
    for layer in LAYERS:
        torch.testing.assert_close(found.by_layer[layer], one.by_layer[layer], rtol=1e-4, atol=1e-5)
        assert found.norms[layer] == pytest.approx(one.norms[layer], rel=1e-4)


@EVERY_TOOL
def test_the_tool_that_runs_the_model_does_not_matter(chat, tool):
    expected = answer_activations(chat, CONTRASTS, LAYERS)
    found = answer_activations(chat, CONTRASTS, LAYERS, backend=load_backend(tool, chat))
    for layer in LAYERS:
        torch.testing.assert_close(
            found.by_layer[layer], expected.by_layer[layer], atol=1e-4, rtol=0
        )
        assert found.norms[layer] == pytest.approx(expected.norms[layer], abs=1e-4)


def test_items_are_read_as_contrasts_of_the_same_words(chat):
    items = [Item(answer, question) for question, answer in ANSWERS]
    found = answer_activations(chat, items, LAYERS)
    expected = answer_activations(chat, CONTRASTS, LAYERS)
    assert all(torch.equal(found.by_layer[k], expected.by_layer[k]) for k in LAYERS)
    with pytest.raises(InvalidInput, match="give the question as context"):
        answer_activations(chat, [*items, Item("By itself.")], LAYERS)


def test_rows_keep_the_order_of_the_texts(chat):
    found = answer_activations(chat, CONTRASTS, [1], batch_size=2).by_layer[1]
    turned = answer_activations(chat, CONTRASTS[::-1], [1], batch_size=2).by_layer[1]
    torch.testing.assert_close(turned.flip(0), found, rtol=1e-4, atol=1e-5)
    assert torch.cdist(found, found).fill_diagonal_(1.0).min() > 0.01


@pytest.mark.parametrize("side", ["left", "right"])
def test_sinks_format_and_padding_count_for_nothing(chat, side):
    """Everything before the answer's first token is made huge, padding NaN."""

    opens = chat.tokenizer.convert_tokens_to_ids("<|assistant|>")

    def alter(hidden, ids, mask):
        for row, tokens in enumerate(ids.tolist()):
            # The line break after the role is the last token of the format.
            hidden[row, : tokens.index(opens) + 2] = 1e6
        hidden[ids == BOS] = 1e9
        hidden[mask == 0] = torch.nan
        return hidden

    options = {"batch_size": 3, "padding_side": side}
    clean = answer_activations(chat, CONTRASTS, LAYERS, **options)
    meddled = answer_activations(chat, CONTRASTS, LAYERS, backend=Meddled(chat, alter), **options)
    for layer in LAYERS:
        assert torch.equal(meddled.by_layer[layer], clean.by_layer[layer])
    assert meddled.norms == clean.norms


def test_the_question_matters_through_the_model_alone(chat):
    def other_question(contrast):
        return dataclasses.replace(contrast, question="Something else, then?")

    altered = [other_question(c) for c in CONTRASTS]
    table = chat.model.get_input_embeddings().weight.detach()
    # A model without a memory: the stream is what the token itself is.
    blind = Meddled(chat, lambda hidden, ids, mask: table[ids])
    ours = answer_activations(chat, CONTRASTS, [1], backend=blind).by_layer[1]
    theirs = answer_activations(chat, altered, [1], backend=blind).by_layer[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

    def real(contrasts):
        return answer_activations(chat, contrasts, [1]).by_layer[1]

    assert (real(CONTRASTS) - real(altered)).norm(dim=1).min() > 0.01


def test_half_precision_is_averaged_in_fp32(chat):
    table = chat.model.get_input_embeddings().weight.detach()
    large = Meddled(chat, lambda hidden, ids, mask: (table[ids] * 2e3).half())
    exact = Meddled(chat, lambda hidden, ids, mask: (table[ids] * 2e3).half().double())
    found = answer_activations(chat, CONTRASTS, [1], backend=large)
    expected = answer_activations(chat, CONTRASTS, [1], backend=exact)
    torch.testing.assert_close(found.by_layer[1], expected.by_layer[1], rtol=1e-6, atol=1e-3)
    # In fp16 the sum of squares would have overflowed.
    assert 1e3 < found.norms[1] < 1e5


def test_progress_and_refusals(chat):
    seen = []
    answer_activations(
        chat, CONTRASTS, [0], batch_size=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(InvalidInput, match=r"expected one or more of 0\.\.3"):
        answer_activations(chat, CONTRASTS, [4])
    with pytest.raises(InvalidInput, match="expected texts"):
        answer_activations(chat, [], [0])
    with pytest.raises(InvalidInput, match="batch size 0"):
        answer_activations(chat, CONTRASTS, [0], batch_size=0)
    with pytest.raises(InvalidInput, match="empty"):
        answer_activations(chat, [dataclasses.replace(CONTRASTS[0], text=" ")], [0])
    special = dataclasses.replace(CONTRASTS[0], text="</s>")
    with pytest.raises(InvalidInput, match="no token"):
        answer_activations(chat, [special], [0])


@torch.no_grad()
def norms_by_hand(loaded, head, prompts, layer):
    before, _, _ = head.partition("{}")
    norms = []
    for prompt in prompts:
        skipped = len(loaded.tokenizer(before, add_special_tokens=False)["input_ids"])
        ids = loaded.tokenizer(before + prompt, add_special_tokens=False)["input_ids"]
        run = loaded.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        norms += run.hidden_states[layer + 1][0, skipped:].norm(dim=-1).tolist()
    return sorted(norms)[(len(norms) - 1) // 2]


@pytest.mark.parametrize("which", ["chat", "plain"])
def test_typical_norms_are_those_of_the_users_words(which, request):
    loaded = request.getfixturevalue(which)
    head = CHAT_HEAD if which == "chat" else PLAIN_HEAD.removesuffix(" ")
    # The last ones also occur in the format around them.
    prompts = [question for question, _ in ANSWERS] + ["user", "Answer", "Question: assistant"]
    found = typical_norms(loaded, [f" {p}\n" for p in prompts], LAYERS, batch_size=2)
    # " {p}" is told without the space by a chat template that strips, with it by others.
    stripped = typical_norms(loaded, prompts, LAYERS, batch_size=5)
    for layer in LAYERS:
        expected = norms_by_hand(loaded, head, prompts, layer)
        assert stripped[layer] == pytest.approx(expected, rel=1e-4)
        assert found[layer] == pytest.approx(expected, rel=0.1)


def test_the_first_token_is_a_sink_even_if_it_is_a_word():
    tokenizer = tiny_tokenizer(bos=False, chat=True)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    loaded = load((tiny_model("llama"), tokenizer))

    def alter(hidden, ids, mask):
        first = (mask.cumsum(1) == 1) & (mask == 1)
        hidden[first] = 1e9
        return hidden

    prompts = ["abc", "xy", "q r"]
    clean = typical_norms(loaded, prompts, [1])
    assert typical_norms(loaded, prompts, [1], backend=Meddled(loaded, alter)) == clean
    with pytest.raises(InvalidInput, match="no token"):
        typical_norms(loaded, ["a"], [1])


def test_prompts_that_are_not_there(chat):
    with pytest.raises(InvalidInput, match="is empty, or the chat template"):
        typical_norms(chat, ["Why?", "  "], [0])
    with pytest.raises(InvalidInput, match="expected texts"):
        typical_norms(chat, [], [0])
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(InvalidInput, match="chat template"):
        typical_norms(load((tiny_model("llama"), tokenizer)), ["Why?"], [0])


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox"])
def test_a_text_beyond_the_models_positions_is_refused_before_anything_runs(arch):
    model = tiny_model(arch)
    model.config.max_position_embeddings = 64
    short = load((model, tiny_tokenizer()))
    head = len(short.tokenizer("Question: Why?\nAnswer: ", add_special_tokens=False)["input_ids"])
    fits = "x" * (64 - 1 - head)
    items = [Item("On and on.", "Why?"), Item(fits, "Why?")]
    assert answer_activations(short, items, [0]).by_layer[0].shape[0] == 2
    message = "'Qx*' is too long: .* 65 tokens, and the model has positions for 64; shorten it$"
    with pytest.raises(InvalidInput, match=message):
        answer_activations(short, [*items, Item(f"Q{fits}", "Why?")], [0])
    with pytest.raises(InvalidInput, match="'zzzz.* is too long"):
        typical_norms(short, ["Why?", "z" * 64], [0])
