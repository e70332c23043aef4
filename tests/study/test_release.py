"""A release from end to end on a tiny model: cards, texts, a page, and what a kill leaves."""

import dataclasses
import json

import numpy as np
import planted_loop
import pytest
import torch

from valueflow.dose.released import load_released, released_folder, released_models
from valueflow.dose.steerer import Steerer, load_card
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput, StaleArtifact, UnknownName
from valueflow.evaluate import vidb_evaluator
from valueflow.judges import ScriptedJudge
from valueflow.steering.vector import SteeringVector
from valueflow.study import kept
from valueflow.study.release import build_release
from valueflow.study.release_plan import Plan, random_placebo, steered_siblings, unused_prompts
from valueflow.study.release_table import COLUMNS, release_page, release_rows
from valueflow.study.specificity_run import study_of_release, write_study
from valueflow.vidb import load_starter

VALUES = ["svt/power", "svt/hedonism"]
PLAN = Plan(
    layer=(1,),
    coefficients=(-0.6, -0.3, 0.0, 0.3, 0.6),
    targets=(-1.0, 0.0, 1.0),
    n_calibration=4,
    n_verification=3,
    random_draws=2,
    shuffled_draws=1,
    decoding=Decoding(max_new_tokens=10),
    damage_limit=9.0,
)


def half(text):
    """-6 to 6: which half of the alphabet a text prefers."""
    own = [c for c in text.lower() if c.isalpha()]
    return 12 * sum(c < "n" for c in own) / len(own) - 6 if own else 0.0


@pytest.fixture(scope="module")
def world():
    loaded, vidb = planted_loop.loaded(), load_starter()
    frame = vidb.frame[vidb.frame["value"].isin(VALUES)]
    graded = dict(zip(frame["text"], frame["intensity"], strict=True))

    def judge():
        return ScriptedJudge(
            lambda item: graded[item.text] if item.text in graded else half(item.text),
            sharpness=1.5,
            seed=5,
        )

    def derive_vector(value, shuffle):
        """What moves the letters that the judge likes, and a little of the value's own."""
        seed = len(value) if shuffle is None else 100 + shuffle
        row = torch.randn(loaded.hidden_size, generator=torch.Generator().manual_seed(seed))
        if shuffle is None:
            row = planted_loop.vector().directions[1] + 0.2 * row / row.norm()
        model = {"name": "tiny", **dataclasses.asdict(loaded.fingerprint)}
        return SteeringVector(value, {1: row / row.norm()}, {1: 8.0}, {"model": model})

    return loaded, vidb, judge, derive_vector


def build(world, out, work, plan=PLAN, values=VALUES, **changed):
    loaded, vidb, judge, derive_vector = world
    given = {"derive_vector": derive_vector, "judge": judge()} | changed
    return build_release(loaded, values, out, work=work, vidb=vidb, plan=plan, **given)


@pytest.fixture(scope="module")
def released(world, tmp_path_factory):
    """Built in two goes: the first dies while the second value is swept."""
    place = tmp_path_factory.mktemp("release")
    made, before = [], kept.sweep

    def dying(*arguments, **options):
        made.append(arguments)
        if len(made) == 5:
            raise KeyboardInterrupt
        return before(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "sweep", dying)
        with pytest.raises(KeyboardInterrupt):
            build(world, place / "vectors" / "tiny", place / "work")
        cards = build(world, place / "vectors" / "tiny", place / "work")
    # One sweep, two random draws and one shuffled; then the killed one, its repeat, and one
    # shuffled: the random ones are shared and not made again.
    assert len(made) == 7
    return place, cards


@pytest.fixture
def shipped(released, monkeypatch):
    monkeypatch.setenv("VALUEFLOW_VECTORS", str(released[0] / "vectors"))
    return released[1]


