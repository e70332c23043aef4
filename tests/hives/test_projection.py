import json
from importlib import import_module

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.functional import normalize

from valueflow.errors import InvalidInput
from valueflow.hives.axes import SCORE_SCALE, ValueAxes
from valueflow.hives.projection import Projection, Remembered, load_module

TEXTS = ["She gave it back.", "", "  ", "Ärger, 世界 🌍", "no\nend", "She gave it back"]
VALUES = ["svt/power", "svt/hedonism"]


def rows(n=6, width=5, seed=0):
    """Neither centred, nor of one scale, nor of one length."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.2, 2.0, width)
    return 0.7 + scales * torch.randn(n, width, generator=generator)


def projection(dropout=0.0, seed=0):
    """With mean and scale that are not those of a fresh one."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = Projection(5, 7, 3, dropout)
    made.standardise_as(normalize(rows(40, seed=seed + 1), dim=1))
    return made.eval()


def project(module, embeddings):
    return module({"sentence_embedding": embeddings})["sentence_embedding"].detach()


def reaching_the_net(module, embeddings):
    seen = []
    handle = module.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    project(module, embeddings)
    handle.remove()
    return seen[0]


def assert_same_state(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys() and expected
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def whole(module=None):
    module = projection() if module is None else module
    axes = ValueAxes(VALUES, 3)
    torch.nn.init.normal_(axes.axes, generator=torch.Generator().manual_seed(5))
    modules = [Remembered(TEXTS, rows()), module, axes]
    return SentenceTransformer(modules=modules, device="cpu").eval()


def test_a_projection_is_one_hidden_layer_on_standardised_unit_rows_at_unit_length():
    module, embeddings = projection(), rows()
    first, last = module.net[1], module.net[3]
    found = project(module, embeddings)
    assert found.shape == (6, 3) and module.get_embedding_dimension() == 3
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
    for row, embedding in zip(found, embeddings, strict=True):
        inputs = (embedding / embedding.norm() - module.mean) / module.scale
        hidden = first.weight @ inputs + first.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        space = last.weight @ hidden + last.bias
        torch.testing.assert_close(row, (space / space.norm()).detach())
    assert torch.pdist(found).min() > 1e-3


def test_what_reaches_the_net_is_standardised_on_the_texts_it_was_standardised_as():
    embeddings, module = rows(40), Projection(5, 7, 3)
    raw = reaching_the_net(module, embeddings)
    torch.testing.assert_close(raw, normalize(embeddings, dim=1))
    module.standardise_as(normalize(embeddings, dim=1))
    seen = reaching_the_net(module, embeddings)
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(dim=0, correction=0), torch.ones(5))
    # Other texts are moved by the mean and scale of these, not by their own.
    other = reaching_the_net(module, rows(40, seed=9) + 3.0)
    assert other.mean(dim=0).abs().max() > 0.3


def test_an_input_that_all_texts_share_stays_finite():
    module, embeddings = Projection(5, 7, 3), normalize(rows(), dim=1)
    embeddings[:, 2] = 0.0
    module.standardise_as(embeddings)
    assert reaching_the_net(module, embeddings)[:, 2].abs().max() == 0
    assert project(module, rows()).isfinite().all()


def test_the_length_of_an_embedding_does_not_count_and_its_direction_does():
    module, embeddings = projection(), rows()
    lengths = torch.tensor([[1e-3], [0.5], [1.0], [7.0], [300.0], [1e4]])
    expected = project(module, embeddings)
    torch.testing.assert_close(project(module, lengths * embeddings), expected)
    assert (project(module, -embeddings) - expected).norm(dim=1).min() > 1e-2


def test_dropout_is_for_training_alone():
    module, embeddings = projection(dropout=0.5), rows()
    still = project(module, embeddings)
    assert torch.equal(project(module, embeddings), still)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module.train()
        assert not torch.equal(project(module, embeddings), project(module, embeddings))
    assert torch.equal(project(module.eval(), embeddings), still)


def test_half_precision_embeddings_are_projected_in_full():
    found = project(projection(), rows().half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, project(projection(), rows()), atol=5e-3, rtol=0)


@pytest.mark.parametrize("load", [Projection.load, lambda f: load_module(Projection, f, "", {})])
def test_a_saved_projection_is_the_same_when_loaded(tmp_path, load):
    module = projection(dropout=0.25)
    module.save(str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    found = load(str(tmp_path)).eval()
    assert found.get_config_dict() == {"in_width": 5, "hidden": 7, "width": 3, "dropout": 0.25}
    assert_same_state(found, module)
    assert torch.equal(project(found, rows()), project(module, rows()))
    assert not torch.equal(project(found, rows()), project(projection(seed=3), rows()))


def test_weights_of_another_shape_are_not_loaded(tmp_path):
    projection().save(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden": 8}))
    with pytest.raises(RuntimeError, match="size mismatch"):
        Projection.load(str(tmp_path))


@pytest.mark.parametrize("order", [range(6), [5, 3, 0, 0, 4, 1, 5], [2], []])
def test_a_remembered_text_has_its_own_row_in_any_order_and_again(order):
    table, memory = rows(), Remembered(TEXTS, rows())
    assert memory.get_embedding_dimension() == 5
    if order:
        features = memory(memory.preprocess([TEXTS[i] for i in order]))
        assert torch.equal(features["sentence_embedding"], table[list(order)])
    model = SentenceTransformer(modules=[memory], device="cpu")
    found = model.encode([TEXTS[i] for i in order], batch_size=2)
    assert found.tolist() == table[list(order)].tolist()


def test_a_text_without_an_embedding_is_refused_by_name():
    memory = Remembered(TEXTS, rows())
    for text in ("she gave it back.", "   ", "Ärger"):
        with pytest.raises(InvalidInput, match=repr(text)):
            memory.preprocess([TEXTS[0], text])
    with pytest.raises(InvalidInput, match="'new'"):
        Remembered().preprocess(["new"])
    with pytest.raises(InvalidInput, match="'new'"):
        whole().encode(["new"])


def test_memory_projection_and_axes_make_one_model():
    model = whole()
    features = model(model.preprocess(TEXTS))
    space = project(projection(), rows())
    torch.testing.assert_close(features["sentence_embedding"].detach(), space)
    expected = SCORE_SCALE * space @ model[2].axes.detach().T
    torch.testing.assert_close(features["value_scores"].detach(), expected)
    trained = {name for name, x in model.named_parameters() if x.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"1", "2"} and len(trained) == 5


def test_a_saved_model_keeps_projection_and_axes_and_no_embeddings(tmp_path):
    model = whole()
    model.save_pretrained(str(tmp_path), create_model_card=False)
    loaded = []
    for entry in json.loads((tmp_path / "modules.json").read_text()):
        package, _, name = entry["type"].rpartition(".")
        kind = getattr(import_module(package), name)
        loaded.append(kind.load(str(tmp_path), subfolder=entry["path"]))
    assert [type(module) for module in loaded] == [Remembered, Projection, ValueAxes]
    assert_same_state(loaded[1], model[1])
    assert_same_state(loaded[2], model[2])
    assert loaded[2].values == VALUES
    weights = sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.safetensors"))
    assert weights == ["1_Projection/model.safetensors", "2_ValueAxes/model.safetensors"]
    with pytest.raises(InvalidInput):
        loaded[0].preprocess(TEXTS[:1])
