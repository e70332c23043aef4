"""Exported control vectors: the right numbers at the right blocks of other tools."""

import os
import struct
from contextlib import ExitStack

import gguf
import pytest
import torch
from interchange_cases import added_by_llama_cpp, read_by_repeng
from oracles.steering import full_logits
from tiny import tiny_model

from valueflow.backends.hf import steered
from valueflow.errors import ArtifactError, InvalidInput
from valueflow.models import decoder_blocks
from valueflow.steering import export_gguf, intervention
from valueflow.steering.vector import SteeringVector

HIDDEN, LAYERS = 32, 4


def vector(layers=(1, 3), seed=0, provenance=None):
    generator = torch.Generator().manual_seed(seed)
    drawn = {layer: torch.randn(HIDDEN, generator=generator) for layer in layers}
    directions = {layer: d / d.norm() for layer, d in drawn.items()}
    norms = {layer: 10 / 3 + layer for layer in layers}
    return SteeringVector("svt/power", directions, norms, provenance or {})


def test_the_file_holds_what_is_added_at_the_coefficient(tmp_path):
    export_gguf(vector(), tmp_path / "v.gguf", coefficient=-0.2)
    found = read_by_repeng(tmp_path / "v.gguf")
    deltas = intervention([vector()], [[-0.2]]).deltas()
    assert set(found) == {1, 3}
    for layer, direction in found.items():
        torch.testing.assert_close(torch.tensor(direction), deltas[layer][0], atol=0, rtol=1e-6)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gpt_neo"])
def test_llama_cpp_adds_the_same_at_the_same_blocks(arch, tmp_path):
    model = tiny_model(arch, n_layers=LAYERS)
    blocks = decoder_blocks(model)[1]
    ids = torch.tensor([[5, 9, 33, 71], [17, 4, 99, 23]])
    mask = torch.ones_like(ids)
    export_gguf(vector(), tmp_path / "v.gguf", coefficient=0.25)

    def adding(addition):
        def hook(_block, _args, output):
            if isinstance(output, tuple):
                return (output[0] + addition, *output[1:])
            return output + addition

        return hook

    with ExitStack() as hooked:
        added = added_by_llama_cpp(tmp_path / "v.gguf", LAYERS, HIDDEN, scale=2.0)
        for il, addition in added.items():
            hooked.callback(blocks[il].register_forward_hook(adding(addition)).remove)
        theirs = full_logits(model, ids, mask)
    with steered(model, blocks, intervention([vector()], [[0.5]])):
        ours = full_logits(model, ids, mask)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    assert (ours - full_logits(model, ids, mask)).abs().max() > 0.05
    assert not added[2].any()


def test_the_file_says_what_it_is(tmp_path):
    made = vector(provenance={"operation": "derive", "model": {"name": "tiny", "model": "ab"}})
    export_gguf(made, tmp_path / "v.gguf", coefficient=0.2)
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "tiny"
    assert reader.get_field("controlvector.layer_count").contents() == 2
    assert reader.get_field("valueflow.coefficient").contents() == 0.2
    export_gguf(made, tmp_path / "w.gguf", model_hint="llama")
    reader = gguf.GGUFReader(tmp_path / "w.gguf")
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert (tmp_path / "w.gguf").read_bytes()[:8] == b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("make", "coefficient", "message"),
    [
        (lambda: vector((0, 1)), 1.0, "acts at layer 0.* derive it at another"),
        (vector, 0, "coefficient 0.0: expected a number other than 0"),
        (vector, float("nan"), "coefficient nan"),
        (vector, 1e39, "beyond fp32"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(make, coefficient, message, tmp_path):
    with pytest.raises(InvalidInput, match=message):
        export_gguf(make(), tmp_path / "v.gguf", coefficient=coefficient)
    assert not list(tmp_path.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "v.gguf"
    export_gguf(vector(), path)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"v\.gguf exists; .*overwrite=True"):
        export_gguf(vector(seed=1), path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "replace", full)
        export_gguf(vector(seed=1), path, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.gguf"]
    export_gguf(vector(seed=1), path, overwrite=True)
    assert path.read_bytes() != before
