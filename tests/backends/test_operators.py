"""Projecting out, clamping, adding and keeping the norm: identities, an oracle, and real models."""

import jaxtyping
import pytest
import torch
from oracles.operators import operated_batch, operated_by_hand
from oracles.steering import full_logits
from steering_cases import (
    EVERY_SCOPE,
    NO_EOS,
    hooks,
    left_as_found,
    load,
    prompts,
    steer,
    steered_logits,
)
from tiny import EOS

from valueflow.backends.base import Intervention
from valueflow.errors import InvalidInput

FREE = float("nan")
HIDDEN, NORM = 32, 6.0
ARCHITECTURES = pytest.mark.parametrize("arch", ["gpt2", "llama", "gpt_neo"])

# Row 0 ablates value 0, row 1 is left alone, row 2 adds, row 3 clamps two, row 4 does everything.
HELD = torch.tensor(
    [
        [0.0, FREE, FREE],
        [FREE, FREE, FREE],
        [FREE, FREE, FREE],
        [0.5, -1.0, FREE],
        [FREE, 0.3, 0.0],
    ]
)
ADDED = torch.tensor([[0.0] * 3, [0.0] * 3, [0.0, 0.7, 0.0], [0.0] * 3, [1.2, -0.4, 0.6]])
KEEP = torch.tensor([False, True, True, False, True])


def some_directions(seed=0, values=3):
    """Of different lengths, and far from orthogonal."""
    drawn = torch.randn(values, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return (drawn + drawn[0]) * torch.tensor([1.0, 0.2, 3.0])[:values, None] / 8


def streams(rows=5, seed=1, dtype=torch.float32):
    drawn = torch.randn(rows, 7, HIDDEN, generator=torch.Generator().manual_seed(seed))
    return (4 * drawn).to(dtype)


def make(held=HELD, coefficients=None, keep_norm=False, directions=None, **more):
    coefficients = torch.zeros(held.shape) if coefficients is None else coefficients
    directions = some_directions() if directions is None else directions
    layers = more.pop("layers", (1,))
    return Intervention(
        dict.fromkeys(layers, directions),
        dict.fromkeys(layers, NORM),
        coefficients,
        held=held,
        keep_norm=keep_norm,
        **more,
    )


def applied(hidden, scope=True, **changes):
    return make(**changes).plans()[1](hidden, scope)


def components(hidden, directions):
    """Along unit directions, in units of what a coefficient of 1 would add."""
    lengths = directions.norm(dim=1)
    return hidden @ (directions / lengths[:, None]).T / (NORM * lengths)


def one_row(*held):
    return torch.tensor([held], dtype=torch.float32)


# Identities


def test_what_is_ablated_has_no_component_left():
    hidden = applied(streams(), held=one_row(0, FREE, 0))
    units = torch.nn.functional.normalize(some_directions(), dim=1)
    assert (streams() @ units.T).abs().mean() > 1
    assert (hidden @ units.T)[..., [0, 2]].abs().max() < 1e-5


def test_ablating_twice_is_ablating_once():
    once = applied(streams(), held=one_row(0, FREE, 0))
    torch.testing.assert_close(applied(once, held=one_row(0, FREE, 0)), once, atol=1e-5, rtol=0)


def test_what_is_clamped_has_that_component():
    held = one_row(0.5, -2, 0.25)
    found = components(applied(streams(), held=held), some_directions())
    torch.testing.assert_close(found, held[None].expand_as(found), atol=1e-5, rtol=0)


def test_clamping_to_the_own_component_changes_nothing():
    hidden = streams()
    for token in hidden.flatten(0, 1)[:4]:
        own = components(token[None], some_directions())
        clamped = applied(token[None, None], held=own)
        torch.testing.assert_close(clamped[0, 0], token, atol=2e-5, rtol=0)


def test_parts_orthogonal_to_what_is_held_are_untouched():
    directions = some_directions()
    change = applied(streams(), held=one_row(0.5, FREE, 0)) - streams()
    basis = torch.linalg.qr(directions[[0, 2]].T).Q
    assert (change - change @ basis @ basis.T).norm(dim=-1).max() < 1e-5
    assert change.norm(dim=-1).min() > 0.1


def test_clamping_is_ablating_and_adding_whatever_the_length():
    nothing = one_row(FREE, FREE, FREE)
    for value in range(3):
        fixed, added = nothing.clone(), torch.zeros(1, 3)
        fixed[0, value], added[0, value] = 0.7, 0.7
        ablated = applied(streams(), held=torch.where(fixed.isnan(), fixed, 0.0))
        expected = applied(ablated, held=nothing, coefficients=added)
        torch.testing.assert_close(applied(streams(), held=fixed), expected, atol=1e-5, rtol=0)


def test_holding_goes_before_adding():
    added = torch.tensor([[0.0, 1.5, 0.0]])
    held = one_row(0, FREE, FREE)
    expected = applied(streams(), held=held) + 1.5 * NORM * some_directions()[1]
    hidden = applied(streams(), held=held, coefficients=added)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)
    assert components(hidden, some_directions())[..., 0].abs().min() > 0.1


