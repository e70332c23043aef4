import itertools
import json
import math

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from valueflow.backends.hf import HFBackend, steered
from valueflow.errors import InvalidInput
from valueflow.models import decoder_blocks
from valueflow.steering.vector import SteeringVector, intervention, random_like

HIDDEN = 32


def vector(value="svt/power", *, seed=0, layers=(1, 2), norms=None, hidden=HIDDEN, model="m1"):
    generator = torch.Generator().manual_seed(seed)
    directions = {}
    for layer in layers:
        drawn = torch.randn(hidden, generator=generator)
        directions[layer] = drawn / drawn.norm()
    norms = norms or {layer: 10.0 * (layer + 1) for layer in layers}
    provenance = {"operation": "derive", "seed": seed}
    if model is not None:
        provenance["model"] = {"model": model}
    return SteeringVector(value, directions, norms, provenance)


POWER = vector()
HEDONISM = vector("svt/hedonism", seed=1)
SECURITY = vector("svt/security", seed=2)


def same(a, b, **tolerance):
    assert a.layers == b.layers
    assert dict(a.norms) == dict(b.norms)
    for layer in a.layers:
        if tolerance:
            torch.testing.assert_close(a.directions[layer], b.directions[layer], **tolerance)
        else:
            assert torch.equal(a.directions[layer], b.directions[layer])
    return True


def test_identities():
    v, w, u = POWER, HEDONISM, SECURITY
    assert same(v + v, 2 * v)
    assert same(v * 3, 3 * v)
    assert same(-v, -1 * v)
    negative = -v
    assert same(-negative, v)
    assert same(v - w, v + (-w))
    assert same(v + w, w + v)
    assert same((v + w) + u, v + (w + u), rtol=1e-6, atol=1e-7)
    assert same(2 * (v + w), 2 * v + 2 * w, rtol=1e-6, atol=1e-7)
    assert all(not d.any() for d in (v - v).directions.values())
    assert v.layers == (1, 2)
    assert v.hidden_size == HIDDEN


def test_a_sum_adds_what_its_parts_add_whatever_their_norms():
    loud = vector("svt/hedonism", seed=1, norms={1: 40.0, 2: 3.0})
    mixed = 0.5 * POWER - 2 * loud
    deltas = intervention([mixed], [[1.0]]).deltas()
    parts = intervention([POWER, loud], [[0.5, -2.0]]).deltas()
    for layer in (1, 2):
        torch.testing.assert_close(deltas[layer], parts[layer], rtol=1e-5, atol=1e-5)
        by_hand = (
            0.5 * POWER.norms[layer] * POWER.directions[layer]
            - 2 * loud.norms[layer] * loud.directions[layer]
        )
        torch.testing.assert_close(deltas[layer][0], by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (POWER, "svt/power"),
        (0.7 * POWER - 0.3 * HEDONISM, "0.7*svt/power - 0.3*svt/hedonism"),
        (POWER + POWER, "2*svt/power"),
        (-POWER, "-svt/power"),
        (2 * (POWER - 0.5 * (HEDONISM + POWER)), "svt/power - svt/hedonism"),
        (POWER - POWER, "0"),
        (-2 * POWER.project_out([HEDONISM]), "-2*(svt/power without svt/hedonism)"),
        (POWER.renormalised() + HEDONISM, "unit(svt/power) + svt/hedonism"),
        # The same value learned in another way is another vector.
        (POWER + vector(seed=5), "svt/power + svt/power"),
    ],
)
def test_says_what_it_was_made_of(made, expected):
    assert made.value == expected
    assert made.provenance["model"] == {"model": "m1"}
    assert json.loads(json.dumps(made.provenance)) == made.provenance


def test_a_combination_keeps_the_provenance_of_its_terms():
    made = 0.7 * POWER - 0.3 * HEDONISM
    first, second = made.provenance["terms"]
    assert first == {"value": "svt/power", "coefficient": 0.7, "provenance": POWER.provenance}
    assert second["coefficient"] == -0.3
    assert second["provenance"] == HEDONISM.provenance
    assert random_like(POWER, seed=3).provenance["of"] == POWER.provenance