def test_cards_say_what_was_found_and_steer_at_once(world, shipped):
    cards = load_released("tiny")
    assert [card.value for card in cards] == ["svt/hedonism", "svt/power"]
    power = cards[1]
    assert power.measured["placebos"]["random"]["draws"] == 2
    shuffled = power.measured["placebos"]["shuffled"]
    assert shuffled["draws"] == 1 and abs(shuffled["changes"][0]) == shuffled["change"]
    own = world[3]("svt/power", PLAN.seed)
    assert shuffled["cosines"] == pytest.approx([own.cosine(power.vector)], abs=1e-3)
    assert len(power.measured["placebos"]["random"]["cosines"]) == 2
    assert len(power.measured["verified"]) == 3 and len(power.measured["verified_on"]) == 3
    assert power.provenance["plan"]["coefficients"] == list(PLAN.coefficients)
    assert power.measured["scale_noise"]["at_middle"] >= 0
    target = float(np.mean(power.curve.predict(power.curve.usable_range_)))
    answers = Steerer(world[0], cards).generate(["Who decides?"], {"power": target})
    assert len(answers) == 1


def test_a_loaded_card_predicts_and_inverts_as_the_built_one(shipped):
    (built,) = [card for card in shipped if card.value == "svt/power"]
    (again,) = load_released("tiny", ["power"])
    fine = np.linspace(*built.curve.usable_range_, 31)
    assert np.array_equal(again.curve.predict(fine), built.curve.predict(fine))
    assert np.array_equal(again.curve.interval(fine), built.curve.interval(fine))
    low, high = sorted(map(float, built.curve.predict(built.curve.usable_range_)))
    for target in np.linspace(low - 1, high + 1, 7).tolist():
        assert again.curve.inverse(target) == built.curve.inverse(target)
    assert again.provenance == built.provenance and again.measured == built.measured


def test_the_same_evaluator_is_needed_but_not_the_same_seed(world, shipped):
    loaded, vidb, judge, _ = world
    same = {v: vidb_evaluator(vidb, v, judge(), seed=4) for v in VALUES}
    Steerer(loaded, shipped, evaluators=same)
    blunt = ScriptedJudge(judge().intensities, sharpness=0.9, seed=5)
    other = {"svt/power": vidb_evaluator(vidb, "svt/power", blunt, seed=0)}
    with pytest.raises(StaleArtifact, match="judge"):
        Steerer(loaded, shipped, evaluators=other)


def test_what_is_there_stays_and_another_plan_is_refused(world, released, monkeypatch):
    place, cards = released
    monkeypatch.setattr(kept, "sweep", None)
    again = build(world, place / "vectors" / "tiny", place / "work")
    assert [c.provenance for c in again] == [c.provenance for c in cards]
    for name, other in {"seed": 3, "n_calibration": 5, "targets": (0.0,)}.items():
        plan = dataclasses.replace(PLAN, **{name: other})
        with pytest.raises(StaleArtifact, match=name):
            build(world, place / "vectors" / "tiny", place / "work", plan)
    blunt = ScriptedJudge(world[2]().intensities, sharpness=0.9, seed=5)
    with pytest.raises(StaleArtifact, match="judge"):
        build(world, place / "vectors" / "tiny", place / "work", judge=blunt)


