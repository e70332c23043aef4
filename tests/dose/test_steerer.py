"""Steering to a target with cards that were planted: a straight curve on a tiny model."""

import dataclasses
import functools
import math
import re

import jaxtyping
import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from valueflow.dose.curve import DoseCurve
from valueflow.dose.steerer import Card, Steerer, UnreachableTarget, load_card, save_card
from valueflow.dose.sweep import Decoding, sweep
from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact, UnknownName
from valueflow.hives.profile import ValueProfile, ValueScore
from valueflow.models import load
from valueflow.steering.vector import SteeringVector

PROMPTS = ["What now?", "Tell me about the garden.", "Who decides?"]


@functools.cache
def loaded(seed=0):
    return load((tiny_model("llama", seed=seed), tiny_tokenizer(chat=True)))


@functools.cache
def card(value="svt/power", seed=0):
    """Intensity 10 x coefficient between -0.5 and 0.5, exactly."""
    generator = torch.Generator().manual_seed(len(value))
    direction = torch.randn(loaded().hidden_size, generator=generator)
    model = {"name": "tiny", **dataclasses.asdict(loaded(seed).fingerprint)}
    vector = SteeringVector(value, {2: direction / direction.norm()}, {2: 30.0}, {"model": model})
    c = np.linspace(-0.5, 0.5, 11)
    intensities = 10 * c[:, None] + np.array([-0.2, 0.0, 0.2])
    curve = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(c, intensities)
    return Card(vector, curve, Decoding(max_new_tokens=12), {"model": model})


def answers(coefficients, prompts=PROMPTS):
    vectors = {name: card(name).vector for name in ("svt/power", "svt/benevolence")}
    grid = sweep(loaded(), vectors, [coefficients], prompts, decoding=card().decoding)
    return list(grid.texts[0])


def test_a_target_becomes_the_coefficient_of_the_curve():
    steerer = Steerer(loaded(), [card()])
    assert steerer.coefficient("power", 4) == pytest.approx(0.4, abs=1e-6)
    assert steerer.generate(PROMPTS, {"power": 4}) == answers({"svt/power": 0.4})
    assert steerer.generate(PROMPTS, {"power": 4}) != steerer.generate(PROMPTS)


def test_no_target_and_target_at_zero_coefficient_are_the_unsteered_model():
    steerer = Steerer(loaded(), [card()])
    assert steerer.generate(PROMPTS) == answers({}) == steerer.generate(PROMPTS, {"power": 0})


def test_several_values_add_up_and_prompts_may_differ():
    steerer = Steerer(loaded(), [card(), card("svt/benevolence")])
    mixed = [{"power": 4}, {}, {"power": -3, "benevolence": 2}]
    expected = [
        answers({"svt/power": 0.4}, PROMPTS[:1])[0],
        answers({}, PROMPTS[1:2])[0],
        answers({"svt/power": -0.3, "svt/benevolence": 0.2}, PROMPTS[2:])[0],
    ]
    assert steerer.generate(PROMPTS, mixed) == expected


def test_an_unreachable_target_says_what_can_be_reached():
    with pytest.raises(UnreachableTarget, match=r"svt/power \+9.0.*-5.00 to \+5.00"):
        Steerer(loaded(), [card()]).generate(PROMPTS, {"power": 9})


@pytest.mark.parametrize("targets", [{"benevolence": 1}, {"powr": 1}])
def test_values_that_are_not_calibrated_or_known_are_refused(targets):
    with pytest.raises(UnknownName):
        Steerer(loaded(), [card()]).generate(PROMPTS, targets)


def test_targets_must_fit_the_prompts():
    with pytest.raises(InvalidInput, match="3 prompts but 2"):
        Steerer(loaded(), [card()]).generate(PROMPTS, [{}, {}])


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # what users have


@pytest.mark.parametrize("second", ["power", "Power", "pvq/power"])
def test_one_value_under_two_names_is_refused(second, monkeypatch):
    nothing_is_generated(monkeypatch)
    told = f"targets: .* got svt/power as 'svt/power' and as '{second}'; leave one"
    for targets in ({"svt/power": 4, second: 0}, [{}, {"svt/power": 4, second: 4}, {}]):
        with pytest.raises(InvalidInput, match=told):
            Steerer(loaded(), [card()]).generate(PROMPTS, targets)


