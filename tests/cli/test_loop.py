"""derive, calibrate and steer, one after the other on a model folder."""

import itertools
import json

import numpy as np
import pytest

from valueflow.dose.steerer import load_card
from valueflow.errors import InvalidInput
from valueflow.hives.profile import ValueProfile, ValueScore
from valueflow.models import load
from valueflow.steering.derivation import derive
from valueflow.steering.store import load_vector
from valueflow.vidb import load_starter


def letters(text):
    """A made-up intensity of a model's babble: which half of the alphabet it prefers."""
    own = [character for character in text.lower() if character.isalpha()]
    return 12 * sum(c < "n" for c in own) / len(own) - 6 if own else 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("loop")


@pytest.fixture
def vector_dir(run, folder, model_folder):
    out = folder / "vector"
    if not out.exists():
        done = run("derive", model_folder, "power", "--out", out, "--layer", "2", "--json",
                   folder / "derive.json")  # fmt: skip
        assert done.code == 0, done.err
        assert "svt/power: layer 2 of 4" in done.out
    return out


@pytest.fixture
def card_dir(run, folder, model_folder, vector_dir, scripted):
    out, prompts = folder / "card", folder / "prompts.txt"
    if not out.exists():
        scripted(letters)
        prompts.write_text("Who decides?\n\nWhat next?\nWhy so?\n", encoding="utf-8")
        done = run("calibrate", model_folder, vector_dir, "--out", out, "--prompts", prompts,
                   "--json", folder / "calibrate.json")  # fmt: skip
        assert done.code == 0, done.err
        assert "reachable" in done.out
        # 9 coefficients of the vector; 3 random directions at both ends of the usable range.
        assert "sweep 27/27" in done.err
        assert "placebos 18/18" in done.err
        assert "times the mean change of 3 random directions" in done.out
    return out


def test_derive_saves_the_vector_of_the_library(vector_dir, folder, model_folder):
    saved = load_vector(vector_dir)
    oracle = derive(load(str(model_folder)), load_starter(), "power", layer=2, seed=0)
    assert saved.cosine(oracle) == pytest.approx(1, abs=1e-5)
    result = json.loads((folder / "derive.json").read_text())
    assert result["layers"] == [2]
    assert result["value"] == "svt/power"
    assert result["norms"] != "answers"


def test_calibrate_saves_a_card_that_says_what_was_measured(card_dir, folder):
    card, result = load_card(card_dir), json.loads((folder / "calibrate.json").read_text())
    assert card.value == "svt/power"
    assert result["provenance"]["prompts"] == ["Who decides?", "What next?", "Why so?"]
    assert len(result["intensities"]) == len(result["coefficients"]) == 9
    assert result["intensities"] == pytest.approx(
        [float("nan") if m is None else m for m in card.curve.means_]
    )
    assert result["usable_range"] == list(card.curve.usable_range_)
    low, high = card.curve.usable_range_
    inside = [low <= c <= high for c in result["coefficients"]]
    x, y = (np.array(result[key])[inside] for key in ("coefficients", "intensities"))
    own = abs(np.polyfit(x, y, 1)[0] * (high - low))
    assert result["placebo_change"] > 0
    assert result["span_ratio"] == pytest.approx(own / result["placebo_change"])
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_calibrate_draws_three_different_directions(
    run, tmp_path, model_folder, vector_dir, scripted, monkeypatch
):
    scripted(letters)
    drawn = []

    def stop(*_, placebos, **__):
        drawn.extend(placebos["random"])
        raise InvalidInput("seen enough")

    monkeypatch.setattr("valueflow.dose.calibrate.calibrate", stop)
    out = tmp_path / "card"
    assert "seen enough" in run("calibrate", model_folder, vector_dir, "--out", out).err
    vectors = [*drawn, load_vector(vector_dir)]
    assert len(drawn) == 3
    assert all(abs(a.cosine(b)) < 0.8 for a, b in itertools.combinations(vectors, 2))


def test_steer_answers_at_a_reachable_intensity(run, card_dir, folder, model_folder):
    low, high = json.loads((folder / "calibrate.json").read_text())["reachable"]
    target, file = (low + high) / 2, folder / "steer.json"
    options = ["--set", f"power={target}", "--prompt", "Who pays?", "--prompt", "And?"]
    done = run("steer", model_folder, "--card", card_dir, *options, "--json", file)
    assert done.code == 0, done.err
    result = json.loads(file.read_text())
    dose = load_card(card_dir).curve.inverse(target)
    assert result["coefficients"] == {"svt/power": pytest.approx(dose.coefficient)}
    assert [row["prompt"] for row in result["answers"]] == ["Who pays?", "And?"]
    assert all(row["response"] in done.out for row in result["answers"])