def test_ablation_does_not_depend_on_length_or_order():
    base = some_directions()
    expected = applied(streams(), held=one_row(0, 0, FREE))
    stretched = base * torch.tensor([-5.0, 0.01, 1.0])[:, None]
    for directions in (stretched, base[[1, 0, 2]]):
        hidden = applied(streams(), held=one_row(0, 0, FREE), directions=directions)
        torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


def test_dependent_and_zero_directions_do_no_harm():
    base = some_directions()
    dependent = torch.stack([base[0], 2 * base[0] + 1e-9, torch.zeros(HIDDEN)])
    expected = applied(streams(), held=one_row(0, FREE, FREE))
    hidden = applied(streams(), held=one_row(0, 0, 0), directions=dependent)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)
    expected = applied(streams(), held=one_row(0.5, FREE, FREE))
    hidden = applied(streams(), held=one_row(0.5, 0.25, 3), directions=dependent)
    torch.testing.assert_close(hidden, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("gap", [0.0, 1e-5])
def test_contradicting_values_along_one_line_are_refused(gap):
    base = some_directions()
    twice = torch.stack([base[0], base[0] + gap * base[1]])
    made = make(held=one_row(0.5, 0.6), directions=twice)
    with pytest.raises(InvalidInput, match=r"contradict each other; hold one of them"):
        made.plans()


def test_the_norm_of_each_token_is_kept():
    hidden = applied(streams(), coefficients=ADDED, keep_norm=True)
    before, after = streams().norm(dim=-1), hidden.norm(dim=-1)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-6)
    free = applied(streams(), coefficients=ADDED)
    cosine = torch.nn.functional.cosine_similarity(hidden, free, dim=-1)
    assert cosine.min() > 1 - 1e-6
    assert (free.norm(dim=-1) - before).abs()[[0, 2, 3, 4]].min() > 1e-3


def test_a_token_that_is_wholly_projected_out_stays_zero():
    direction = some_directions()[:1]
    hidden = (4 * direction).expand(1, 2, HIDDEN)
    ablated = applied(hidden, held=one_row(0), directions=direction, keep_norm=True)
    assert ablated.isfinite().all()
    zeros = applied(torch.zeros(1, 2, HIDDEN), held=one_row(0), directions=direction)
    assert not zeros.any()


# Rows, scopes, precision


def test_rows_follow_a_slow_oracle():
    made = make(coefficients=ADDED, keep_norm=KEEP)
    expected = operated_batch(streams(), 1, made, torch.ones(5, 7).bool())
    hidden = made.plans()[1](streams())
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=0)
    assert torch.equal(hidden[1], streams()[1])


def test_a_row_does_not_depend_on_its_neighbours():
    together = applied(streams(), coefficients=ADDED, keep_norm=KEEP)
    for r in (0, 2, 3, 4):
        own = slice(r, r + 1)
        alone = applied(
            streams()[own], held=HELD[own], coefficients=ADDED[own], keep_norm=KEEP[own]
        )
        torch.testing.assert_close(alone[0], together[r], atol=2e-6, rtol=0)


