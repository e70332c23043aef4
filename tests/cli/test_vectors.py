"""vectors export and import, on files of a tiny model."""

import json

import gguf
import numpy as np
import pytest
import torch
from interchange_cases import read_by_repeng

from valueflow.dose.prompts import load_prompts
from valueflow.models import load
from valueflow.steering.activations import typical_norms
from valueflow.steering.store import check_fits, load_vector, save_vector
from valueflow.steering.vector import SteeringVector
from valueflow.study.runner import CALIBRATION_PROMPTS


@pytest.fixture
def vector(tmp_path):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, 32, generator=generator)
    directions = {layer: d / d.norm() for layer, d in zip((1, 2), drawn, strict=True)}
    made = SteeringVector("svt/power", directions, {1: 11.0, 2: 17.0}, {"operation": "derive"})
    save_vector(made, tmp_path / "vector")
    return made


@pytest.fixture
def foreign(tmp_path):
    path = tmp_path / "kind.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    rng = np.random.default_rng(0)
    for layer in (1, 3):
        writer.add_tensor(f"direction.{layer}", rng.normal(size=32).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_export_writes_what_is_added(run, vector, tmp_path):
    out = tmp_path / "new" / "power.gguf"
    done = run("vectors", "export", tmp_path / "vector", "--out", out, "--coefficient", "0.2",
               "--hint", "llama", "--json", tmp_path / "e.json")  # fmt: skip
    assert done.code == 0, done.err
    assert "svt/power: layers [1, 2] at coefficient 0.2; saved to" in done.out
    found = read_by_repeng(out)
    for layer, direction in found.items():
        expected = 0.2 * vector.norms[layer] * vector.directions[layer]
        torch.testing.assert_close(torch.tensor(direction), expected)
    assert json.loads((tmp_path / "e.json").read_text())["layers"] == [1, 2]
    again = run("vectors", "export", tmp_path / "vector", "--out", out)
    assert again.refused("power.gguf exists")


def test_export_takes_the_vector_of_a_card(run, vector, tmp_path):
    card = tmp_path / "calibrated"
    save_vector(vector, card / "vector")
    (card / "card").mkdir()
    done = run("vectors", "export", card, "--out", tmp_path / "a.gguf")
    assert done.code == 0, done.err
    run("vectors", "export", tmp_path / "vector", "--out", tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_import_ties_the_vector_to_the_model(run, foreign, model_folder, tmp_path):
    done = run("vectors", "import", foreign, "--model", model_folder, "--value", "benevolence",
               "--out", tmp_path / "kind", "--json", tmp_path / "i.json")  # fmt: skip
    assert done.code == 0, done.err
    made, loaded = load_vector(tmp_path / "kind"), load(str(model_folder))
    assert made.value == "svt/benevolence"
    check_fits(made, loaded)
    prompts = load_prompts("calibration")[:CALIBRATION_PROMPTS]
    assert made.norms == pytest.approx(typical_norms(loaded, prompts, [1, 3]))
    given = read_by_repeng(foreign)
    for layer in (1, 3):
        own = made.provenance["file_coefficients"][str(layer)]
        addition = own * made.norms[layer] * made.directions[layer]
        torch.testing.assert_close(addition.float(), torch.tensor(given[layer]))
        assert f"layer {layer}; the file is coefficient {own:.3g}" in done.out
    assert json.loads((tmp_path / "i.json").read_text())["hint"] == "llama"


def test_import_with_the_norms_of_the_file(run, foreign, model_folder, tmp_path):
    done = run("vectors", "import", foreign, "--model", model_folder, "--value", "benevolence",
               "--out", tmp_path / "kind", "--norms", "file")  # fmt: skip
    assert done.code == 0, done.err
    made, given = load_vector(tmp_path / "kind"), read_by_repeng(foreign)
    assert made.norms == {i: pytest.approx(float(np.linalg.norm(given[i]))) for i in (1, 3)}


def test_a_file_of_ours_says_its_value(run, vector, foreign, model_folder, tmp_path):
    ours, options = tmp_path / "power.gguf", ("--model", model_folder, "--norms", "file")
    run("vectors", "export", tmp_path / "vector", "--out", ours)
    done = run("vectors", "import", ours, *options, "--out", tmp_path / "power")
    assert done.code == 0, done.err
    assert load_vector(tmp_path / "power").value == "svt/power" and "svt/power: layer" in done.out
    other = ("vectors", "import", ours, "--model", "no-such-model", "--out", tmp_path / "x")
    assert run(*other, "--value", "face").refused("svt/power", "svt/face")
    other = ("vectors", "import", foreign, "--model", "no-such-model", "--out", tmp_path / "x")
    assert run(*other).refused("does not say which value it steers; give --value NAME")
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_done_is_said_in_one_line(run, foreign, model_folder, tmp_path):
    options = ("--model", model_folder, "--value", "benevolence", "--out", tmp_path / "x")
    pickled = tmp_path / "v.pt"
    torch.save({1: torch.ones(32)}, pickled)
    assert run("vectors", "import", pickled, *options).refused("a pickle can run code")
    assert run("vectors", "import", tmp_path / "no.gguf", *options).refused("cannot be read")
    assert run("vectors", "import", foreign, *options, "--norms", "typcal").refused(
        "unknown kind of norm 'typcal'", "did you mean typical?"
    )
    options = ("--model", model_folder, "--value", "benevolense", "--out", tmp_path / "x")
    assert run("vectors", "import", foreign, *options).refused("benevolence")
    assert run("vectors", "export", tmp_path, "--out", tmp_path / "y.gguf").refused("no vector")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("verb", [["export"], ["import"], []])
def test_help_shows_an_example(run, verb):
    done = run("vectors", *verb, "--help")
    assert done.code == 0
    assert f"Example: {' '.join(['valueflow', 'vectors', *verb])}" in " ".join(done.out.split())