def test_steer_expresses_a_profile_and_set_goes_before_it(run, card_dir, folder, model_folder):
    """Of a profile the calibrated values alone; care is in it and has no card."""
    low, high = json.loads((folder / "calibrate.json").read_text())["reachable"]
    spoken = {"svt/power": (low + 2 * high) / 3, "mft/care-harm": 5.0}
    scores = {
        value: ValueScore(value, intensity, 0.5, 4, 0.5, "ok", ())
        for value, intensity in spoken.items()
    }
    person, file = folder / "person.json", folder / "steered.json"
    person.write_text(ValueProfile(scores, 8, 10, 0.1, "made", "planted").to_json())
    base = ["steer", model_folder, "--card", card_dir, "--profile", person, "--prompt", "And?"]
    for more, wanted in (([], spoken["svt/power"]), (["--set", f"power={low}"], low)):
        done = run(*base, *more, "--json", file)
        assert done.code == 0, done.err
        assert json.loads(file.read_text())["targets"] == {"svt/power": pytest.approx(wanted)}


def test_steer_leaves_out_of_a_profile_what_it_is_told(run, card_dir, tmp_path, model_folder):
    scores = {"svt/power": ValueScore("svt/power", 9.9, 0.5, 4, 0.5, "ok", ())}
    person = tmp_path / "person.json"
    person.write_text(ValueProfile(scores, 8, 10, 0.1, "made", "planted").to_json())
    base = ["steer", model_folder, "--card", card_dir, "--prompt", "And?"]
    without = [*base, "--profile", person, "--without", "power"]
    for options, said in (
        ([*base, "--profile", person], "svt/power +9.9 is out of reach"),
        (without, "nothing to express"),
        ([*without, "--set", "power=99"], "svt/power +99.0 is out of reach"),
    ):
        done = run(*options)
        assert (done.code, done.out) == (2, "")
        assert said in done.err.strip().splitlines()[-1]
    assert run(*base, "--set", "power=1", "--without", "power").refused("--profile")


def test_steer_refuses_a_profile_that_is_none_and_no_wish_at_all(run, tmp_path):
    base = ["steer", "no-such-model", "--card", tmp_path, "--prompt", "Who?"]
    assert run(*base).refused("--set", "--profile")
    (tmp_path / "person.json").write_text("{}")
    assert run(*base, "--profile", tmp_path / "person.json").refused("value-profile")
    assert run(*base, "--profile", tmp_path / "nobody.json").refused("nobody.json")


def test_steer_refuses_what_the_curve_does_not_reach(run, card_dir, folder, model_folder):
    file = folder / "unreachable.json"
    options = ["--set", "power=+99", "--prompt", "Who?", "--json", file]
    done = run("steer", model_folder, "--card", card_dir, *options)
    assert done.code == 2
    assert done.out == ""
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("valueflow: svt/power +99.0 is out of reach")
    assert not file.exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("power", ["VALUE=INTENSITY"]),
        ("=4", ["VALUE=INTENSITY"]),
        ("power=", ["not a number"]),
        ("power=much", ["'much'", "not a number"]),
        ("power=nan", ["not a number"]),
        ("power=inf", ["not a number"]),
        ("powr=4", ["svt/power"]),
    ],
)
def test_steer_refuses_a_bad_setting(run, tmp_path, setting, words):
    done = run("steer", "no-such-model", "--card", tmp_path, "--set", setting, "--prompt", "Who?")
    assert done.refused(*words)


def test_steer_refuses_a_value_set_twice_and_nothing_to_answer(run, tmp_path):
    base = ["steer", "no-such-model", "--card", tmp_path, "--set", "power=4"]
    assert run(*base, "--set", "svt/power=2", "--prompt", "Who?").refused("twice")
    assert run(*base).refused("--prompt")
    assert run(*base, "--prompt", " ").refused("--prompt")
    assert run(*base, "--prompts", tmp_path / "none.txt").refused("none.txt")
    assert run(*base, "--prompt", "Who?").refused("no calibration there")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": "powr"}, ["svt/power"]),
        ({"--layer": "last"}, ["'auto'", "last"]),
        ({"--layer": "-1"}, ["-1"]),
        ({"--estimator": "pcaa"}, ["pca"]),
        ({"--out": "full"}, ["new or empty"]),
        ({"--out": "full/file/x"}, ["no folder"]),
    ],
)
def test_derive_refuses_bad_input_before_it_loads(run, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    given = {"value": "power", "--out": "new"} | change
    value = given.pop("value")
    options = [x for pair in given.items() for x in pair]
    assert run("derive", "no-such-model", value, *options).refused(*words)
    assert not (tmp_path / "new").exists()


def test_derive_refuses_an_unknown_model_and_a_layer_it_lacks(run, tmp_path, model_folder):
    out = tmp_path / "vector"
    done = run("derive", "smollm2-135m-instruc", "power", "--out", out)
    assert done.code == 2
    assert "smollm2-135m-instruct" in done.err.splitlines()[-1]
    done = run("derive", model_folder, "power", "--out", out, "--layer", "4")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("valueflow: ")
    assert not out.exists()


def test_calibrate_refuses_bad_input_before_it_loads(run, tmp_path, vector_dir):
    single = tmp_path / "single.txt"
    single.write_text("Only one.\n")
    base = ["calibrate", "no-such-model", vector_dir, "--out", tmp_path / "card"]
    assert run(*base, "--prompts", single).refused("2 or more", "found 1")
    assert run(*base, "--judge", "hive").refused("hives")
    missing = ["calibrate", "no-such-model", tmp_path, "--out", tmp_path / "card"]
    assert run(*missing).refused("no vector there")
    assert not (tmp_path / "card").exists()