def test_tokens_out_of_scope_are_bit_equal():
    scope = torch.rand(5, 7, generator=torch.Generator().manual_seed(2)) < 0.5
    before = streams()
    after = applied(before, scope, coefficients=ADDED, keep_norm=KEEP)
    assert torch.equal(after[~scope], streams()[~scope])
    everywhere = applied(streams(), coefficients=ADDED, keep_norm=KEEP)
    assert torch.equal(after[scope], everywhere[scope])
    assert torch.equal(before, streams()), "the stream was changed in place"
    assert applied(before, False) is before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_stream_is_rounded_once(dtype):
    hidden = applied(streams(dtype=dtype), coefficients=ADDED, keep_norm=KEEP)
    assert hidden.dtype == dtype
    exact = applied(streams(dtype=dtype).float(), coefficients=ADDED, keep_norm=KEEP)
    assert torch.equal(hidden, exact.to(dtype))
    assert torch.equal(hidden[1], streams(dtype=dtype)[1])


def test_a_double_precision_stream_stays_so():
    hidden = applied(streams(dtype=torch.float64), held=one_row(0, FREE, FREE))
    unit = torch.nn.functional.normalize(some_directions()[0].double(), dim=0)
    assert hidden.dtype == torch.float64
    assert (hidden @ unit).abs().max() < 1e-5


def test_copies_of_rows():
    plan = make(coefficients=ADDED, keep_norm=KEEP).plans()[1]
    hidden = streams().repeat_interleave(2, dim=0)
    expected = plan(streams()).repeat_interleave(2, dim=0)
    torch.testing.assert_close(plan.repeated(2)(hidden), expected, atol=2e-6, rtol=0)
    one = make(held=one_row(0, 0.5, FREE)).plans()[1]
    assert one.repeated(4) is one


# On models


def operating(positions="all", layers=(1, 2)):
    """Three rows: ablate and keep the norm; nothing; clamp and add."""
    held = torch.tensor([[0.0, FREE, 0.0], [FREE] * 3, [FREE, 1.5, -1.0]])
    added = torch.tensor([[0.0] * 3, [0.0] * 3, [1.0, 0.0, 0.0]])
    keep = torch.tensor([True, True, False])
    return make(held, added, keep, positions=positions, layers=layers)


@EVERY_SCOPE
@ARCHITECTURES
def test_logits_equal_those_by_hand(arch, positions):
    backend, (ids, mask), prompt_mask = load(arch), prompts(), prompts()[1][:, :9]
    with operated_by_hand(backend.blocks, operating(positions), prompt_mask):
        expected = full_logits(backend.model, ids, mask)
    with left_as_found(backend):
        logits = steered_logits(backend, operating(positions), ids, mask, prompt_mask)
    real, unsteered = mask.bool(), full_logits(backend.model, ids, mask)
    torch.testing.assert_close(logits[real], expected[real], atol=2e-5, rtol=0)
    assert torch.equal(logits[1], unsteered[1])
    # All of row 0 is taken for generated, as its prompt is padded.
    for row in (0, 2) if positions in ("all", "generated") else (2,):
        assert (logits - unsteered)[row][real[row]].abs().max() > 0.1


@EVERY_SCOPE
@ARCHITECTURES
def test_generation_with_a_cache_equals_that_without_and_by_hand(arch, positions):
    backend, (ids, mask) = load(arch), prompts()
    cached = backend.generate(ids, mask, operating(positions), use_cache=True, **NO_EOS)
    uncached = backend.generate(ids, mask, operating(positions), use_cache=False, **NO_EOS)
    assert torch.equal(cached, uncached)
    unsteered = backend.generate(ids, mask, **NO_EOS)
    assert torch.equal(cached[1], unsteered[1])
    assert not torch.equal(cached, unsteered)
    sequence, real = ids, mask
    with operated_by_hand(backend.blocks, operating(positions), mask.bool()):
        for _ in range(5):
            logits = full_logits(backend.model, sequence, real)[:, -1]
            logits[:, EOS] = -torch.inf
            sequence = torch.cat([sequence, logits.argmax(-1, keepdim=True)], dim=1)
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
    assert torch.equal(cached, sequence[:, ids.shape[1] :])