def test_a_value_set_apart_is_released_under_its_name(world, tmp_path):
    plan = dataclasses.replace(PLAN, apart=("svt/power",), random_draws=1, n_calibration=3)
    options = {"values": ["svt/power"], "derive_vector": None}
    (built,) = build(world, tmp_path / "tiny", tmp_path / "work", plan, **options)
    card = load_card(tmp_path / "tiny" / "svt-power")
    assert card.value == built.value == card.vector.value == "svt/power"
    projected = card.vector.provenance["of"]
    assert projected["operation"] == "project_out"
    assert [other["value"] for other in projected["others"]] == steered_siblings("svt/power")
    (again,) = build(world, tmp_path / "tiny", tmp_path / "work", plan, **options)
    assert again.provenance == card.provenance


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"coefficients": (-0.1, 0.1)}, "must include 0"),
        ({"n_calibration": 65}, "calibration prompts: expected 2 to 64"),
        ({"n_verification": 1}, "verification prompts"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_at_once(world, tmp_path, changed, says):
    with pytest.raises(InvalidInput, match=says):
        build(world, tmp_path / "a", tmp_path / "b", dataclasses.replace(PLAN, **changed))


def test_a_page_has_a_row_per_card(shipped):
    page = release_page({"tiny": shipped})
    rows = release_rows(shipped)
    assert all(set(row) == set(COLUMNS) for row in rows)
    for row, card in zip(rows, shipped, strict=True):
        assert f"| {card.value} | 1 |" in page
        low, high = card.curve.usable_range_
        slope = card.curve.span_ / (high - low) / 10
        assert float(row["slope"]) == pytest.approx(slope, abs=0.005)
        placebos = card.measured["placebos"]
        assert float(row["random"]) == pytest.approx(placebos["random"]["change"], abs=0.006)
        change, cosine = placebos["shuffled"]["changes"][0], placebos["shuffled"]["cosines"][0]
        assert row["shuffled"] == f"{change:.2f} ({cosine:+.2f})"


def test_names_that_are_not_released(shipped, monkeypatch, tmp_path):
    assert "tiny" in released_models()
    assert released_folder("some-owner/Tiny").name == "tiny"
    with pytest.raises(UnknownName, match="tiny"):
        load_released("tinny")
    with pytest.raises(UnknownName, match="svt/power"):
        load_released("tiny", ["face"])
    with pytest.raises(UnknownName):
        load_released("tiny", ["powr"])
    monkeypatch.setattr("valueflow.dose.released.places", lambda: (tmp_path,))
    with pytest.raises(InvalidInput, match="VALUEFLOW_VECTORS"):
        load_released("tiny")


def test_new_prompts_are_new(shipped):
    used = {p for card in shipped for p in card.measured["verified_on"]}
    found = unused_prompts(shipped, 12, seed=1)
    assert len(set(found)) == 12 and not used & set(found)
    assert found == unused_prompts(shipped, 12, seed=1) != unused_prompts(shipped, 12, seed=2)
    with pytest.raises(InvalidInput, match="61 were not used"):
        unused_prompts(shipped, 64, seed=1)


def test_a_random_placebo_depends_on_the_seed_not_on_the_value(world):
    derive_vector = world[3]
    first, second = (random_placebo(derive_vector(v, None), seed=3) for v in VALUES)
    assert torch.equal(first.directions[1], second.directions[1])
    other = random_placebo(derive_vector(VALUES[0], None), seed=4)
    assert abs(first.cosine(other)) < 0.8
    assert float(first.directions[1].norm()) == pytest.approx(1, abs=1e-5)


def test_specificity_comes_from_the_texts_of_the_release(world, released, tmp_path):
    place, cards = released
    loaded, vidb, judge, _ = world
    told = {v: vidb_evaluator(vidb, v, judge(), seed=0) for v in VALUES}
    study = study_of_release(cards, told, work=place / "work", folder=tmp_path)
    assert study.raw.means.shape == (2, 2)
    assert study.placebos is not None and len(study.placebos.vectors) == 2
    # Both values are read off the same letters here, so columns agree but for the judge's noise.
    assert study.raw.means[:, 0] == pytest.approx(study.raw.means[:, 1], abs=2.5)
    write_study(study, tmp_path / "out", title="tiny", seed=0)
    data = json.loads((tmp_path / "out" / "plain.json").read_text())
    assert data["raw"]["vectors"] == 2 and data["placebos"] == 2
    low, high = data["sides"]["svt/power"]["ends"]
    assert -0.6 <= low < 0 < high <= 0.6
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"plain.json", "plain.png", "plain-standardised.png"}
    assert study.only(["svt/power", "svt/hedonism"]).raw.vectors == ("svt/power", "svt/hedonism")
