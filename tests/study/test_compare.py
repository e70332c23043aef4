"""A comparison in a planted world finds what was planted, on prompts it chose nothing on."""

import dataclasses

import numpy as np
import pytest
from planted_loop import loaded
from planted_ways import CALIBRATED_ON, VERIFIED_ON, World, card, exact

from valueflow.errors import InvalidInput, StaleArtifact
from valueflow.study.compare import compare_value
from valueflow.study.compare_store import load_measurement, save_measurement
from valueflow.study.compare_summary import estimate, summarise
from valueflow.study.instructions import FORMS, Form
from valueflow.study.ways import Setting
from valueflow.vidb import load_starter

STRONG = {
    "person:system": 0.6,
    "person:user": 1.1,
    "reply:system": 1.6,
    "reply:user": 0.2,
    "said:system": 0.4,
    "said:user": 0.8,
}


def compared(monkeypatch, world, **changed):
    world.install(monkeypatch)
    own = changed.pop("card", None) or card(world)
    return compare_value(
        loaded(),
        own,
        exact(),
        load_starter(),
        **({"prompts": VERIFIED_ON, "seed": 0} | changed),
    )


@pytest.fixture(scope="module")
def world():
    return World(gains=STRONG)


@pytest.fixture(scope="module")
def made(world):
    with pytest.MonkeyPatch.context() as patch:
        return compared(patch, world)


def test_the_best_wording_and_place_is_chosen_and_all_are_told(made):
    chosen = {kind: own["form"] for kind, own in made.chosen["chosen"].items()}
    assert chosen == {"levels": "levels:reply:system", "texts": "texts:said:user"}
    assert made.chosen["chosen"]["levels"]["levels"] == [-2, -1, 0, 1, 2]
    spans = {own["form"].partition(":")[2]: own["span"] for own in made.chosen["tried"]}
    assert set(spans) == set(STRONG)
    for name, gain in STRONG.items():
        of_level = 4.0 if "said" not in name else 3.8  # texts are not at the middle of their bin
        assert spans[name] == pytest.approx(of_level * gain, abs=0.5), name


def test_ranges_are_those_planted(made, world):
    found = summarise(made, seed=0)
    truth = {}
    for way, plan in made.plans.items():
        cells = [made.at(end.setting) for end in (plan.low, plan.high)]
        told = [[float(t.rpartition(" ")[2]) for t in cell.texts] for cell in cells]
        truth[way] = float(np.mean(told[1]) - np.mean(told[0]))
        assert found.ways[way].range.mean == pytest.approx(truth[way], abs=0.05)
    assert truth["levels"] == pytest.approx(4 * 1.6, abs=0.4)
    assert truth["activation"] == pytest.approx(0.8 * 10, abs=0.6)
    assert truth["both"] == pytest.approx(0.8 * 10 + 4 * 1.6, abs=0.9)
    assert found.prompting == "levels"
    assert found.unsteered.mean == pytest.approx(1.0, abs=0.3)


def test_the_way_that_reaches_further_is_told_with_an_interval_that_covers(made):
    found = summarise(made, seed=0)
    difference = found.differences["activation - levels"]
    assert difference.low < 8.0 - 6.4 < difference.high and difference.low > 0
    assert found.differences["both - activation"].low > 0
    assert found.differences["activation - texts"].low > difference.high


def test_a_world_where_prompting_reaches_further_is_told_too(monkeypatch):
    world = World(gains={"person:user": 2.5, "said:system": 0.5}, dose=4.0)
    made = compared(monkeypatch, world)
    found = summarise(made, seed=0)
    assert made.chosen["chosen"]["levels"]["form"] == "levels:person:user"
    assert found.differences["activation - levels"].high < 0
    assert found.ways["levels"].error == pytest.approx(0.5, abs=0.3)


def test_targets_are_hit_by_doses_and_rounded_to_levels(made):
    found = summarise(made, seed=0)
    activation, levels = found.ways["activation"], found.ways["levels"]
    # 1 + 10 c reaches -3 to 5 (and the levels -2.2 to 4.2): -2, 0, 2, 4 of the targets.
    assert [t["status"] for t in activation.targets].count("ok") == 4
    assert activation.error < 0.35 < levels.error < 1.3
    assert found.shared["n"] == 4
    assert found.shared["activation"] == pytest.approx(activation.error)
    assert activation.error_all > activation.error
    for target in levels.targets:
        levels_at = {c: 1.0 + 1.6 * c for c in (-2, -1, 0, 1, 2)}
        nearest = min(levels_at.values(), key=lambda x: abs(x - target["target"]))
        assert target["achieved"].mean == pytest.approx(nearest, abs=0.5)