@pytest.mark.parametrize("side", ["left", "right"])
@ARCHITECTURES
def test_padding_changes_nothing(arch, side):
    backend, (ids, mask) = load(arch), prompts(side)
    together = steered_logits(backend, operating(), ids, mask)
    for row, real in enumerate(mask.bool()):
        own = slice(row, row + 1)
        made = operating()
        alone = Intervention(
            made.directions,
            made.norms,
            made.coefficients[own],
            held=made.held[own],
            keep_norm=made.keep_norm[own],
        )
        logits = steered_logits(backend, alone, ids[own, real], mask[own, real])[0]
        torch.testing.assert_close(together[row][real], logits, atol=2e-5, rtol=0)


def test_the_stream_of_a_model_holds_what_it_should():
    backend, (ids, mask) = load(), prompts()
    made = make(one_row(0, -0.5, FREE), keep_norm=False, layers=(2,))
    with steer(backend, made, mask):
        stream = backend.capture(ids, mask, [2])[2][mask.bool()]
    found = components(stream, some_directions())
    assert found[:, 0].abs().max() < 1e-5
    assert (found[:, 1] + 0.5).abs().max() < 1e-5


def test_nothing_held_and_nothing_added_installs_no_hook():
    backend = load()
    for made in (
        make(torch.full((3, 3), FREE), keep_norm=True),
        make(torch.full((3, 3), FREE)),
        make(None, torch.zeros(3, 3), keep_norm=torch.tensor([True, False, True])),
    ):
        assert made.plans() == {}
        with steer(backend, made, prompts()[1]):
            assert not hooks(backend.model)


def test_contexts_nest_outer_first():
    backend, (ids, mask) = load(), prompts()
    add = make(None, torch.tensor([[0.0, 1.5, 0.0]]))
    ablate = make(one_row(0, FREE, FREE))
    unit = torch.nn.functional.normalize(some_directions()[0], dim=0)
    left = {}
    for name, outer, inner in (("out last", add, ablate), ("add last", ablate, add)):
        with steer(backend, outer, mask), steer(backend, inner, mask):
            stream = backend.capture(ids, mask, [1])[1][mask.bool()]
            left[name] = float((stream @ unit).abs().max())
    assert left["out last"] < 1e-5
    assert left["add last"] > 0.5


def test_beams_carry_the_operators_of_their_row():
    backend, (ids, mask), options = load(), prompts(), {"num_beams": 3, **NO_EOS}
    made = operating()
    together = backend.generate(ids, mask, made, **options)
    for row, real in enumerate(mask.bool()):
        own = slice(row, row + 1)
        one = Intervention(
            made.directions,
            made.norms,
            made.coefficients[own],
            held=made.held[own],
            keep_norm=made.keep_norm[own],
        )
        alone = backend.generate(ids[own, real], mask[own, real], one, **options)
        assert torch.equal(alone[0], together[row])


# What is refused


@pytest.fixture
def without_shape_checks():
    """As users run it: the test run's own check of the annotations would refuse first."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held": torch.zeros(2, 3)}, r"held: expected \(rows, values\).*\(5, 3\), got \(2, 3\)"),
        ({"held": torch.full((5, 3), torch.inf)}, "held component is infinite; use NaN"),
        ({"keep_norm": torch.ones(2).bool()}, r"one for each of 5 rows, got \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, without_shape_checks):
    with pytest.raises(InvalidInput, match=message):
        make(**({"coefficients": ADDED} | changes))


def test_deltas_do_not_pass_for_the_whole():
    assert set(make(None, ADDED).deltas()) == {1}
    for made in (make(coefficients=ADDED), make(None, ADDED, keep_norm=True)):
        assert not made.only_adds
        with pytest.raises(InvalidInput, match=r"more than add; use plans\(\)"):
            made.deltas()
