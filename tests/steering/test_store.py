import json
from dataclasses import asdict, replace

import accelerate
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from valueflow import artifacts
from valueflow.errors import ArtifactError, StaleArtifact
from valueflow.models import load
from valueflow.steering.store import check_fits, load_vector, save_vector
from valueflow.steering.vector import SteeringVector, random_like


def unit(seed, hidden=32):
    drawn = torch.randn(hidden, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def loaded_with(model_seed=0, *, chat=True, bos=True, n_layers=4):
    model = tiny_model("llama", seed=model_seed, n_layers=n_layers)
    return load((model, tiny_tokenizer(bos=bos, chat=chat)))


@pytest.fixture(scope="module")
def loaded():
    return loaded_with()


@pytest.fixture
def vector(loaded):
    fingerprint = loaded.fingerprint
    provenance = {
        "operation": "derive",
        "model": {
            "name": "tiny",
            "model": fingerprint.model,
            "tokenizer": fingerprint.tokenizer,
            "chat_template": fingerprint.chat_template,
        },
    }
    directions = {2: unit(0), 10: unit(1)}
    return SteeringVector("svt/power", directions, {2: 1 / 3, 10: 123.456}, provenance)


@pytest.mark.parametrize(
    "make",
    [
        lambda v: v,
        lambda v: 0.7 * v - 0.3 * random_like(v, seed=0),
        lambda v: v.project_out([random_like(v, seed=0)]).renormalised(),
        lambda v: v.to(dtype=torch.bfloat16),
    ],
)
def test_round_trip(vector, make, tmp_path):
    made = make(vector)
    save_vector(made, tmp_path / "x")
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "vector.json",
        "vector.safetensors",
    ]
    back = load_vector(tmp_path / "x")
    assert (back.value, back.layers, back.norms) == (made.value, made.layers, made.norms)
    assert back.provenance == made.provenance
    for layer in made.layers:
        assert back.directions[layer].dtype == made.directions[layer].dtype
        assert torch.equal(back.directions[layer], made.directions[layer])


def test_damage_is_seen(vector, tmp_path):
    save_vector(vector, tmp_path / "x")
    document = json.loads((tmp_path / "x" / "vector.json").read_text())
    document["metadata"]["norms"]["2"] = 5.0
    (tmp_path / "x" / "vector.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="does not fit its hash"):
        load_vector(tmp_path / "x")
    save_vector(vector, tmp_path / "y")
    tensors = tmp_path / "y" / "vector.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ArtifactError, match="not the tensors"):
        load_vector(tmp_path / "y")
    with pytest.raises(ArtifactError, match="no vector there"):
        load_vector(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"layer.0": torch.ones(4)}, {"value": "x", "provenance": {}}),
        ({"layer.0": torch.ones(4)}, {"value": "x", "norms": {"1": 1.0}, "provenance": {}}),
        ({"first": torch.ones(4)}, {"value": "x", "norms": {"0": 1.0}, "provenance": {}}),
        ({"layer.0": torch.ones(4)}, {"value": "x", "norms": [1.0], "provenance": {}}),
        ({"layer.0": torch.tensor([torch.nan])}, {"value": "x", "norms": {"0": 1.0}}),
    ],
)
def test_a_whole_artifact_that_holds_no_vector(tensors, metadata, tmp_path):
    artifacts.save(tmp_path / "x", "vector", tensors, metadata)
    with pytest.raises(ArtifactError, match="no steering vector"):
        load_vector(tmp_path / "x")


def single(vector, layer=2):
    return SteeringVector(
        vector.value, {layer: vector.directions[2]}, {layer: 1.0}, vector.provenance
    )


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"model_seed": 1}, "model"),
        ({"bos": False}, "tokenizer"),
        ({"chat": False}, "chat_template"),
    ],
)
def test_a_vector_of_something_else_is_stale(vector, loaded, other, field):
    made = single(vector)
    check_fits(made, loaded)
    check_fits(2 * made - made.renormalised(), loaded)
    with pytest.raises(StaleArtifact, match=rf"'tiny', which differs from .* in {field};"):
        check_fits(made, loaded_with(**other))


def zero_a_weight(loaded):
    with torch.no_grad():
        next(loaded.model.parameters()).zero_()


def drop_the_template(loaded):
    loaded.tokenizer.chat_template = None


def add_a_token(loaded):
    loaded.tokenizer.add_tokens(["<new>"])


@pytest.mark.parametrize(
    ("change", "field"),
    [(zero_a_weight, "model"), (drop_the_template, "chat_template"), (add_a_token, "tokenizer")],
)
def test_what_was_changed_after_loading_is_noticed(vector, change, field):
    changed = loaded_with()
    check_fits(single(vector), changed)
    change(changed)
    with pytest.raises(StaleArtifact, match=f"now differs in {field}: .* load the model again"):
        check_fits(single(vector), changed)


def test_weights_that_are_offloaded_after_loading_are_the_same(vector):
    elsewhere = loaded_with()
    accelerate.cpu_offload(elsewhere.model)
    assert next(elsewhere.model.parameters()).device.type == "meta"
    check_fits(single(vector), elsewhere)


@pytest.mark.parametrize("name", ["tiny-llama", "Some-Owner/Tiny-Llama"])
def test_the_same_model_in_another_dtype_says_so(loaded, name):
    provenance = {"model": {"name": "tiny-llama", **asdict(loaded.fingerprint)}}
    made = SteeringVector("svt/power", {2: unit(0)}, {2: 1.0}, provenance)
    half = load((tiny_model("llama", n_layers=4).bfloat16(), tiny_tokenizer(chat=True, bos=True)))
    half = replace(half, name=name)
    with pytest.raises(StaleArtifact, match=r"in weights or dtype .torch.bfloat16 here.; load"):
        check_fits(made, half)
    other = replace(half, name="another")
    with pytest.raises(StaleArtifact, match="differs from 'another' in model;"):
        check_fits(made, other)


def test_a_packaged_model_in_another_dtype_says_which_is_usual(loaded):
    name = "smollm2-135m-instruct"
    provenance = {"model": {"name": name, **asdict(loaded.fingerprint)}}
    made = SteeringVector("svt/power", {2: unit(0)}, {2: 1.0}, provenance)
    half = load((tiny_model("llama", n_layers=4).bfloat16(), tiny_tokenizer(chat=True, bos=True)))
    with pytest.raises(
        StaleArtifact, match=r"torch.bfloat16 here.*made with, usually float32, or derive"
    ):
        check_fits(made, replace(half, name=name))


def test_many_vectors_can_be_checked_against_one_fingerprint(vector, loaded):
    with pytest.raises(StaleArtifact, match="in model"):
        check_fits(single(vector), loaded, here=loaded_with(1).fingerprint)


def test_size_and_origin_are_checked(vector, loaded):
    with pytest.raises(StaleArtifact, match="in layers;"):
        check_fits(single(vector, layer=4), loaded)
    narrow = SteeringVector("svt/power", {0: torch.ones(8)}, {0: 1.0}, vector.provenance)
    with pytest.raises(StaleArtifact, match="in hidden_size;"):
        check_fits(narrow, loaded)
    with pytest.raises(StaleArtifact, match="does not say"):
        check_fits(SteeringVector("svt/power", {0: torch.ones(32)}, {0: 1.0}, {}), loaded)