def test_cosine():
    vectors = [vector(seed=seed) for seed in range(8)]
    for a, b in itertools.product(vectors, vectors):
        assert -1 <= a.cosine(b) <= 1
        assert a.cosine(b) == b.cosine(a)
        assert a.cosine(3 * b) == pytest.approx(a.cosine(b), abs=1e-6)
        assert a.cosine(-b) == pytest.approx(-a.cosine(b), abs=1e-12)
    assert POWER.cosine(POWER) == pytest.approx(1, abs=1e-12)
    assert POWER.cosine(POWER - POWER) == 0
    right = SteeringVector("a", {0: torch.tensor([1.0, 0.0])}, {0: 1.0}, {})
    slanted = SteeringVector("b", {0: torch.tensor([1.0, math.sqrt(3)])}, {0: 1.0}, {})
    assert right.cosine(slanted) == pytest.approx(0.5)


def test_what_is_projected_out_is_gone_and_nothing_else():
    shared = 0.6 * HEDONISM + 0.3 * SECURITY
    mixed = POWER + shared
    left = mixed.project_out([HEDONISM, SECURITY])
    for layer in left.layers:
        direction = left.directions[layer]
        for other in (HEDONISM, SECURITY):
            assert abs(float(direction @ other.directions[layer])) < 1e-6
    assert same(left, POWER.project_out([HEDONISM, SECURITY]), rtol=1e-4, atol=1e-6)
    assert same(left.project_out([SECURITY, HEDONISM]), left, rtol=1e-4, atol=1e-6)
    assert left.cosine(POWER) > 0.8
    assert POWER.project_out([]) is POWER


def test_projecting_out_dependent_short_and_zero_vectors():
    plain = POWER.project_out([HEDONISM])
    awkward = [HEDONISM, 2 * HEDONISM, HEDONISM - HEDONISM, -HEDONISM]
    assert same(POWER.project_out(awkward), plain, rtol=1e-5, atol=1e-6)
    assert same(POWER.project_out([1e-9 * HEDONISM]), plain, rtol=1e-5, atol=1e-6)
    nothing = (3 * POWER).project_out([HEDONISM, POWER])
    assert max(float(d.norm()) for d in nothing.directions.values()) < 1e-6
    with pytest.raises(InvalidInput, match=r"almost\) zero at layers \[1, 2\]"):
        nothing.renormalised()


def test_renormalised_has_length_one_and_the_same_direction():
    long = 7 * POWER - 3 * HEDONISM
    unit = long.renormalised()
    for layer in unit.layers:
        assert float(unit.directions[layer].norm()) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(
            unit.directions[layer] * long.directions[layer].norm(), long.directions[layer]
        )


def test_a_random_direction_is_as_long_and_unrelated():
    wide = 2.5 * vector(hidden=2048)
    drawn = [random_like(wide, seed=seed) for seed in range(10)]
    for placebo in drawn:
        for layer in wide.layers:
            assert float(placebo.directions[layer].norm()) == pytest.approx(2.5, rel=1e-5)
        assert abs(placebo.cosine(wide)) < 0.1
    assert all(abs(a.cosine(b)) < 0.1 for a, b in itertools.combinations(drawn, 2))
    assert same(random_like(wide, seed=4), drawn[4])
    # Its layers are drawn apart from each other.
    first, second = (drawn[0].directions[layer] for layer in wide.layers)
    assert abs(float(first @ second)) / 2.5**2 < 0.1


def test_to_another_precision():
    half = POWER.to(dtype=torch.float16)
    assert {d.dtype for d in half.directions.values()} == {torch.float16}
    assert {d.dtype for d in half.to(dtype=torch.float32).directions.values()} == {torch.float32}
    assert half.cosine(POWER) > 0.999
    assert {d.dtype for d in (half + POWER).directions.values()} == {torch.float16}
    assert same(POWER.to(device="cpu"), POWER)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (vector(layers=(1, 3)), r"layers \[1, 2\], .* has \[1, 3\]"),
        (vector(hidden=16), "hidden size 32, .* has 16"),
        (vector(model="m2"), "made for m1, .* for m2"),
    ],
)
def test_vectors_that_do_not_go_together(other, message):
    for combine in (
        lambda: POWER + other,
        lambda: POWER - other,
        lambda: POWER.cosine(other),
        lambda: POWER.project_out([other]),
    ):
        with pytest.raises(InvalidInput, match=message):
            combine()


