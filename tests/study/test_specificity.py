"""Matrices of effects with a truth that is known: what is own, what is next, what is circle.

And cards, models and texts that do not belong together.
"""

from dataclasses import asdict, replace

import numpy as np
import planted_loop
import pytest
import torch
from scipy.stats import kstest, pearsonr

from valueflow.dose.curve import DoseCurve
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Decoding, Grid
from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact
from valueflow.models.loading import ModelFingerprint
from valueflow.steering.store import vector_hash
from valueflow.steering.vector import SteeringVector
from valueflow.study.kept import write_sweep
from valueflow.study.release_plan import random_placebo
from valueflow.study.specificity import (
    EffectMatrix,
    circle_agreement,
    column_spread,
    effects,
    own_effects,
    siblings_of,
    specificity_summary,
    standardised,
)
from valueflow.study.specificity_cards import (
    card_texts,
    check_cards,
    common_decoding,
    placebo_texts,
)
from valueflow.study.specificity_run import specificity_study, study_of_release
from valueflow.theories import get_theory

CIRCLE = get_theory("svt").circle
ANGLES = 2 * np.pi * np.arange(12) / 12
COSINES = np.cos(ANGLES[:, None] - ANGLES)
IDS = ("svt/power", "svt/hedonism", "svt/security")
TRUTH = np.array([[4.0, -1.0, 2.5], [0.5, 3.0, 0.0], [2.0, 0.0, 1.0]])


