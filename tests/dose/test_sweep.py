import dataclasses
import functools

import jaxtyping
import numpy as np
import pytest
import torch
from oracles.steering import full_logits
from steering_cases import hooks
from tiny import EOS, tiny_model, tiny_tokenizer
from tool_cases import EVERY_TOOL

from valueflow.backends.named import load_backend
from valueflow.dose.sweep import Decoding, _end_ids, _until_end, sweep
from valueflow.errors import InvalidInput, UnknownName
from valueflow.models import decoder_blocks, load
from valueflow.models.chat import encode, format_prompts
from valueflow.steering.vector import SteeringVector

PROMPTS = ["Hi", "What should the two of them do about the garden and the rain?", "And then?"]
CELLS = [{"a": 0.0}, {"a": 0.6}, {"a": -0.6, "b": 0.4}, {"b": -0.8}, {}]
DECODING = Decoding(max_new_tokens=12)


@functools.cache
def loaded(arch="llama"):
    return load((tiny_model(arch), tiny_tokenizer(chat=True)))


@functools.cache
def arms():
    generator = torch.Generator().manual_seed(1)

    def vector(name, layers):
        drawn = {layer: torch.randn(32, generator=generator) for layer in layers}
        directions = {layer: d / d.norm() for layer, d in drawn.items()}
        return SteeringVector(name, directions, dict.fromkeys(layers, 6.0), {})

    return {"a": vector("a", (1, 2)), "b": vector("b", (2,))}


@functools.cache
def grid():
    return sweep(loaded(), arms(), CELLS, PROMPTS, decoding=DECODING)