def test_a_vector_without_a_model_goes_with_any():
    assert (POWER + vector(model=None)).provenance["model"] == {"model": "m1"}


@pytest.mark.parametrize("wrong", ["2", None, True, POWER])
def test_only_numbers_multiply(wrong):
    with pytest.raises(TypeError):
        POWER * wrong
    with pytest.raises(TypeError):
        POWER + 1


@pytest.mark.parametrize(
    ("directions", "norms", "message"),
    [
        ({}, {}, "one or more"),
        ({1: torch.ones(4)}, {2: 1.0}, r"layers \[1\], norms for \[2\]"),
        ({1: torch.ones(4), 2: torch.ones(5)}, {1: 1.0, 2: 1.0}, r"one size .*\(4,\), \(5,\)"),
        ({1: torch.tensor([1.0, math.inf])}, {1: 1.0}, "not finite"),
        ({1: torch.ones(4)}, {1: 0.0}, "positive norm"),
        ({1: torch.ones(4)}, {1: math.nan}, "positive norm"),
    ],
)
def test_refuses_what_is_no_vector(directions, norms, message):
    with pytest.raises(InvalidInput, match=message):
        SteeringVector("svt/power", directions, norms, {})


def test_a_factor_that_is_not_finite():
    with pytest.raises(InvalidInput, match="not finite"):
        POWER * math.inf


def test_each_vector_acts_at_its_own_layers():
    late = vector("svt/hedonism", seed=1, layers=(2, 3), norms={2: 4.0, 3: 5.0})
    table = torch.tensor([[1.0, -0.5], [0.0, 2.0], [0.25, 0.0]])
    made = intervention([POWER, late], table, positions="generated")
    assert made.positions == "generated"
    deltas = made.deltas()
    assert sorted(deltas) == [1, 2, 3]
    for row, (c_power, c_late) in enumerate(table.tolist()):
        for layer in (1, 2, 3):
            expected = torch.zeros(HIDDEN)
            for v, c in ((POWER, c_power), (late, c_late)):
                if layer in v.layers:
                    expected = expected + c * v.norms[layer] * v.directions[layer]
            torch.testing.assert_close(deltas[layer][row], expected, rtol=1e-5, atol=1e-5)


def test_coefficients_that_do_not_fit():
    with pytest.raises(InvalidInput, match="got none"):
        intervention([], [[1.0]])
    with pytest.raises(InvalidInput, match=r"expected \(rows, 2\).*got \(1, 3\)"):
        intervention([POWER, HEDONISM], [[1.0, 2.0, 3.0]])
    with pytest.raises(InvalidInput, match="made for m1"):
        intervention([POWER, vector(model="m2", layers=(5,))], [[1.0, 1.0]])
    with pytest.raises(InvalidInput, match="not finite"):
        intervention([POWER], [[math.nan]])


def logits(model, ids, made):
    blocks = decoder_blocks(model)[1]
    with torch.no_grad(), steered(model, blocks, made):
        return model(input_ids=ids).logits


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_vector_minus_itself_does_nothing_and_itself_does(arch):
    model = tiny_model(arch)
    ids = torch.randint(8, 100, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(input_ids=ids).logits
    assert torch.equal(logits(model, ids, intervention([POWER - POWER], [[5.0]])), before)
    assert torch.equal(logits(model, ids, intervention([POWER], [[0.0]])), before)
    moved = logits(model, ids, intervention([POWER], [[0.5]]))
    assert (moved - before).abs().max() > 0.1
    twice = logits(model, ids, intervention([2 * POWER], [[0.25]]))
    torch.testing.assert_close(twice, moved, rtol=1e-4, atol=1e-4)


def test_generates_rows_with_their_own_coefficients():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    backend = HFBackend(model, decoder_blocks(model)[1])
    ids = torch.tensor([tokenizer("there and then")["input_ids"]]).repeat(3, 1)
    options = {"max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0}
    plain = backend.generate(ids, torch.ones_like(ids), None, **options)
    made = intervention([POWER - 0.5 * HEDONISM], [[0.0], [1.0], [-1.0]])
    rows = backend.generate(ids, torch.ones_like(ids), made, **options)
    assert torch.equal(rows[0], plain[0])
    assert len({tuple(row) for row in rows.tolist()}) == 3