@pytest.mark.slow
def test_damage_keeps_an_instruction_from_being_used(monkeypatch):
    harm = {"reply:system": 2.0, "person:user": 0.5}
    made = compared(monkeypatch, World(gains=STRONG, harm=harm))
    chosen = made.chosen["chosen"]["levels"]
    assert chosen["form"] == "levels:person:user"  # 4.4 within the limit beats 6.4 beyond it
    found = summarise(made, seed=0).ways["levels"]
    assert found.damage == pytest.approx((0.5, 0.5)) and found.within


def test_both_has_less_damage_or_more_range_than_either(monkeypatch):
    """Doses that cost much: under an instruction smaller ones do for the same intensity."""
    made = compared(monkeypatch, World(gains=STRONG, cost=12.0))
    found = summarise(made, seed=0).ways
    assert found["activation"].range.mean == pytest.approx(2 * 10 * (0.7 / 12) ** 0.5, abs=0.5)
    assert found["both"].range.mean > found["activation"].range.mean + 4
    assert max(found["both"].damage) <= 0.75
    for one, other in zip(found["both"].targets, found["activation"].targets, strict=True):
        if other["status"] == "ok":
            assert one["damage"] <= other["damage"] + 0.05


@pytest.mark.slow
def test_asymmetry_is_told_with_its_sign(monkeypatch):
    world = World(gains=STRONG)
    straight = world.truth

    def bent(prompt, asked, coefficient):
        intensity, harm = straight(prompt, asked, coefficient)
        return intensity - 0.7 * 10 * min(coefficient, 0.0), harm  # down moves by a third only

    world.truth = bent
    made = compared(monkeypatch, world)
    found = summarise(made, seed=0).ways["activation"]
    assert found.up.mean == pytest.approx(4.0, abs=0.4)
    assert found.down.mean == pytest.approx(1.2, abs=0.4)
    assert found.asymmetry.low < 2.8 < found.asymmetry.high and found.asymmetry.low > 1


def test_placebos_are_measured_and_do_nothing(made):
    found = summarise(made, seed=0).placebos
    assert set(found) == {"placebo levels", "placebo texts", "random 1", "random 2"}
    for name, estimated in found.items():
        assert estimated.n == len(VERIFIED_ON)
        assert estimated.mean == pytest.approx(0.0, abs=0.1), name


def test_the_model_is_given_what_the_settings_say(monkeypatch):
    world = World(gains=STRONG)
    made = compared(monkeypatch, world)
    last = world.calls[-1]  # the verification, in the order of the cells
    assert len(last) == len(made.cells)
    plain = last[0][1]
    lengths = {}
    for (cell, asked), own in zip(last, made.cells, strict=True):
        s = own.setting
        assert cell == ({s.vector: s.coefficient} if s.vector else {})
        if not s.form:
            assert asked == plain
        else:
            assert all(a != b for a, b in zip(asked, plain, strict=True))
            lengths[s.form, s.level] = [len(loaded().tokenizer(a)["input_ids"]) for a in asked]
            assert ("kitchen" in asked[0]) == s.form.startswith("placebo")
    for kind in ("levels", "texts"):
        (level,) = {x for form, x in lengths if form == f"placebo {kind}"}
        gaps = np.subtract(lengths[f"placebo {kind}", level], lengths[kind, level])
        assert np.abs(gaps).max() <= 12
    # Every prompt has its own draw of a person's texts, and calibration never saw these prompts.
    texts = next(asked for (_, asked), c in zip(last, made.cells, strict=True)
                 if c.setting.form == "texts")  # fmt: skip
    assert len({a.partition("Reply to what comes next")[0] for a in texts}) > 20
    seen = {text for call in world.calls[:-1] for _, row in call for text in row}
    assert not seen & {text for _, row in last for text in row}


def test_level_and_coefficient_0_are_unsteered_exactly(made):
    assert made.cells[0].setting == Setting()
    np.testing.assert_array_equal(made.unsteered.damage, np.zeros(len(VERIFIED_ON)))
    assert sum(not (c.setting.form or c.setting.vector) for c in made.cells) == 1


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ((*VERIFIED_ON, CALIBRATED_ON[3]), "What of matter 3\\?' was calibrated on"),
        (VERIFIED_ON[:1], "two or more different prompts"),
        ((VERIFIED_ON[0], VERIFIED_ON[0]), "two or more different prompts"),
    ],
)
def test_prompts_that_cannot_be_compared_on_are_refused(monkeypatch, prompts, message):
    world = World(gains=STRONG)
    with pytest.raises(InvalidInput, match=message):
        compared(monkeypatch, world, prompts=prompts)
    assert not world.calls


