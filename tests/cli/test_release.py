"""release build, list, check; steer and specificity on what was released."""

import json

import pytest

from valueflow.vidb import load_starter


def letters(text):
    own = [character for character in text.lower() if character.isalpha()]
    return 12 * sum(c < "n" for c in own) / len(own) - 6 if own else 0.0


@pytest.fixture
def place(run, tmp_path_factory, model_folder, scripted, monkeypatch):
    """A release of power on the tiny model, made once."""
    scripted(letters)
    folder = tmp_path_factory.getbasetemp() / "released"
    monkeypatch.setenv("VALUEFLOW_VECTORS", str(folder))
    if not folder.exists():
        done = run("release", "build", model_folder, "--value", "power", "--layer", 2,
                   "--prompts", 3, "--checks", 2, "--tokens", 6, "--widest", 0.5,
                   "--out", folder / "tiny",
                   "--work", folder.parent / "work")  # fmt: skip
        assert done.code == 0, done.err
        assert "1 cards in" in done.out
        assert "svt/power (1 of 1): sweep 27/27" in done.err
    return folder


def test_the_page_and_the_list_show_the_card(run, place):
    assert "| svt/power | 2 |" in (place / "README.md").read_text(encoding="utf-8")
    assert run("release", "list").out.startswith("tiny ")
    shown = run("release", "list", "tiny")
    assert shown.code == 0 and "svt/power" in shown.out and "slope" in shown.out
    run("release", "list", "smoll").refused("smoll")


def test_values_set_apart_without_common_layers_are_refused(run, tmp_path, model_folder, scripted):
    scripted(letters)
    done = run("release", "build", model_folder, "--value", "power", "--apart", "power",
               "--out", tmp_path / "out", "--work", tmp_path / "work")  # fmt: skip
    assert done.code == 2 and "layers that all share" in done.err
    assert not (tmp_path / "out").exists()


def test_a_format_that_there_is_not_is_refused(run, tmp_path, model_folder, scripted):
    scripted(letters)
    done = run("release", "build", model_folder, "--value", "power", "--template", "plane",
               "--out", tmp_path / "out", "--work", tmp_path / "work")  # fmt: skip
    assert done.code == 2 and "auto, chat or plain" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["# My project\n", "", "# Released steering vectors of mine\n"])
def test_a_page_of_something_else_is_not_replaced(run, tmp_path, monkeypatch, content):
    def load_model(name):
        raise AssertionError("loaded")

    monkeypatch.setattr("valueflow.cli.release.load_model", load_model)
    page = tmp_path / "README.md"
    page.write_text(content, encoding="utf-8")
    done = run("release", "build", "smollm2-135m-instruct", "--value", "power", "--layer", 2,
               "--out", tmp_path / "my-cards", "--work", tmp_path / "work")  # fmt: skip
    assert done.refused(str(page), "one folder deeper", "vectors/MODEL")
    assert page.read_text(encoding="utf-8") == content
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_page_of_a_release_is_written_again(run, place, model_folder):
    page = place / "README.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(before.splitlines()[0] + "\r\nwhat it said before\n", encoding="utf-8")
    done = run("release", "build", model_folder, "--value", "power", "--layer", 2,
               "--prompts", 3, "--checks", 2, "--tokens", 6, "--widest", 0.5,
               "--out", place / "tiny", "--work", place.parent / "work")  # fmt: skip
    assert done.code == 0, done.err
    assert page.read_text(encoding="utf-8") == before


def test_steer_uses_the_released_card(run, place, model_folder, tmp_path):
    from valueflow.dose.released import load_released

    (card,) = load_released("tiny")
    coefficients = card.provenance["plan"]["coefficients"]
    assert len(coefficients) == 9 and coefficients[::4] == [-0.5, 0.0, 0.5]
    low, high = card.curve.predict(card.curve.usable_range_)
    target = float(low + high) / 2
    out = tmp_path / "steer.json"
    done = run("steer", model_folder, "--set", f"power={target}", "--prompt", "Why?",
               "--json", out)  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(out.read_text())
    expected = card.curve.inverse(target).coefficient
    assert result["coefficients"] == {"svt/power": pytest.approx(expected)}
    done = run("steer", model_folder, "--set", "face=1", "--prompt", "Why?")
    assert done.refused("svt/face", "svt/power")


def test_steer_refuses_a_card_of_another_judge(run, place, model_folder, monkeypatch):
    from valueflow.judges import ScriptedJudge

    frame = load_starter().of("power").frame
    graded = dict(zip(frame["text"], frame["intensity"], strict=True))
    blunt = ScriptedJudge(lambda item: graded.get(item.text, 0.0), sharpness=0.8, seed=5)
    monkeypatch.setattr("valueflow.judges.base.get_judge", lambda name: blunt)
    done = run("steer", model_folder, "--set", "power=0", "--prompt", "Why?", "--judge", "hives")
    assert done.code == 2
    assert "the calibration of svt/power is of another judge" in done.err.splitlines()[-1]


def test_check_measures_the_card_again(run, place, model_folder, tmp_path):
    out = tmp_path / "check.json"
    done = run("release", "check", model_folder, "--value", "power", "--prompts", 3,
               "--targets", 2, "--seed", 7, "--json", out)  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(out.read_text())
    assert len(result["targets"]) == 2 and len(result["prompts"]) == 3
    inside = sum(row["inside"] for row in result["targets"])
    assert f"{inside} of 2 targets" in done.out
    assert result["share_inside"] == inside / 2


def test_specificity_refuses_before_it_loads(run, place, model_folder, tmp_path):
    options = ["specificity", model_folder, "--out", tmp_path / "s"]
    assert run(*options, "--control", "warmth").refused("warmth", "positivity")
    assert run(*options, "--work", tmp_path, "--control", "all").refused("plain")
    assert run(*options, "--theory", "mft").refused("no cards")
