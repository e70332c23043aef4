"""`valueflow compare` on a tiny model, from graded texts to the table, and again from results."""

import json

import pytest

from valueflow.study.compare_store import load_measurement


def letters(text):
    """A made-up intensity of a model's babble: which half of the alphabet it prefers."""
    own = [character for character in text.lower() if character.isalpha()]
    return 12 * sum(c < "n" for c in own) / len(own) - 6 if own else 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


@pytest.fixture
def command(run, scripted, model_folder, folder):
    scripted(letters)

    def compare(*arguments):
        return run("compare", model_folder, "--out", folder / "out", "--n-prompts", 2,
                   "--n-calibration", 2, "--tokens", 3, *arguments)  # fmt: skip

    return compare


def test_a_value_is_compared_kept_and_not_measured_again(command, folder):
    done = command("--value", "power")
    assert done.code == 0, done.err
    for words in ("prompt, levels", "prompt, texts", "both", "placebo levels"):
        assert words in done.out
    assert "svt/power (1 of 1): done" in done.err
    assert "sweep 18/18" in done.err  # 9 coefficients
    # 6 forms at their strong levels, then the best of each kind at the weak ones.
    assert "instructions 24/24" in done.err and "weak levels 8/8" in done.err
    out = folder / "out"
    plan = load_measurement(out / "values" / "svt-power").plans["activation"]
    dosed = any(end.setting.coefficient for end in (plan.low, plan.high))
    assert ("random 1" in done.out) == dosed  # a tiny model may have no range to compare with
    told = json.loads((out / "comparison.json").read_text())
    ways = told["values"]["svt/power"]["ways"]
    assert set(ways) == {"activation", "levels", "texts", "both"}
    assert told["settings"]["decoding"]["max_new_tokens"] == 3
    assert "| power | " in (out / "comparison.md").read_text(encoding="utf-8")
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    again = command("--value", "power")
    assert again.code == 0 and "svt/power: measured before" in again.err
    assert "instructions" not in again.err
    assert json.loads((out / "comparison.json").read_text()) == told
    assert again.out == done.out
    other = command("--value", "power", "--seed", 1)
    assert other.code == 2 and "another setting of 'seed'" in other.err.splitlines()[-1]
    with_card = command("--card", folder / "out" / "cards" / "svt-power")
    assert with_card.code == 2
    assert "another setting of 'card'" in with_card.err.splitlines()[-1]


def test_what_cannot_be_compared_is_refused_before_anything_is_loaded(run, tmp_path):
    base = ["compare", "no-such-model", "--out", tmp_path / "out"]
    assert run(*base).refused("give --value NAME or --card FOLDER")
    assert run(*base, "--value", "powr").refused("svt/power")
    assert run(*base, "--value", "../../etc").refused("unknown value")
    assert run(*base, "--value", "$name<|im_end|>").refused("unknown value")
    assert run(*base, "--card", tmp_path).refused("no calibration there")
    assert run(*base, "--value", "power", "--n-prompts", 1).refused("expected 2 to 64, got 1")
    assert run(*base, "--value", "power", "--judge", "hive").refused("hives")
    assert not (tmp_path / "out").exists()