def test_a_card_of_another_model_is_refused(monkeypatch):
    world = World()
    own = card(world)
    other = dict(own.provenance["model"]) | {"tokenizer": "another"}
    stale = dataclasses.replace(own, provenance=own.provenance | {"model": other})
    with pytest.raises(StaleArtifact, match="another tokenizer"):
        compared(monkeypatch, world, card=stale)
    assert not world.calls


@pytest.mark.slow
def test_a_vector_of_no_use_leaves_prompting_alone(monkeypatch):
    """Every dose beyond the limit: activation has no range, and both is prompting."""
    made = compared(monkeypatch, World(gains=STRONG, cost=1e6))
    found = summarise(made, seed=0)
    assert abs(found.ways["activation"].range.mean) < 0.1
    assert found.ways["both"].range.mean == pytest.approx(found.ways["levels"].range.mean, abs=0.1)
    assert set(made.controls) == {"placebo levels", "placebo texts", "random 1", "random 2"}


def test_one_form_alone_can_be_compared(monkeypatch):
    made = compared(
        monkeypatch, World(gains=STRONG), forms=[Form("levels", "person", "system")], n_random=0
    )
    assert set(made.plans) == {"activation", "levels", "both"}
    assert set(made.controls) == {"placebo levels"}
    assert summarise(made, seed=0).prompting == "levels"


def test_what_was_measured_comes_back_from_disk(made, tmp_path):
    own = made.cells[1]
    lost = dataclasses.replace(own, intensities=own.intensities.copy(), damage=own.damage.copy())
    lost.intensities[2], lost.damage[3] = np.nan, np.nan
    kept = dataclasses.replace(made, cells=(made.cells[0], lost, *made.cells[2:]))
    save_measurement(kept, {"seed": 0, "prompts": VERIFIED_ON}, tmp_path / "m")
    found = load_measurement(tmp_path / "m", {"seed": 0, "prompts": VERIFIED_ON})
    assert (found.value, found.prompts, found.limit) == (made.value, made.prompts, made.limit)
    assert found.plans == made.plans and found.controls == made.controls
    for one, other in zip(found.cells, kept.cells, strict=True):
        assert (one.setting, one.texts) == (other.setting, other.texts)
        np.testing.assert_array_equal(one.intensities, other.intensities)
        np.testing.assert_array_equal(one.damage, other.damage)
        np.testing.assert_array_equal(one.degenerate, other.degenerate)
    assert repr(summarise(found, seed=1)) == repr(summarise(kept, seed=1))
    with pytest.raises(StaleArtifact, match="another setting of 'seed'"):
        load_measurement(tmp_path / "m", {"seed": 1, "prompts": VERIFIED_ON})


def test_all_forms_are_tried():
    assert len({form.name for form in FORMS}) == len(FORMS) == 6
    assert {form.place for form in FORMS} == {"system", "user"}


def test_intervals_of_means_cover():
    rng = np.random.default_rng(0)
    for n in (6, 8, 40):
        inside = 0
        for _ in range(400):
            found = estimate(rng.normal(3.0, 2.0, n), seed=1)
            inside += found.low < 3.0 < found.high
        assert 0.9 < inside / 400 < 0.985


def test_missing_numbers_are_left_out_of_means():
    found = estimate(np.array([1.0, np.nan, 3.0]), seed=0)
    assert found.mean == 2.0 and found.n == 2
    assert np.isnan(estimate(np.array([np.nan]), seed=0).mean)
    one = estimate(np.array([4.0]), seed=0)
    assert one.mean == 4.0 and np.isnan(one.low)


def test_too_few_prompts_have_no_interval():
    """Of two, resampling gives the two themselves: it would be sure of any difference."""
    for n in range(1, 6):
        few = estimate(np.array([1.0, np.nan, *range(2, n + 1)]), seed=0)
        assert few.n == n and few.mean == pytest.approx((n + 1) / 2)
        assert np.isnan([few.low, few.high]).all()
    enough = estimate(np.arange(6.0), seed=0)
    assert enough.low < enough.mean < enough.high