def by_hand(cell, prompt, *, decoding=DECODING, model=None):
    """One answer and its token ids, from transformers' own generate with hooks of one line."""
    model, tokenizer = model or loaded().model, loaded().tokenizer
    encoded = encode(tokenizer, format_prompts(tokenizer, [prompt]))
    handles = []
    for name, coefficient in cell.items():
        for layer, direction in arms()[name].directions.items():
            addition = coefficient * arms()[name].norms[layer] * direction
            hook = lambda _m, _a, out, add=addition: out + add
            handles.append(decoder_blocks(model)[1][layer].register_forward_hook(hook))
    try:
        ids = model.generate(
            **encoded,
            do_sample=False,
            max_new_tokens=decoding.max_new_tokens,
            repetition_penalty=decoding.repetition_penalty,
        )
    finally:
        for handle in handles:
            handle.remove()
    new = ids[0, encoded["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip(), encoded["input_ids"][0], new


@pytest.mark.parametrize("c", range(len(CELLS)))
def test_every_cell_is_what_generating_it_alone_gives(c):
    for p, prompt in enumerate(PROMPTS):
        assert grid().texts[c][p] == by_hand(CELLS[c], prompt)[0]


def test_doses_change_the_texts_and_zero_is_unsteered():
    texts = grid().texts
    assert texts[0] == texts[4] == tuple(by_hand({}, prompt)[0] for prompt in PROMPTS)
    assert all(len({texts[c][p] for c in range(4)}) >= 3 for p in range(len(PROMPTS)))


@pytest.mark.parametrize(("penalty", "batch_rows"), [(1.1, 1), (1.0, 4), (2.0, 7)])
def test_the_batch_does_not_matter(penalty, batch_rows):
    decoding = Decoding(max_new_tokens=12, repetition_penalty=penalty)
    run = functools.partial(sweep, loaded(), arms(), CELLS, PROMPTS, decoding=decoding)
    whole, parts = run(), run(batch_rows=batch_rows)
    assert whole.texts == parts.texts
    np.testing.assert_allclose(whole.nll, parts.nll, atol=1e-4)


@EVERY_TOOL
def test_the_tool_that_runs_the_model_does_not_matter(tool):
    backend = load_backend(tool, loaded())
    calls, generate = [], backend.generate
    backend.generate = lambda *args, **options: calls.append(1) or generate(*args, **options)
    found = sweep(loaded(), arms(), CELLS, PROMPTS, decoding=DECODING, backend=backend)
    assert calls and found.texts == grid().texts
    np.testing.assert_allclose(found.nll, grid().nll, atol=1e-4)


@pytest.mark.parametrize("pad", ["</s>", "a", "the"])
def test_padding_is_neither_said_nor_penalised(pad):
    """Of an answer that ends early, and in the prompts, where the pad token is an ordinary one."""
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.pad_token = pad
    shared = load((tiny_model("llama", seed=4), tokenizer))
    with torch.no_grad():
        shared.model.get_output_embeddings().weight[tokenizer.pad_token_id] *= 2
    prompts = ["Hi!", "Why?", "Qxz Qxz Qxz Qxz Qxz Qxz"]
    decoding = Decoding(max_new_tokens=16, repetition_penalty=1.5)
    run = functools.partial(sweep, shared, {}, [{}], prompts, decoding=decoding)
    assert run().texts == run(batch_rows=1).texts


def test_nll_is_the_oracles_under_the_unsteered_model():
    for c, p in [(0, 0), (1, 1), (2, 2), (3, 0)]:
        _, prompt, new = by_hand(CELLS[c], PROMPTS[p])
        whole = torch.cat([prompt, new])[None]
        logp = full_logits(loaded().model, whole, torch.ones_like(whole)).log_softmax(-1)[0]
        losses = [-logp[t - 1, whole[0, t]] for t in range(len(prompt), whole.shape[1])]
        assert grid().nll[c, p] == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)


def test_far_doses_cost_more():
    cells = [{"a": c} for c in (0.0, 3.0)]
    found = sweep(loaded(), arms(), cells, PROMPTS, decoding=DECODING)
    assert (found.nll[1] - found.nll[0]).mean() > 0.5


def test_scope_and_length_are_the_decodings():
    decoding = Decoding(max_new_tokens=3, positions="last")
    found = sweep(loaded(), arms(), [{"a": 3.0}], PROMPTS, decoding=decoding)
    everywhere = Decoding(max_new_tokens=3)
    assert found.texts != sweep(loaded(), arms(), [{"a": 3.0}], PROMPTS, decoding=everywhere).texts
    assert all(len(loaded().tokenizer(t)["input_ids"]) <= 4 for t in found.texts[0])


def test_progress_counts_the_rows():
    told = []
    sweep(
        loaded(),
        arms(),
        CELLS,
        PROMPTS,
        decoding=DECODING,
        batch_rows=6,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(6, 15), (12, 15), (15, 15)]


@pytest.mark.parametrize(
    ("cells", "prompts", "message"),
    [
        ([], PROMPTS, "needs cells and prompts, got 0 and 3"),
        (CELLS, [], "needs cells and prompts, got 5 and 0"),
        ([{"a": 1.0}, {"c": 1.0}], PROMPTS, "cell names arm 'c'; arms are \\['a', 'b'\\]"),
    ],
)
def test_what_cannot_be_swept_is_refused(cells, prompts, message):
    with pytest.raises(InvalidInput, match=message):
        sweep(loaded(), arms(), cells, prompts)


def test_a_misspelt_template_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UnknownName, match="template 'plian': did you mean plain"):
        Decoding(template="plian")


@pytest.mark.parametrize("prompts", ["Who?", ["Who?", None]])
def test_prompts_are_a_list_of_strings(prompts, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InvalidInput, match=r"expected a list of prompts.*(one string|1 .* None)"):
        sweep(loaded(), arms(), CELLS, prompts)
    with pytest.raises(InvalidInput, match="expected a list of texts in each row of asked"):
        sweep(loaded(), arms(), [{}], PROMPTS[:2], asked=[prompts])


