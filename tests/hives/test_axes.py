import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import tiny_tokenizer

from valueflow.errors import UnknownName
from valueflow.hives.axes import ValueAxes
from valueflow.models import load_encoder

VALUES = ["svt/power", "svt/benevolence", "duty/justice"]
TEXTS = ["a", "the rain and the garden", "No, and again no: I won't take another one's money."]


def random_axes(width=4, seed=0):
    module = ValueAxes(VALUES, width)
    with torch.no_grad():
        module.axes.normal_(generator=torch.Generator().manual_seed(seed))
    return module


def embedded(rows):
    return {"sentence_embedding": torch.as_tensor(rows)}


def random_rows(n=5, width=4, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_scores_are_ten_times_the_product_with_the_unit_embedding_by_hand():
    module = ValueAxes(VALUES, 2)
    with torch.no_grad():
        module.axes.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0], [0.5, 0.5]]))
    found = module(embedded([[3.0, 4.0], [0.0, -0.1]]))["value_scores"]
    expected = [[6.0, -16.0, 7.0], [0.0, 20.0, -5.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_scores_of_random_embeddings_are_a_slow_loop():
    module, rows = random_axes(), random_rows()
    found = module(embedded(rows))["value_scores"]
    for i, row in enumerate(rows.tolist()):
        length = math.sqrt(sum(x * x for x in row))
        for k, axis in enumerate(module.axes.tolist()):
            expected = 10 * sum(a * x for a, x in zip(axis, row, strict=True)) / length
            assert found[i, k].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_length_of_the_embeddings_does_not_count_and_that_of_an_axis_does():
    module, rows = random_axes(), random_rows()
    expected = module(embedded(rows))["value_scores"]
    lengths = torch.tensor([1e-3, 0.1, 1.0, 50.0, 1e6])[:, None]
    torch.testing.assert_close(module(embedded(rows * lengths))["value_scores"], expected)
    torch.testing.assert_close(module(embedded(-rows))["value_scores"], -expected)
    with torch.no_grad():
        module.axes[1] *= 3
    tripled = module(embedded(rows))["value_scores"]
    torch.testing.assert_close(tripled, expected * torch.tensor([1.0, 3.0, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_are_fp32_whatever_the_embeddings_are(dtype):
    module, rows = random_axes(), random_rows().to(dtype)
    found = module(embedded(rows))["value_scores"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(embedded(rows.float()))["value_scores"])


def test_the_other_features_are_passed_on_as_they_are():
    features = embedded(random_rows()) | {"attention_mask": torch.ones(5, 7)}
    before = {name: tensor.clone() for name, tensor in features.items()}
    found = random_axes()(features, some_option=True)
    assert set(found) == {*before, "value_scores"}
    assert all(torch.equal(found[name], before[name]) for name in before)


def test_axes_and_embeddings_are_trained():
    module, rows = random_axes(), random_rows().requires_grad_()
    module(embedded(rows))["value_scores"][:, 1].sum().backward()
    assert rows.grad.abs().min() > 0
    assert module.axes.grad[1].abs().min() > 0 and module.axes.grad[[0, 2]].abs().max() == 0


def test_an_axis_is_found_by_the_id_of_its_value():
    module = random_axes()
    for row, value in enumerate(VALUES):
        assert torch.equal(module.of(value), module.axes[row])
    with pytest.raises(UnknownName, match="'svt/pwer': did you mean svt/power"):
        module.of("svt/pwer")
    with pytest.raises(UnknownName, match="'x': known: duty/justice, svt/benevolence, svt/power"):
        module.of("x")


@pytest.mark.parametrize("subfolder", ["", "2_ValueAxes"])
def test_what_is_saved_is_loaded(tmp_path, subfolder):
    module = random_axes(width=6)
    place = tmp_path / subfolder
    place.mkdir(exist_ok=True)
    module.save(str(place))
    assert sorted(file.name for file in place.iterdir()) == ["config.json", "model.safetensors"]
    loaded = ValueAxes.load(str(tmp_path), subfolder=subfolder, local_files_only=True)
    assert loaded.values == VALUES and loaded.width == 6
    assert torch.equal(loaded.axes, module.axes) and loaded.axes.requires_grad


def test_weights_that_do_not_fit_are_not_loaded(tmp_path):
    random_axes(width=6).save(str(tmp_path))
    ValueAxes(VALUES[:2], 6).save_config(str(tmp_path))
    with pytest.raises(RuntimeError, match="size mismatch"):
        ValueAxes.load(str(tmp_path), local_files_only=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny BERT with mean pooling."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=128,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load_encoder(folder)


def scores_of(model):
    rows = model.encode(TEXTS, output_value=None)
    return torch.stack([row["value_scores"] for row in rows])


def test_an_encoder_with_axes_is_saved_and_loaded_by_sentence_transformers(encoder, tmp_path):
    plain = encoder.encode(TEXTS, convert_to_tensor=True)
    model = SentenceTransformer(modules=[*encoder, random_axes(width=16)], device="cpu").eval()
    torch.testing.assert_close(model.encode(TEXTS, convert_to_tensor=True), plain)
    expected = scores_of(model)
    by_hand = 10 * plain / plain.norm(dim=1, keepdim=True) @ model[-1].axes.detach().T
    torch.testing.assert_close(expected, by_hand)
    assert torch.pdist(expected).min() > 0.1
    model.save_pretrained(str(tmp_path))
    assert not [*tmp_path.rglob("*.bin"), *tmp_path.rglob("*.pt"), *tmp_path.rglob("*.pkl")]
    # A module of another package needs the consent; the code that runs is the installed one.
    loaded = SentenceTransformer(
        str(tmp_path), device="cpu", trust_remote_code=True, local_files_only=True
    ).eval()
    assert type(loaded[-1]) is ValueAxes and loaded[-1].values == VALUES
    torch.testing.assert_close(scores_of(loaded), expected)
    torch.testing.assert_close(loaded.encode(TEXTS, convert_to_tensor=True), plain)
