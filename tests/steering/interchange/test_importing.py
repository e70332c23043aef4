"""Imported control vectors: round trips, other tools' files, and files that may not come in."""

import json
import pickle
from dataclasses import asdict

import gguf
import numpy as np
import pytest
import torch
from interchange_cases import ARCHITECTURE, STRING, container
from safetensors.torch import save_file
from tiny import tiny_model, tiny_tokenizer

from valueflow.backends.hf import HFBackend
from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact, UnknownName
from valueflow.models import decoder_blocks, load
from valueflow.steering import export_gguf, import_vector, intervention
from valueflow.steering.interchange import read_control_vector, steering_vector
from valueflow.steering.store import check_fits, load_vector, save_vector
from valueflow.steering.vector import SteeringVector

HIDDEN = 32


@pytest.fixture(scope="module")
def loaded():
    return load((tiny_model("llama"), tiny_tokenizer(chat=True)))


def vector(layers=(1, 3), seed=0, provenance=None):
    generator = torch.Generator().manual_seed(seed)
    drawn = {layer: torch.randn(HIDDEN, generator=generator) for layer in layers}
    directions = {layer: d / d.norm() for layer, d in drawn.items()}
    return SteeringVector(
        "svt/power", directions, {layer: 10 / 3 + layer for layer in layers}, provenance or {}
    )


