"""How likely a text is to the model, against one token and one row at a time."""

import pytest
import torch
from steering_cases import EVERY_ARCHITECTURE, load, prompts


@torch.no_grad()
def nll_by_hand(model, ids, scored):
    log_probs = model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
    terms = [-log_probs[t - 1, ids[t]] for t in range(1, len(ids)) if scored[t]]
    return float(torch.stack(terms).mean())


@pytest.mark.parametrize("side", ["left", "right"])
@EVERY_ARCHITECTURE
def test_token_nll_equals_one_row_at_a_time(arch, side):
    backend, (ids, mask) = load(arch), prompts(side)
    # The second half of every row, counted from its own start; all of the last one.
    within = mask.cumsum(1) - 1
    scored = (within >= mask.sum(1, keepdim=True) // 2) & mask.bool()
    scored[2] = True
    result = backend.token_nll(ids, mask, scored)
    for row, real in enumerate(mask.bool()):
        expected = nll_by_hand(backend.model, ids[row][real], scored[row][real])
        assert float(result[row]) == pytest.approx(expected, abs=1e-5)


def test_token_nll_of_nothing_is_missing():
    backend, (ids, mask) = load(), prompts()
    scored = torch.zeros_like(mask).bool()
    scored[0] = mask[0] == 0  # padding
    scored[1, 0] = True  # the first token of a row without padding
    scored[2, 7] = True  # the first token after padding
    assert mask[2].tolist().index(1) == 7
    result = backend.token_nll(ids, mask, scored)
    assert result.isnan().all()
    scored[2, 8] = True
    assert backend.token_nll(ids, mask, scored).isnan().tolist() == [True, True, False]


@EVERY_ARCHITECTURE
def test_a_continuation_costs_what_it_costs_after_its_whole_prompt(arch):
    """Prompts are shared by rows, in any order; rows end at different places, one at once."""
    backend, (ids, mask) = load(arch), prompts()
    rows = torch.tensor([2, 0, 1, 2, 0, 2])
    new = torch.randint(3, 118, (6, 5), generator=torch.Generator().manual_seed(1))
    real = torch.arange(5) < torch.tensor([5, 3, 1, 2, 0, 4])[:, None]
    found = backend.continuation_nll(ids[rows], mask[rows], new, real)
    whole = torch.cat([mask[rows], real.long()], dim=1)
    scored = torch.cat([torch.zeros_like(mask[rows]).bool(), real], dim=1)
    expected = backend.token_nll(torch.cat([ids[rows], new], dim=1), whole, scored)
    assert found.isnan().tolist() == [False] * 4 + [True, False]
    assert torch.allclose(found, expected, atol=1e-5, equal_nan=True)
    alone = backend.continuation_nll(ids[rows[:1]], mask[rows[:1]], new[:1], real[:1])
    assert float(alone) == pytest.approx(float(found[0]), abs=1e-5)


def test_a_continuation_of_one_token_needs_no_second_pass():
    backend, (ids, mask) = load(), prompts()
    calls = []
    handle = backend.model.register_forward_pre_hook(lambda *_: calls.append(1))
    found = backend.continuation_nll(ids, mask, ids[:, :1], torch.ones(len(ids), 1).bool())
    handle.remove()
    assert len(calls) == 1 and found.isfinite().all()


def test_a_shared_prompt_is_run_once():
    backend, (ids, mask) = load(), prompts()
    rows = []
    handle = backend.model.register_forward_pre_hook(
        lambda _model, _args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    many = torch.zeros(9, dtype=torch.long)
    new = torch.full((9, 4), 7)
    backend.continuation_nll(ids[many], mask[many], new, torch.ones(9, 4).bool())
    handle.remove()
    assert rows == [1, 9]