def short(arch):
    model = tiny_model(arch)
    model.config.max_position_embeddings = 64
    return load((model, tiny_tokenizer(chat=True)))


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "llama"])
def test_a_prompt_beyond_the_models_positions_is_refused_before_anything_runs(arch, monkeypatch):
    model = short(arch)
    around = encode(model.tokenizer, format_prompts(model.tokenizer, [""]))["input_ids"].shape[1]
    fits = "x" * (64 - DECODING.max_new_tokens - around)
    assert sweep(model, {}, [{}], ["Hi", fits], decoding=DECODING).texts
    monkeypatch.setattr(model.model, "generate", lambda **_: pytest.fail("generated"))
    message = r"'Qx*' is too long: .* 53 tokens and 12 more to generate, and .* positions for 64"
    with pytest.raises(InvalidInput, match=message):
        sweep(model, {}, [{}], ["Hi", f"Q{fits}"], decoding=DECODING)
    instructed = format_prompts(model.tokenizer, ["Hi", f"Q{fits}"])
    with pytest.raises(InvalidInput, match="'Why' is too long: .* 53 tokens"):
        sweep(model, {}, [{}], ["Hi", "Why"], asked=[instructed], decoding=DECODING)


@pytest.mark.parametrize("limit", [None, -1])
def test_a_model_without_a_limit_is_asked_anything(limit):
    model = load((tiny_model("bloom"), tiny_tokenizer()))
    model.model.config.max_position_embeddings = limit
    assert sweep(model, {}, [{}], ["x" * 600], decoding=Decoding(max_new_tokens=2)).texts


@pytest.mark.parametrize("batch_rows", [0, -1])
def test_a_batch_has_rows(batch_rows):
    with pytest.raises(InvalidInput, match=f"1 row or more per call, got {batch_rows}"):
        sweep(loaded(), arms(), CELLS, PROMPTS, batch_rows=batch_rows)


def test_the_model_is_left_clean_also_by_errors():
    model = loaded().model
    ids = torch.arange(3, 20)[None]
    before = full_logits(model, ids, torch.ones_like(ids))
    sweep(loaded(), arms(), CELLS[1:2], PROMPTS[:1], decoding=DECODING)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(loaded(), arms(), CELLS, PROMPTS, decoding=DECODING, batch_rows=4, progress=stop)
    broken = decoder_blocks(model)[1][3].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(loaded(), arms(), CELLS, PROMPTS, decoding=DECODING)
    broken.remove()
    assert not hooks(model)
    assert torch.equal(full_logits(model, ids, torch.ones_like(ids)), before)


def test_until_end_keeps_the_first_end_token_and_nothing_after():
    ids = torch.tensor([[5, 2, 0, 0], [2, 2, 5, 5], [5, 6, 7, 8], [5, 9, 2, 0]])
    T, F = True, False
    one = torch.tensor([[T, T, F, F], [T, F, F, F], [T, T, T, T], [T, T, T, F]])
    two = torch.tensor([[T, T, F, F], [T, F, F, F], [T, T, T, T], [T, T, F, F]])
    assert torch.equal(_until_end(ids, [2]), one)
    assert torch.equal(_until_end(ids, [2, 9]), two)
    assert _until_end(ids, []).all()


def test_end_tokens_are_those_that_generation_stops_at():
    fresh = load((tiny_model("llama"), tiny_tokenizer()))
    for given, expected in ((7, [7]), ([7, EOS], [7, EOS]), (None, [EOS])):
        fresh.model.generation_config.eos_token_id = given
        assert _end_ids(fresh) == expected


def same(one, other):
    assert (one.cells, one.prompts, one.texts) == (other.cells, other.prompts, other.texts)
    np.testing.assert_array_equal(one.nll, other.nll)
    np.testing.assert_array_equal(one.degenerate, other.degenerate)


def test_parts_of_a_grid_are_its_cells_and_join_to_it_again():
    whole = grid()
    part = whole.at([3, 1])
    assert part.cells == (CELLS[3], CELLS[1]) and part.prompts == whole.prompts
    assert part.texts == (whole.texts[3], whole.texts[1])
    assert part.nll.tolist() == [whole.nll[3].tolist(), whole.nll[1].tolist()]
    assert part.degenerate.shape == (2, len(PROMPTS))
    same(whole.at(range(2)).joined(whole.at([2, 3, 4])), whole)
    assert whole.nll[3, 0] != whole.nll[1, 0]


def test_only_sweeps_over_the_same_prompts_are_joined():
    other = dataclasses.replace(grid(), prompts=(*PROMPTS[:2], "And now?"))
    with pytest.raises(InvalidInput, match="only sweeps over the same prompts"):
        grid().joined(other)