def foreign(path, tensors, arch="controlvector"):
    """As repeng writes it."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def drawn(n=2, hidden=HIDDEN, seed=3):
    return np.random.default_rng(seed).normal(size=(n, hidden)).astype(np.float32)


# Round trips


@pytest.mark.parametrize("coefficient", [1.0, 0.2, -7.7])
@pytest.mark.parametrize("make", [vector, lambda: vector() - 0.3 * vector(seed=1)])
def test_a_vector_of_ours_comes_back(make, coefficient, tmp_path):
    given = make()
    export_gguf(given, tmp_path / "v.gguf", coefficient=coefficient)
    back = import_vector(tmp_path / "v.gguf")
    assert (back.value, back.layers, back.norms) == (given.value, given.layers, given.norms)
    assert back.provenance["of"] == given.provenance
    adding = back.provenance["file_coefficients"]
    assert adding == {str(layer): pytest.approx(coefficient) for layer in given.layers}
    for layer in given.layers:
        torch.testing.assert_close(
            back.directions[layer].float(), given.directions[layer], atol=0, rtol=2e-7
        )
    # What counts, the addition, is the same to the last bit of fp32.
    export_gguf(back, tmp_path / "w.gguf", coefficient=coefficient)
    once, twice = (read_control_vector(tmp_path / name) for name in ("v.gguf", "w.gguf"))
    assert all(torch.equal(once.additions[i], twice.additions[i]) for i in given.layers)


def test_a_file_of_another_tool_comes_through_bit_for_bit(tmp_path):
    arrays = drawn() * np.array([[1e-6], [4e5]], dtype=np.float32)
    foreign(tmp_path / "v.gguf", {"direction.2": arrays[0], "direction.1": arrays[1]})
    made = import_vector(tmp_path / "v.gguf", "svt/power")
    export_gguf(made, tmp_path / "w.gguf")
    found = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "w.gguf").tensors}
    assert found["direction.2"].tobytes() == arrays[0].tobytes()
    assert found["direction.1"].tobytes() == arrays[1].tobytes()


def test_without_norms_a_coefficient_is_the_scale_of_the_file(tmp_path, loaded):
    arrays = drawn()
    foreign(tmp_path / "v.gguf", {"direction.1": arrays[0], "direction.2": arrays[1]})
    made = import_vector(tmp_path / "v.gguf", "svt/power", loaded=loaded)
    for i, layer in enumerate((1, 2)):
        assert float(made.directions[layer].norm()) == pytest.approx(1)
        assert made.norms[layer] == pytest.approx(np.linalg.norm(arrays[i]))
    backend = HFBackend(loaded.model, decoder_blocks(loaded.model)[1])
    ids = torch.tensor([[5, 9, 33]])
    before = backend.capture(ids, torch.ones_like(ids), [1])[1]
    delta = intervention([made], [[0.5]]).deltas()[1]
    torch.testing.assert_close(delta[0], torch.tensor(0.5 * arrays[0]), atol=1e-6, rtol=1e-6)
    assert before.shape[-1] == len(delta[0])


def test_with_typical_norms_the_coefficient_of_the_file_is_recorded(tmp_path):
    arrays = drawn()
    foreign(tmp_path / "v.gguf", {"direction.1": arrays[0], "direction.2": arrays[1]})
    made = import_vector(tmp_path / "v.gguf", "svt/power", norms={1: 50.0, 2: 80.0, 9: 1.0})
    assert made.norms == {1: 50.0, 2: 80.0}
    for i, layer in enumerate((1, 2)):
        assert float(made.directions[layer].norm()) == pytest.approx(1)
        own = made.provenance["file_coefficients"][str(layer)]
        addition = own * made.norms[layer] * made.directions[layer]
        torch.testing.assert_close(addition.float(), torch.tensor(arrays[i]))
    assert made.provenance["operation"] == "imported"
    assert made.provenance["hint"] == "llama"
    with pytest.raises(InvalidInput, match=r"acts at layers \[2\], which have no norm"):
        import_vector(tmp_path / "v.gguf", "svt/power", norms={1: 50.0})


def test_an_imported_vector_is_saved_as_any_other(tmp_path, loaded):
    foreign(tmp_path / "v.gguf", {"direction.2": drawn()[0]})
    made = import_vector(tmp_path / "v.gguf", "svt/power", loaded=loaded)
    save_vector(made, tmp_path / "x")
    back = load_vector(tmp_path / "x")
    assert torch.equal(back.directions[2], made.directions[2])
    check_fits(back, loaded)
    untied = import_vector(tmp_path / "v.gguf", "svt/power")
    with pytest.raises(StaleArtifact, match="does not say which model"):
        check_fits(untied, loaded)


# Which value it is


def test_a_file_of_ours_keeps_its_value(tmp_path):
    export_gguf(vector(), tmp_path / "power.gguf")
    for given in (None, "power", "svt/power", "pvq/power"):
        assert import_vector(tmp_path / "power.gguf", given).value == "svt/power"
    with pytest.raises(InvalidInput, match=r"power\.gguf says .* svt/power, but .* is svt/face"):
        import_vector(tmp_path / "power.gguf", "face")


def test_a_file_of_a_combination_keeps_its_name(tmp_path):
    mixed = vector() - 0.3 * vector(seed=1)
    export_gguf(mixed, tmp_path / "v.gguf")
    for given in (None, mixed.value):
        assert import_vector(tmp_path / "v.gguf", given).value == mixed.value
    with pytest.raises(InvalidInput, match="the value given is svt/power"):
        import_vector(tmp_path / "v.gguf", "power")


def test_a_foreign_file_is_of_the_value_given(tmp_path):
    foreign(tmp_path / "v.gguf", {"direction.2": drawn()[0]})
    assert import_vector(tmp_path / "v.gguf", "benevolence").value == "svt/benevolence"
    with pytest.raises(UnknownName, match="did you mean .*benevolence"):
        import_vector(tmp_path / "v.gguf", "benevolance")
    with pytest.raises(UnknownName, match="unknown value ''"):
        import_vector(tmp_path / "v.gguf", "")
    with pytest.raises(InvalidInput, match="does not say which value it steers; give one"):
        import_vector(tmp_path / "v.gguf")


# Safetensors


@pytest.mark.parametrize(
    "name", ["{}", "layer.{}", "layers.{}", "layer_{}", "direction.{}", "layer_activations.{}"]
)
@pytest.mark.parametrize(
    ("dtype", "shape"), [(torch.float32, (HIDDEN,)), (torch.bfloat16, (1, HIDDEN))]
)
def test_layers_of_a_safetensors_file(name, dtype, shape, tmp_path):
    given = {layer: torch.tensor(drawn()[i], dtype=dtype) for i, layer in enumerate((0, 12))}
    path = tmp_path / "v.safetensors"
    save_file({name.format(layer): t.reshape(shape) for layer, t in given.items()}, path)
    found = read_control_vector(path)
    assert found.layers == (0, 12)
    for layer, expected in given.items():
        assert torch.equal(found.additions[layer], expected.double())
    made = steering_vector(found, "svt/power")
    assert made.norms[12] == pytest.approx(float(given[12].double().norm()))


def test_layers_that_add_nothing_are_left_out(tmp_path):
    arrays = {"direction.1": np.zeros(HIDDEN, np.float32), "direction.2": drawn()[0]}
    foreign(tmp_path / "v.gguf", arrays)
    assert read_control_vector(tmp_path / "v.gguf").layers == (2,)


# What may not come in


NAN = drawn()[0].copy()
NAN[3] = np.nan


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "named after layers .*the file holds none"),
        ({"direction.x": drawn()[0]}, "found 'direction.x'"),
        ({"direction.-1": drawn()[0]}, "found 'direction.-1'"),
        ({"direction.01": drawn()[0]}, "found 'direction.01'"),
        ({"direction.9999999": drawn()[0]}, "found 'direction.9999999'"),
        ({"blk.0.attn_q.weight": drawn()[0]}, "found 'blk.0.attn_q.weight'"),
        ({"direction.1": drawn()[0], "1": drawn()[1]}, "layer 1 is there twice"),
        ({"direction.1": NAN}, "'direction.1' holds numbers that are not finite"),
        ({"direction.1": np.zeros(4, np.float32)}, "it adds nothing"),
        (
            {"direction.1": drawn()[0], "direction.2": drawn(hidden=8)[0]},
            r"sizes \[8, 32\], expected one hidden size",
        ),
    ],
)
def test_tensors_that_are_no_vector_are_refused(tensors, message, tmp_path):
    foreign(tmp_path / "v.gguf", tensors)
    with pytest.raises(ArtifactError, match=message):
        read_control_vector(tmp_path / "v.gguf")
    save_file({k: torch.tensor(v) for k, v in tensors.items()}, tmp_path / "v.safetensors")
    with pytest.raises(ArtifactError, match=message):
        read_control_vector(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    "tensor", [torch.ones(4, dtype=torch.int64), torch.ones(2, 4), torch.ones(0), torch.tensor(1.0)]
)
def test_safetensors_of_other_shapes_are_refused(tensor, tmp_path):
    save_file({"layer.1": tensor}, tmp_path / "v.safetensors")
    with pytest.raises(ArtifactError, match=r"'layer\.1' is torch|adds nothing"):
        read_control_vector(tmp_path / "v.safetensors")


class Trap:
    def __reduce__(self):
        return (eval, ("1 / 0",))


@pytest.mark.parametrize("name", ["v.pt", "v.pkl", "v.bin", "v.gguf", "v.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_never_opened(name, zipped, tmp_path):
    path = tmp_path / name
    if zipped:
        torch.save({1: torch.ones(4)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(
        ArtifactError, match=r"a pickle can run code.*safetensors\.torch\.save_file"
    ):
        read_control_vector(path)


@pytest.mark.parametrize("length", [640, 896, 1152])
def test_a_header_whose_length_looks_like_a_pickle_is_none(length, tmp_path):
    path, given = tmp_path / "v.bin", {"layer.1": torch.ones(4)}
    save_file(given, path, metadata={"x": ""})
    missing = length - int.from_bytes(path.read_bytes()[:8], "little")
    save_file(given, path, metadata={"x": "-" * missing})
    assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04")
    assert read_control_vector(path).layers == (1,)


def test_files_that_are_something_else(tmp_path):
    for name, content in (("a", b""), ("b", b"{}"), ("c.safetensors", b"\xff" * 80)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match="neither a GGUF nor a safetensors"):
            read_control_vector(tmp_path / name)
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        read_control_vector(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="is a folder"):
        read_control_vector(tmp_path)
    foreign(tmp_path / "model.gguf", {"direction.1": drawn()[0]}, arch="llama")
    with pytest.raises(ArtifactError, match="is 'llama', expected 'controlvector'"):
        read_control_vector(tmp_path / "model.gguf")


ABOUT = {"value": "x", "norms": {"1": 2.0}, "provenance": {}}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        (json.dumps(ABOUT | {"norms": {"1": -2.0}}), "no number to scale by"),
        (json.dumps(ABOUT | {"norms": {"1": 1e999}}), "no number to scale by"),
        (json.dumps(ABOUT | {"norms": {"2": 2.0}}), r"layers \[1\], norms for \[2\]"),
        (json.dumps(ABOUT | {"norms": {"one": 2.0}}), "damaged"),
        (json.dumps({"value": "x"}), "damaged"),
    ],
)
def test_a_file_that_passes_for_ours_is_checked(about, message, tmp_path):
    coefficient = ("valueflow.coefficient", 12, np.float64(0.5).tobytes())
    fields = (ARCHITECTURE, coefficient, ("valueflow.vector", STRING, about))
    (tmp_path / "v.gguf").write_bytes(container(fields=fields))
    with pytest.raises(ArtifactError, match=message):
        read_control_vector(tmp_path / "v.gguf")


def test_the_model_is_checked(tmp_path, loaded):
    foreign(tmp_path / "wide.gguf", {"direction.1": drawn(hidden=64)[0]})
    with pytest.raises(StaleArtifact, match=r"hidden size 64, .* has 32"):
        import_vector(tmp_path / "wide.gguf", "svt/power", loaded=loaded)
    foreign(tmp_path / "deep.gguf", {"direction.4": drawn()[0]})
    with pytest.raises(StaleArtifact, match=r"acts at layer 4, .* has 0\.\.3"):
        import_vector(tmp_path / "deep.gguf", "svt/power", loaded=loaded)
    made_for = {"name": "tiny", **asdict(loaded.fingerprint)}
    export_gguf(vector(provenance={"model": made_for}), tmp_path / "ours.gguf")
    check_fits(import_vector(tmp_path / "ours.gguf", loaded=loaded), loaded)
    other = load((tiny_model("llama", seed=1), tiny_tokenizer(chat=True)))
    with pytest.raises(StaleArtifact, match="differs from"):
        import_vector(tmp_path / "ours.gguf", loaded=other)
    with pytest.raises(InvalidInput, match="does not say which value"):
        import_vector(tmp_path / "deep.gguf")
