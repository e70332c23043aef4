"""The heat map and the search from the command line, on a model folder."""

import json

import pytest
import torch

from valueflow.cli.calibrate import _decoding
from valueflow.cli.sweep import _spread
from valueflow.dose.prompts import load_prompts
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput
from valueflow.steering.store import load_vector
from valueflow.steering.vector import SteeringVector


def letters(text):
    own = [character for character in text.lower() if character.isalpha()]
    return 12 * sum(c < "n" for c in own) / len(own) - 6 if own else 0.0


def test_sweep_writes_the_heat_map_and_its_numbers(run, tmp_path, model_folder, scripted):
    scripted(letters)
    out = tmp_path / "layers"
    options = ["--layers", "1,2", "--prompts", 2, "--coefficients=-0.5,0.5", "--placebos", 1]
    options += ["--template", "plain", "--out", out]
    done = run("sweep", model_folder, "--value", "power", *options)
    assert done.code == 0, done.err
    assert "sweep 14/14" in done.err  # 2 layers and a random direction at 2 doses, and unsteered
    assert "changes most within the limits" in done.out
    results = json.loads((out / "layers.json").read_text())
    assert [row["layer"] for row in results["layers"]] == [1, 2]
    assert [row["layer"] for row in results["random"]] == [2]
    assert results["coefficients"] == [-0.5, 0.0, 0.5]
    assert results["provenance"]["prompts"] == load_prompts("search")[:2]
    assert results["decoding"]["template"] == "plain"
    assert results["provenance"]["vector"]["template"] == "plain"
    assert (out / "layers.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_search_names_the_winner_and_saves_its_vector(
    run, tmp_path, model_folder, scripted, monkeypatch
):
    scripted(letters)
    asked = load_prompts("search")[:3]
    monkeypatch.setattr("valueflow.dose.prompts.load_prompts", lambda suite: asked)
    out, file = tmp_path / "search", tmp_path / "result.json"
    done = run("sweep", model_folder, "--value", "power", "--layers", "1,2", "--search",
               "--out", out, "--json", file)  # fmt: skip
    assert done.code == 0, done.err
    assert "6 candidates, 111 answers in 1 rungs" in done.err
    results = json.loads((out / "search.json").read_text())
    assert results == json.loads(file.read_text())
    winner = results["winner"]
    assert f"{winner['candidate']}" in done.out and "chosen" in done.out
    vector = load_vector(out / "vector")
    assert list(vector.layers) == winner["layers"]
    assert vector.provenance["search"]["winner"] == winner


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layers", "x"], ["--layers x", "middle, all, or numbers"]),
        (["--coefficients=a"], ["--coefficients a"]),
        (["--coefficients=0.1,0.2"], ["both sides of 0"]),
        (["--template", "Chat"], ["--template Chat", "auto, chat or plain"]),
        (["--judge", "hivez"], ["hivez"]),
        (["--value", "powr"], ["powr"]),
        (["--search", "--coefficients=-0.1,0.1"], ["--coefficients", "leave out it or --search"]),
        (["--search", "--placebos", 3], ["--placebos", "--search"]),
        (
            ["--search", "--placebos", 0, "--prompts", 8],
            ["--prompts, --placebos", "leave out them"],
        ),
    ],
)
def test_what_is_no_sweep_is_refused(run, tmp_path, model_folder, scripted, options, words):
    scripted(letters)
    value = [] if "--value" in options else ["--value", "power"]
    done = run("sweep", model_folder, *value, "--out", tmp_path / "out", *options)
    assert done.refused(*words)
    assert not (tmp_path / "out").exists()


def test_a_layer_that_the_model_lacks_is_refused(run, tmp_path, model_folder, scripted):
    scripted(letters)
    options = ["--value", "power", "--layers", "1,9", "--out", tmp_path / "out"]
    done = run("sweep", model_folder, *options)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("valueflow: layers [1, 9]: expected one or more")
    assert not (tmp_path / "out").exists()


def searched(**decoding):
    provenance = {"search": {"decoding": decoding}} if decoding else {}
    return SteeringVector("svt/power", {1: torch.ones(4)}, {1: 1.0}, provenance)


def test_a_calibration_has_the_positions_that_the_search_chose():
    chosen = searched(max_new_tokens=9, repetition_penalty=1.2, positions="last", template="plain")
    assert _decoding(chosen, None, None) == Decoding(9, 1.2, "last", "plain")
    assert _decoding(chosen, "all", "chat") == Decoding(9, 1.2, "all", "chat")
    assert _decoding(searched(), None, None) == Decoding()
    assert _decoding(searched(), "generated", None) == Decoding(positions="generated")
    for given in (("some", None), (None, "Chat")):
        with pytest.raises(InvalidInput, match=f"{next(filter(None, given))}: expected all|auto"):
            _decoding(searched(), *given)


def test_placebos_are_spread_over_the_layers():
    assert _spread(list(range(8, 23)), 3) == [10, 15, 20]
    assert _spread([4, 8], 1) == [8] and _spread([4], 3) == [4] and _spread([4], 0) == []
