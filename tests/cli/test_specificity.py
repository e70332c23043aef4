"""What specificity refuses, and that it refuses it before it loads or generates anything."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from valueflow.dose.curve import DoseCurve
from valueflow.dose.steerer import Card, save_card
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput
from valueflow.models import load
from valueflow.steering.store import vector_hash
from valueflow.steering.vector import SteeringVector


def write_card(folder, value, model, width=32, **decoding):
    """A card of a straight curve, for the model that is named."""
    vector = SteeringVector(value, {1: torch.eye(width)[0]}, {1: 8.0}, {"model": model})
    given = [-0.4, -0.2, 0.0, 0.2, 0.4]
    means = np.repeat(10 * np.array(given)[:, None], 4, axis=1) + [0.0, 0.1, 0.2, 0.3]
    curve = DoseCurve(damage_limit=9.0, seed=0).fit(given, means, damage=np.zeros((5, 4)))
    provenance = {"model": model, "layers": [1], "vector": vector_hash(vector)}
    save_card(
        Card(vector, curve, Decoding(**decoding), provenance), folder / value.replace("/", "-")
    )


STRANGE = {"name": "stranger", "model": "a", "tokenizer": "b", "chat_template": "c"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--placebos", 1], ["--placebos 1", "0 or at least 2"]),
        (["--work", "kept", "--prompts", 24], ["--prompts", "--work"]),
        (["--work", "kept", "--placebos", 0], ["--placebos", "--work", "leave out it"]),
        (["--work", "kept", "--coefficient", 0.2], ["--coefficient", "--work"]),
        (
            ["--work", "kept", "--coefficient", 0.2, "--prompts", 9, "--placebos", 8],
            ["--coefficient, --prompts, --placebos: ", "leave out them"],
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, tmp_path, options, words):
    done = run("specificity", "no-such-model", "--out", tmp_path / "out", *options)
    assert done.refused(*words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("work", [[], ["--work", "kept"]])
def test_cards_of_different_decoding_are_refused(run, tmp_path, work):
    write_card(tmp_path / "cards", "svt/power", STRANGE)
    write_card(tmp_path / "cards", "svt/face", STRANGE, template="plain")
    done = run("specificity", "no-such-model", "--out", tmp_path / "out",
               "--cards", tmp_path / "cards", *work)  # fmt: skip
    assert done.refused("template", "'auto'", "'plain'", "svt/power", "svt/face")


def test_cards_of_another_model_are_refused_before_scales_are_made(
    run, tmp_path, model_folder, monkeypatch
):
    monkeypatch.setattr("valueflow.judges.base.get_judge", None)
    loaded = load(str(model_folder))
    own = {"name": "tiny", **asdict(loaded.fingerprint)}
    write_card(tmp_path / "cards", "svt/power", own, loaded.hidden_size)
    write_card(tmp_path / "cards", "svt/face", STRANGE, loaded.hidden_size)
    done = run("specificity", model_folder, "--out", tmp_path / "out",
               "--cards", tmp_path / "cards")  # fmt: skip
    assert done.code == 2
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("valueflow: svt/face was made for 'stranger'")
    assert "scales" not in done.err and not (tmp_path / "out").exists()


def test_texts_are_generated_and_nuisances_derived_as_the_cards_were(
    run, tmp_path, model_folder, scripted, monkeypatch
):
    scripted(len)
    loaded, seen = load(str(model_folder)), {}
    own = {"name": "tiny", **asdict(loaded.fingerprint)}
    write_card(tmp_path / "cards", "svt/power", own, loaded.hidden_size, template="plain")

    def derived(_loaded, _vidb, vectors, **given):
        seen["nuisances"] = given
        return {"length": list(vectors.values())}

    def stop(*_, **given):
        seen["study"] = given
        raise InvalidInput("seen enough")

    # First, as it imports the modules whose annotations name what is replaced below.
    monkeypatch.setattr("valueflow.study.specificity_run.specificity_study", stop)
    monkeypatch.setattr("valueflow.evaluate.vidb_evaluator", lambda *_, **__: None)
    monkeypatch.setattr("valueflow.hives.encoder.load_frozen_encoder", lambda: None)
    monkeypatch.setattr("valueflow.study.tone.Tone", lambda _: None)
    monkeypatch.setattr("valueflow.study.nuisance.nuisances", derived)
    monkeypatch.setattr("valueflow.study.nuisance.controlled", lambda vectors, *_, **__: vectors)
    done = run("specificity", model_folder, "--out", tmp_path / "out",
               "--cards", tmp_path / "cards", "--control", "length")  # fmt: skip
    assert done.err.strip().splitlines()[-1] == "valueflow: seen enough"
    assert seen["nuisances"]["template"] == "plain"
    assert seen["study"]["decoding"] == Decoding(template="plain")
    assert len(seen["study"]["prompts"]) == 24 and seen["study"]["n_placebos"] == 8