@pytest.mark.parametrize("target", [None, True, False, "4", [4], np.bool_(True), 1j])
def test_a_target_that_is_no_number_is_refused(target, unchecked, monkeypatch):
    nothing_is_generated(monkeypatch)
    steerer = Steerer(loaded(), [card()])
    told = f"target of svt/power: .* number, got {re.escape(repr(target))}; leave"
    with pytest.raises(InvalidInput, match=told):
        steerer.generate(PROMPTS, {"power": target})
    with pytest.raises(InvalidInput, match=told):
        steerer.coefficient("power", target)


def test_numbers_of_numpy_are_targets(unchecked):
    steerer = Steerer(loaded(), [card()])
    for target in (np.float32(4), np.float64(4), np.int64(4)):
        assert steerer.coefficient("power", target) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("targets", ["pow", [4, None, 2], 4])
def test_targets_that_are_no_mappings_are_refused(targets, unchecked, monkeypatch):
    nothing_is_generated(monkeypatch)
    with pytest.raises(InvalidInput, match="targets: expected a mapping .* got "):
        Steerer(loaded(), [card()]).generate(PROMPTS, targets)


def test_one_string_is_no_list_of_prompts(monkeypatch):
    nothing_is_generated(monkeypatch)
    with pytest.raises(InvalidInput, match=r"list of prompts, got one string: write \['Who leads"):
        Steerer(loaded(), [card()]).generate("Who leads?", {"power": 2})


def test_without_cards_no_value_is_calibrated():
    steerer = Steerer(loaded(), [])
    with pytest.raises(UnknownName, match=r"calibration of svt/power, got no cards; give them"):
        steerer.generate(PROMPTS, {"power": 2})
    assert len(steerer.generate(PROMPTS)) == len(PROMPTS)


def test_one_calibration_per_value():
    with pytest.raises(InvalidInput, match="two calibrations"):
        Steerer(loaded(), [card(), card()])


def test_a_card_of_another_model_is_stale():
    with pytest.raises(StaleArtifact, match="model"):
        Steerer(loaded(1), [card()])


def test_a_saved_card_steers_the_same(tmp_path):
    save_card(card(), tmp_path / "power")
    again = load_card(tmp_path / "power")
    before, after = Steerer(loaded(), [card()]), Steerer(loaded(), [again])
    for target in (-4.2, 0.3, 4.9):
        assert after.coefficient("power", target) == before.coefficient("power", target)
    assert after.generate(PROMPTS, {"power": 3}) == before.generate(PROMPTS, {"power": 3})


def test_a_damaged_card_is_refused(tmp_path):
    save_card(card(), tmp_path / "power")
    path = next((tmp_path / "power" / "card").glob("*.json"))
    path.write_text(path.read_text().replace('"max_new_tokens": 12', '"max_new_tokens": 13'))
    with pytest.raises(ArtifactError):
        load_card(tmp_path / "power")


def profile(**given):
    """Values by short name: an intensity, and from how many texts it is."""
    status = {0: "silent", 1: "single"}
    scores = {
        f"svt/{name}": ValueScore(
            f"svt/{name}",
            intensity if n else math.nan,
            0.5 if n > 1 else math.nan,
            n,
            1 / len(given) if n else 0.0,
            status.get(n, "ok"),
            (),
        )
        for name, (intensity, n) in given.items()
    }
    return ValueProfile(scores, 9, 4, 0.2, "planted", "planted")


def test_a_profile_steers_what_is_calibrated_and_well_known():
    steerer = Steerer(loaded(), [card(), card("svt/benevolence")])
    person = profile(power=(4.0, 6), benevolence=(3.0, 1), security=(2.0, 5), face=(0.0, 0))
    assert steerer.profile_targets(person) == {"svt/power": 4.0}
    assert steerer.generate(PROMPTS, profile=person) == answers({"svt/power": 0.4})


