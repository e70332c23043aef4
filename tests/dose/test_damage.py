import pytest
import torch
from oracles.steering import full_logits, padded
from tiny import tiny_model

from valueflow.backends.hf import HFBackend
from valueflow.dose.damage import generated_nll, is_degenerate
from valueflow.models.layers import decoder_blocks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "...!?",
        "to me " * 12,
        "I think that I think that I think that I think that I think that",
        "Power is good. Power is good. POWER, is good! power is good? Power is good.",
    ],
)
def test_empty_and_looping_texts_are_degenerate(text):
    assert is_degenerate(text)


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "no no no no no no no",
        "I would tell her the truth, because she asked for it and has a right to know.",
        "We plan, we build, and we test; we plan, we build, and we rest a while by the sea.",
        "Ich würde ihr die Wahrheit sagen, weil sie danach gefragt hat.",
    ],
)
def test_ordinary_and_short_texts_are_not(text):
    assert not is_degenerate(text)


def test_the_limit_is_half_of_the_trigrams():
    # 7 distinct trigrams, of which k occur twice: 7 of 14 is half, 7 of 15 is more.
    cycle = ["one", "two", "three", "four", "five", "six", "seven"]
    assert not is_degenerate(" ".join((cycle * 3)[:16]))
    assert is_degenerate(" ".join((cycle * 3)[:17]))


def test_nll_is_the_oracles_mean_over_the_marked_tokens():
    model = tiny_model("llama")
    backend = HFBackend(model, decoder_blocks(model)[1])
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 118, (n,), generator=generator) for n in (3, 9, 5)]
    ids, mask = padded(rows)
    new = torch.randint(3, 118, (3, 6), generator=generator)
    real = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6])
    found = generated_nll(backend, ids, mask, new, real, batch_size=2)
    for i, row in enumerate(rows[:2]):
        whole = torch.cat([row, new[i][real[i]]])[None]
        logp = full_logits(model, whole, torch.ones_like(whole)).log_softmax(-1)[0]
        losses = [-logp[t - 1, whole[0, t]] for t in range(len(row), whole.shape[1])]
        assert float(found[i]) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    assert found[2].isnan()