def matrix(truth, *, seed, sd=2.0, n=30, vectors=IDS, values=IDS):
    """Texts at both ends share their prompts' own level, which is far larger than the noise."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 20, n)
    noise = rng.normal(0, sd, (2, *np.shape(truth), n))
    half = np.asarray(truth)[:, :, None] / 2
    return effects(level + half + noise[0], level - half + noise[1], vectors, values)


def test_planted_effects_come_back_by_size_whatever_the_prompts_are_like():
    found = matrix(TRUTH, seed=0, n=400)
    assert found.means == pytest.approx(TRUTH, abs=3.5 * 2 * 2**0.5 / 400**0.5)


def test_half_widths_cover_the_truth():
    inside = [
        np.abs(found.means - TRUTH) <= found.half_widths
        for found in (matrix(TRUTH, seed=seed, n=6) for seed in range(200))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_own_effect_its_rival_and_the_margin_between():
    found = own_effects(matrix(TRUTH, seed=1, n=200))
    assert [row.value for row in found] == list(IDS)
    assert [row.largest for row in found] == [True, True, False]
    assert [row.other for row in found] == ["svt/security", "svt/power", "svt/power"]
    for row, margin in zip(found, (1.5, 2.5, -1.0), strict=True):
        low, high = row.ci
        half = (high - low) / 2
        assert abs(row.margin - margin) < 1.4 * half and half < 0.8
        assert row.margin == pytest.approx((low + high) / 2)


def test_an_effect_that_was_not_measured_is_no_rival_and_not_largest():
    table = matrix(TRUTH, seed=2, n=20).by_prompt.copy()
    table[0, 2] = np.nan
    table[1, 1] = np.nan
    found = own_effects(EffectMatrix(IDS, IDS, table))
    assert found[0].other == "svt/hedonism" and found[0].largest
    assert not found[1].largest and np.isnan(found[1].effect)
    summary = specificity_summary(EffectMatrix(IDS, IDS, table), seed=0)
    assert summary["effects"]["svt/hedonism"]["svt/hedonism"] is None
    assert summary["largest"] == 1


def test_missing_texts_leave_the_others_of_the_pair():
    table = np.full((1, 2, 4), np.nan)
    table[0, 0] = [1.0, np.nan, 3.0, np.nan]
    table[0, 1, 0] = 5.0
    found = EffectMatrix(IDS[:1], IDS[:2], table)
    assert found.means.tolist() == [[2.0, 5.0]]
    assert found.half_widths[0, 0] == pytest.approx(12.706 * 1.0, abs=0.01)
    assert np.isnan(found.half_widths[0, 1])


def test_standardised_effects_undo_a_value_that_moves_easily():
    """One value of which all texts make ten times as much wins every row, until it is scaled."""
    easy = np.array([1.0, 1.0, 10.0])
    rng = np.random.default_rng(3)
    own = np.eye(3) * 3 + rng.normal(0, 0.4, (3, 3))
    raw = matrix(own * easy, seed=4, sd=0.3, n=40)
    drawn = matrix(rng.normal(0, 1, (12, 3)) * easy, seed=5, sd=0.3, n=40,
                   vectors=[f"random/{i}" for i in range(12)])  # fmt: skip
    spread = column_spread(drawn)
    assert spread[2] / spread[0] == pytest.approx(10, rel=0.6)
    scaled = standardised(raw, spread)
    assert sum(row.largest for row in own_effects(scaled)) == 3
    assert scaled.means == pytest.approx(raw.means / spread)
    with pytest.raises(InvalidInput, match="already"):
        standardised(scaled, spread)


def test_the_spread_is_that_of_effects_not_of_noise():
    rng = np.random.default_rng(6)
    true = rng.normal(0, 1.5, (60, 3))
    true[:, 0] = 0.0
    drawn = matrix(true, seed=7, sd=3.0, n=25, vectors=[f"random/{i}" for i in range(60)])
    spread = column_spread(drawn)
    noise = 3.0 * 2**0.5 / 5
    assert spread[1:] == pytest.approx([1.5, 1.5], rel=0.25)
    assert spread[0] == pytest.approx(noise, rel=0.35)
    with pytest.raises(InvalidInput, match="two or more placebo"):
        column_spread(matrix(TRUTH[:1], seed=0, vectors=IDS[:1]))


def test_a_circle_is_found_and_its_opposites_move_the_other_way():
    found = circle_agreement(matrix(3 * COSINES, seed=8, vectors=CIRCLE, values=CIRCLE), seed=0)
    assert found.correlation > 0.9 and found.p <= 0.001
    assert found.opposed == found.with_opposite == CIRCLE and found.n == 12


def test_warmth_is_no_circle_and_opposes_nothing():
    """Every vector moves all values alike, each by another amount."""
    rng = np.random.default_rng(9)
    warmth = np.repeat(rng.uniform(1, 6, (12, 1)), 12, axis=1)
    made = matrix(warmth, seed=10, sd=0.5, vectors=CIRCLE, values=CIRCLE)
    found = circle_agreement(made, seed=0)
    assert abs(found.correlation) < 0.35 and found.opposed == ()
    margins = [row.margin for row in own_effects(made)]
    assert max(margins) < 0.5 and min(row.effect for row in own_effects(made)) > 0.5


def test_p_is_uniform_without_structure():
    ps = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        table = rng.normal(0, 1, (12, 12, 1))
        made = EffectMatrix(CIRCLE, CIRCLE, table)
        ps.append(circle_agreement(made, n_permutations=199, seed=seed + 1000).p)
    assert kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) < 0.11


def test_the_correlation_is_that_of_a_slow_loop():
    made = matrix(2 * COSINES, seed=11, sd=3, vectors=CIRCLE, values=CIRCLE)
    x, y = [], []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        middle = np.mean([made.means[i, j] for j in others])
        x += [made.means[i, j] - middle for j in others]
        y += [np.cos(2 * np.pi * (i - j) / 12) for j in others]
    found = circle_agreement(made, n_permutations=9, seed=0)
    assert found.correlation == pytest.approx(pearsonr(x, y)[0])


def test_the_order_of_rows_and_columns_does_not_matter():
    made = matrix(2 * COSINES, seed=12, vectors=CIRCLE, values=CIRCLE)
    turned = made.only(CIRCLE[5:] + CIRCLE[:5][::-1])
    first, second = (circle_agreement(m, n_permutations=99, seed=3) for m in (made, turned))
    assert first.correlation == pytest.approx(second.correlation) and first.p == second.p


def test_a_part_of_the_values_and_what_is_refused():
    made = matrix(TRUTH, seed=13)
    part = made.only(["svt/security", "svt/power"])
    assert part.means.tolist() == made.means[np.ix_([2, 0], [2, 0])].tolist()
    with pytest.raises(InvalidInput, match="mft/care-harm was not measured"):
        made.only(["mft/care-harm"])
    with pytest.raises(InvalidInput, match="four or more values of svt"):
        circle_agreement(made, seed=0)
    with pytest.raises(InvalidInput, match="shape"):
        EffectMatrix(IDS, IDS[:2], made.by_prompt)


def test_siblings_are_those_that_are_there():
    assert siblings_of("svt/power", CIRCLE) == list(get_theory("svt").siblings("svt/power"))
    assert siblings_of("svt/power", ["svt/power", "svt/universalism"]) == []


PRINT = ModelFingerprint("m" * 16, "t" * 16, "c" * 16)
DOSES = (-0.4, 0.0, 0.4)
QUESTIONS = ("Who decides?", "What next?")


def card(value="svt/power", *, layer=1, norm=8.0, fingerprint=PRINT, **decoding):
    """Of a straight curve; its release drew two random placebos from seed 3."""
    model = {"name": "tiny", **asdict(fingerprint)}
    row = torch.zeros(planted_loop.loaded().hidden_size)
    row[len(value) % 7] = 1.0
    vector = SteeringVector(value, {layer: row}, {layer: norm}, {"model": model})
    given = [-0.4, -0.2, 0.0, 0.2, 0.4]
    means = np.repeat(10 * np.array(given)[:, None], 4, axis=1) + [0.0, 0.1, 0.2, 0.3]
    curve = DoseCurve(damage_limit=9.0, seed=0).fit(given, means, damage=np.zeros((5, 4)))
    provenance = {"model": model, "layers": [layer], "vector": vector_hash(vector),
                  "plan": {"seed": 3, "random_draws": 2}}  # fmt: skip
    return Card(vector, curve, Decoding(**decoding), provenance)


def keep(folder, card, vector, name, *, doses=DOSES, prompts=QUESTIONS, **changed):
    """Texts as `build_release` keeps them."""
    shape = (len(doses), len(prompts))
    cells = tuple({"vector": dose} for dose in doses)
    texts = tuple(tuple(f"{dose} {prompt}" for prompt in prompts) for dose in doses)
    model = {k: v for k, v in card.provenance["model"].items() if k != "name"}
    asked = {
        "model": model,
        "vectors": {"vector": vector_hash(vector)},
        "decoding": asdict(card.decoding),
        "cells": list(cells),
        "prompts": list(prompts),
    }
    grid = Grid(cells, prompts, texts, np.zeros(shape), np.zeros(shape, dtype=bool))
    write_sweep(folder / f"{name}.jsonl.gz", grid, asked | changed)


def test_cards_are_of_the_model_and_of_their_vectors():
    loaded = planted_loop.loaded()
    own = card(fingerprint=loaded.fingerprint)
    check_cards([own], loaded)
    with pytest.raises(StaleArtifact, match="svt/hedonism was made for 'tiny'.*in model, tok"):
        check_cards([own, card("svt/hedonism")], loaded)
    calibrated = replace(own, provenance=own.provenance | {"model": asdict(PRINT)})
    with pytest.raises(StaleArtifact, match="svt/power is of another model .m{16}, here"):
        check_cards([calibrated], loaded)
    other = replace(own, vector=replace(own.vector, norms={1: 9.0}))
    with pytest.raises(StaleArtifact, match="another vector"):
        check_cards([other], loaded)


def test_cards_of_different_decoding_are_not_compared():
    same = [card(template="plain"), card("svt/face", template="plain")]
    assert common_decoding(same) == Decoding(template="plain")
    for field, two in {"template": "chat", "max_new_tokens": 9}.items():
        other = card("svt/humility", **({"template": "plain"} | {field: two}))
        with pytest.raises(
            InvalidInput, match=f"{field} is .* for svt/power and '?{two}'? for .*hu"
        ):
            common_decoding([*same, other])
    with pytest.raises(InvalidInput, match="got none"):
        common_decoding([])


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model": asdict(PRINT) | {"tokenizer": "other"}}, "tokenizer"),
        ({"vectors": {"vector": "abc"}}, "vector"),
        ({"decoding": asdict(Decoding(template="plain"))}, "template"),
        ({"decoding": asdict(Decoding(max_new_tokens=9))}, "max_new_tokens"),
    ],
)
def test_texts_that_are_not_the_cards_are_refused(tmp_path, changed, field):
    own = card()
    keep(tmp_path / "sweeps", own, own.vector, "svt-power", **changed)
    with pytest.raises(StaleArtifact, match=f"svt-power.*card of svt/power with {field} '?"):
        study_of_release([own], {}, work=tmp_path, folder=tmp_path / "out")


def test_texts_of_the_card_are_read_also_those_older_than_a_setting(tmp_path):
    own = card()
    keep(tmp_path / "sweeps", own, own.vector, "svt-power")
    assert card_texts(own, tmp_path).texts[0] == ("-0.4 Who decides?", "-0.4 What next?")
    older = {k: v for k, v in asdict(Decoding()).items() if k != "template"}
    keep(tmp_path / "sweeps", own, own.vector, "svt-power", decoding=older)
    assert card_texts(own, tmp_path).prompts == QUESTIONS
    with pytest.raises(ArtifactError, match="svt-face"):
        card_texts(card("svt/face"), tmp_path)


def test_placebos_are_those_of_the_cards_own_release(tmp_path):
    """At other layers, at other norms, of further seeds or on other prompts: left out."""
    own, ends, folder = card(), (-0.4, 0.4), tmp_path / "placebos"
    others = [card(layer=2), card(norm=9.0)]
    wanted = [random_placebo(own.vector, seed=seed) for seed in (3, 4)]
    strange = [random_placebo(other.vector, seed=3) for other in others]
    strange.append(random_placebo(own.vector, seed=5))
    for vector in (*wanted, *strange):
        keep(folder, own, vector, vector_hash(vector), doses=ends)
    names = sorted(vector_hash(vector) for vector in wanted)
    assert list(placebo_texts([own, card("svt/face")], tmp_path, QUESTIONS)) == names
    assert len(placebo_texts([own, *others], tmp_path, QUESTIONS)) == 4
    assert placebo_texts([own], tmp_path, ["Others?"]) == {}
    assert placebo_texts([own], tmp_path / "nowhere", QUESTIONS) == {}
    plain = asdict(Decoding(template="plain"))
    keep(folder, own, wanted[0], vector_hash(wanted[0]), doses=ends, decoding=plain)
    with pytest.raises(StaleArtifact, match="template 'auto', found template 'plain'"):
        placebo_texts([own], tmp_path, QUESTIONS)


def test_a_single_placebo_is_refused_before_texts_are_made(tmp_path):
    own = card()
    with pytest.raises(InvalidInput, match="0 or at least 2.*got 1"):
        specificity_study(
            planted_loop.loaded(), {own.value: own.vector}, {own.value: (-0.1, 0.1)}, {},
            prompts=QUESTIONS, folder=tmp_path / "out", n_placebos=1, seed=0,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