def test_targets_win_over_the_profile_under_any_name_and_per_prompt():
    steerer = Steerer(loaded(), [card(), card("svt/benevolence")])
    person = profile(power=(4.0, 6), benevolence=(2.0, 5))
    mixed = [{"Power": -3}, {}, {"pvq/benevolence": 0.0, "power": 1}]
    expected = [
        answers({"svt/power": -0.3, "svt/benevolence": 0.2}, PROMPTS[:1])[0],
        answers({"svt/power": 0.4, "svt/benevolence": 0.2}, PROMPTS[1:2])[0],
        answers({"svt/power": 0.1}, PROMPTS[2:])[0],
    ]
    assert steerer.generate(PROMPTS, mixed, profile=person) == expected


@pytest.mark.parametrize(
    ("person", "says"),
    [
        (profile(security=(3.0, 4), power=(2.0, 1)), "speak of svt/security, calibrated is svt/p"),
        (profile(power=(2.0, 1), face=(0.0, 0)), "speak of no value, calibrated is svt/power"),
    ],
)
def test_a_profile_of_which_nothing_can_be_steered_is_refused(person, says, monkeypatch):
    nothing_is_generated(monkeypatch)
    for targets in ({}, {"power": 1}):
        with pytest.raises(InvalidInput, match=says):
            Steerer(loaded(), [card()]).generate(PROMPTS, targets, profile=person)


def test_an_unreachable_profile_raises_unless_a_target_takes_its_place(monkeypatch):
    steerer = Steerer(loaded(), [card(), card("svt/benevolence")])
    person = profile(power=(9.0, 6), benevolence=(2.0, 5))
    steered = steerer.generate(PROMPTS, {"power": 4}, profile=person)
    assert steered == answers({"svt/power": 0.4, "svt/benevolence": 0.2})
    nothing_is_generated(monkeypatch)
    with pytest.raises(UnreachableTarget, match=r"svt/power \+9.0.*-5.00 to \+5.00"):
        steerer.generate(PROMPTS, [{"power": 4}, {}, {}], profile=person)


def nothing_is_generated(monkeypatch):
    def sweep(*arguments, **options):
        pytest.fail("something was generated")

    monkeypatch.setattr("valueflow.dose.steerer.sweep", sweep)


def test_a_template_goes_with_the_card_and_another_is_refused(tmp_path):
    plain = dataclasses.replace(card(), decoding=Decoding(max_new_tokens=12, template="plain"))
    save_card(plain, tmp_path / "power")
    steerer = Steerer(loaded(), [load_card(tmp_path / "power")])
    expected = sweep(loaded(), {"v": card().vector}, [{"v": 0.4}], PROMPTS, decoding=plain.decoding)
    assert steerer.generate(PROMPTS, {"power": 4}) == list(expected.texts[0])
    assert steerer.generate(PROMPTS, {"power": 4}) != Steerer(loaded(), [card()]).generate(
        PROMPTS, {"power": 4}
    )
    for template in ("auto", "chat"):
        other = Decoding(max_new_tokens=12, template=template)
        with pytest.raises(StaleArtifact, match="'plain'.*'chat'"):
            steerer.generate(PROMPTS, {"power": 4}, decoding=other)
    longer = Decoding(max_new_tokens=14, template="plain")
    assert len(steerer.generate(PROMPTS, {"power": 4}, decoding=longer)) == len(PROMPTS)


def test_calibrations_of_different_decoding_are_named_with_what_differs():
    plain = dataclasses.replace(card(), decoding=Decoding(max_new_tokens=14, template="plain"))
    told = (
        "max_new_tokens is 14 for svt/power and 12 for svt/benevolence, "
        "template is 'plain' for svt/power and 'auto' for svt/benevolence; use either alone"
    )
    with pytest.raises(InvalidInput, match=told):
        Steerer(loaded(), [plain, card("svt/benevolence")])


def test_auto_and_the_format_it_stands_for_are_the_same(tmp_path):
    steerer = Steerer(loaded(), [card()])
    named = dataclasses.replace(card().decoding, template="chat")
    targets = {"power": 3}
    assert steerer.generate(PROMPTS, targets, decoding=named) == steerer.generate(PROMPTS, targets)


def test_a_card_without_a_template_was_made_with_the_models_own(tmp_path):
    assert Decoding(**{"max_new_tokens": 48, "repetition_penalty": 1.1, "positions": "all"}) == (
        Decoding(template="auto")
    )
