import math

import numpy as np
import pytest
import torch
from planted import FILLERS, planted_base
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from valueflow.errors import ArtifactError, InvalidInput
from valueflow.hives.build import (
    KIND,
    axes_of,
    build,
    card_of,
    load_trained,
    put_space,
    remembered_space,
    save_encoder,
)
from valueflow.hives.projection import Projection
from valueflow.models import load_encoder
from valueflow.theories import get_value, steered_values

TEXTS = [" ".join(FILLERS[start : start + 1 + start]) for start in range(8)] + ["A plain sentence."]
OPTIONS = {"rank": 2, "upper_blocks": None, "max_tokens": 24, "seed": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return planted_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """An encoder whose adapter and axes say something, and where it is saved."""
    model = build(base, **OPTIONS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("trained") / "space"
    save_encoder(model, folder, base=base, card={"seed": 0})
    return model.eval(), folder


def embed(model, texts=TEXTS):
    return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def adapted(model):
    """Names of the parameters that are trained, without the axes."""
    return [name for name, p in model.named_parameters() if p.requires_grad and "axes" not in name]


def test_a_new_adapter_changes_no_embedding(base):
    plain = load_encoder(base)
    plain.max_seq_length = 24
    built = build(base, **OPTIONS).eval()
    np.testing.assert_allclose(embed(built), embed(plain), atol=1e-6)
    assert built.max_seq_length == 24


def test_axes_begin_as_supports_minus_opposes_at_unit_length(base):
    model = build(base, **OPTIONS)
    found = axes_of(model)
    assert found.values == [value.id for value in steered_values()]
    for name in ("svt/power", "right/social-group-solidarity"):
        value = get_value(name)
        supports, opposes = model.encode([value.supports, value.opposes])
        expected = (supports - opposes) / math.dist(supports, opposes)
        np.testing.assert_allclose(found.of(name).detach(), expected, atol=1e-5)


def test_only_adapter_and_axes_are_trained(base):
    model = build(base, **OPTIONS)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in model.named_parameters() if "lora_" in n or n.endswith(".axes")}
    # Of each linear layer two factors: 6 in each of 3 blocks.
    assert len(names) == 3 * 6 * 2 + 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_last_blocks_are_adapted_and_no_others(base, n):
    names = adapted(build(base, **OPTIONS | {"upper_blocks": n}))
    blocks = {int(name.partition(".layer.")[2].partition(".")[0]) for name in names}
    assert blocks == set(range(3 - n, 3))
    assert len(names) == n * 12


@pytest.mark.parametrize("n", [0, 4, -1])
def test_blocks_that_there_are_not_are_refused(base, n):
    with pytest.raises(InvalidInput, match=f"upper_blocks must be 1 to 3 .* got {n}"):
        build(base, **OPTIONS | {"upper_blocks": n})


def test_no_dropout_is_left(base):
    dropouts = [m for m in build(base, **OPTIONS).modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts and all(module.p == 0 for module in dropouts)
    assert any(m.p for m in load_encoder(base).modules() if isinstance(m, torch.nn.Dropout))


def test_the_seed_decides_the_adapter_and_no_other_generator_is_moved(base):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    states = [build(base, **OPTIONS | {"seed": seed}).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    same, other = ([torch.equal(states[0][k], s[k]) for k in states[0]] for s in states[1:])
    assert all(same) and not all(other)


def test_a_base_that_is_given_loaded_is_changed_in_place(base):
    model = load_encoder(base)
    assert build(model, **OPTIONS) is model


def test_an_encoder_without_axes_says_so(base):
    with pytest.raises(InvalidInput, match="has no value axes"):
        axes_of(load_encoder(base))


def test_what_is_loaded_reads_as_what_was_saved(base, trained):
    model, folder = trained
    plain = load_encoder(base)
    plain.max_seq_length = 24
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = load_trained(folder)
    assert torch.equal(torch.rand(3), expected)  # loading draws from no generator of the caller's
    assert np.abs(embed(model) - embed(plain)).max() > 0.05
    np.testing.assert_allclose(embed(found), embed(model), atol=2e-3)
    np.testing.assert_allclose(
        axes_of(found).axes.detach(), axes_of(model).axes.detach(), rtol=1e-3, atol=1e-5
    )
    assert axes_of(found).values == axes_of(model).values
    assert found.max_seq_length == 24
    assert not found.training


def test_what_is_loaded_is_the_base_with_other_weights(base, trained):
    found, plain = load_trained(trained[1]), load_encoder(base)
    names = [name for name, _ in found[0].auto_model.named_parameters()]
    assert names == [name for name, _ in plain[0].auto_model.named_parameters()]
    kinds = {type(module) for module in found[0].auto_model.modules()}
    assert kinds == {type(module) for module in plain[0].auto_model.modules()}


def test_a_base_can_be_given(base, trained):
    model = load_encoder(base)
    found = load_trained(trained[1], base=model)
    assert found is model
    np.testing.assert_array_equal(embed(found), embed(load_trained(trained[1])))


def test_another_base_is_refused(base, trained, tmp_path):
    changed = load_encoder(base)
    with torch.no_grad():
        changed[0].auto_model.encoder.layer[1].output.dense.weight[0, 0] += 0.01
    for other in (changed, load_encoder(planted_base(tmp_path, seed=1))):
        with pytest.raises(ArtifactError, match="made on .*base"):
            load_trained(trained[1], base=other)


def test_the_base_is_not_in_the_file(base, trained):
    model, folder = trained
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    stored = load_file(folder / f"{KIND}.safetensors")
    assert sum(t.numel() for t in stored.values()) == n_trained
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert all(name == "axes" or "lora_" in name for name in stored)
    assert sum(f.stat().st_size for f in folder.iterdir()) < 2 * n_trained + 20_000
    assert card_of(folder) == {"seed": 0}


@pytest.fixture(scope="module")
def projected(base, trained, tmp_path_factory):
    """As `trained`, with a hidden layer on top."""
    model, folder = load_trained(trained[1], merge=False), tmp_path_factory.mktemp("projected")
    embeddings = torch.tensor(model.encode(TEXTS, show_progress_bar=False))
    space = remembered_space(TEXTS, embeddings, hidden=20, width=12, dropout=0.5, seed=0).eval()
    expected = space.encode(TEXTS, show_progress_bar=False), axes_of(model).axes.detach().clone()
    model = put_space(model, space)
    save_encoder(model, folder / "space", base=base, card={})
    return expected, model.eval(), folder / "space"


def test_a_space_learned_on_remembered_embeddings_is_put_on_the_encoder(projected):
    (rows, axes), model, _ = projected
    np.testing.assert_allclose(embed(model), rows, atol=1e-5)
    assert rows.shape == (len(TEXTS), 12)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    # The axes are the encoder's own, before the hidden layer; those that trained it are gone.
    assert torch.equal(axes_of(model).axes, axes) and axes.shape == (32, 32)
    assert [type(module).__name__ for module in model][-2:] == ["ValueAxes", "Projection"]


def test_the_hidden_layer_is_saved_and_loaded(projected):
    _, model, folder = projected
    found = load_trained(folder)
    np.testing.assert_allclose(embed(found), embed(model), atol=5e-3)
    assert axes_of(found).axes.shape == (32, 32)
    assert not any(module.training for module in found.modules())


def test_remembered_inputs_are_standardised(projected):
    (_, _), model, _ = projected
    (projection,) = (module for module in model if isinstance(module, Projection))
    rows = embed(SentenceTransformer(modules=[model[0], model[1]], device="cpu"))
    seen = (torch.tensor(rows) - projection.mean) / projection.scale
    np.testing.assert_allclose(seen.mean(dim=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(dim=0, correction=0), 1, atol=1e-3)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "drop"])
def test_damaged_files_are_refused(trained, tmp_path, suffix, damage):
    for file in trained[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / f"{KIND}.{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    if damage == "drop":
        path.unlink()
    with pytest.raises(ArtifactError):
        load_trained(tmp_path)


def test_weights_of_another_encoder_are_refused(trained, tmp_path):
    for file in trained[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / f"{KIND}.safetensors"
    tensors = load_file(path)
    tensors["axes"] = tensors["axes"] + 1
    save_file(tensors, path)
    with pytest.raises(ArtifactError, match="not the tensors it was saved with"):
        load_trained(tmp_path)


def test_a_folder_of_something_else_is_left_alone(base, trained, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds notes\.txt"):
        save_encoder(trained[0], tmp_path, base=base, card={})
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]
