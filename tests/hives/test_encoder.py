import functools

import numpy as np
import pytest
import torch
from planted import FILLERS, WIDTH, planted_base, planted_encoder, planted_space

from valueflow.errors import ArtifactError, InvalidInput
from valueflow.hives.axes import SCORE_SCALE
from valueflow.hives.build import axes_of, build, put_space, remembered_space, save_encoder
from valueflow.hives.encoder import (
    MAX_TOKENS,
    Encoder,
    ValueEncoder,
    load_frozen_encoder,
    load_value_encoder,
    prototype,
)
from valueflow.hives.store import EmbeddingStore
from valueflow.models import is_fetched, load_encoder
from valueflow.theories import get_theory, get_value

POWER = get_value("power")
TEXTS = [
    "No.",
    "She gave the money back although nobody would have known.",
    "A much longer answer, which talks of the garden, the rain and the neighbours. " * 4,
    "Macht ist nicht alles, aber ohne Macht ist alles nichts.",
]
weights = pytest.mark.weights
needs_encoder = pytest.mark.skipif(
    not is_fetched("all-mpnet-base-v2"), reason="all-mpnet-base-v2 is not fetched"
)


@functools.cache
def shared():
    encoder = load_frozen_encoder()
    encoder.store = None  # what an earlier run has stored would hide what the code does now
    return encoder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return planted_base(tmp_path_factory.mktemp("base"))


def test_each_text_is_read_once_and_the_longest_first():
    encoder = planted_encoder()
    rows = encoder.embed(["aaa", "a", "aa", "a"])
    assert encoder.encoder.calls == [["aaa", "aa", "a"]]
    assert np.array_equal(rows[1], rows[3]) and not np.array_equal(rows[0], rows[1])
    again = encoder.embed(["a", "aaaa", "aaa"])
    assert encoder.encoder.calls[1:] == [["aaaa"]]
    assert np.array_equal(again[[0, 2]], rows[[1, 0]])


def test_what_is_stored_is_not_read_again(tmp_path):
    first, second = planted_encoder(), planted_encoder()
    first.store, second.store = (EmbeddingStore(tmp_path / "rows.safetensors") for _ in range(2))
    rows = first.embed(["aa", "b"])
    np.testing.assert_array_equal(second.embed(["b", "new", "aa"])[[2, 0]], rows)
    assert second.encoder.calls == [["new"]]


def test_no_texts_no_embeddings():
    assert planted_encoder().embed([]).shape == (0, WIDTH)
    assert planted_space().scores([]).shape == (0, 2)


def test_scores_are_products_with_the_axes():
    space = planted_space()
    texts = ["5 | rain", "-2 | rain", "of no stance"]
    axes = space.encoder.axes.axes.detach().numpy()
    assert SCORE_SCALE == 10 and space.values == ("svt/power", "svt/hedonism")
    np.testing.assert_allclose(space.scores(texts), 10 * space.embed(texts) @ axes.T, atol=1e-5)
    assert space.scores(texts)[0, 0] > space.scores(texts)[1, 0]
    np.testing.assert_array_equal(space.score(POWER, texts), space.scores(texts)[:, 0])


def test_scores_are_of_the_encoder_and_embeddings_of_the_hidden_layer_behind_it(base):
    model = build(base, rank=2, upper_blocks=1, max_tokens=16, seed=0)
    texts = [" ".join(FILLERS[n : n + 3]) for n in range(6)]
    plain = ValueEncoder(model, name="plain")
    rows, scores, fingerprint = plain.embed(texts), plain.scores(texts), plain.fingerprint()
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(len(texts), rows.shape[1], generator=generator)
    space = remembered_space(texts, table, hidden=8, width=12, dropout=0.0, seed=0)
    layered = ValueEncoder(put_space(model, space), name="layered")
    assert layered.width == 12 and layered.embed(texts).shape == (6, 12)
    np.testing.assert_allclose(np.linalg.norm(layered.embed(texts), axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(layered.scores(texts), scores, atol=1e-5)
    other = layered.fingerprint()
    with torch.no_grad():
        next(space[1].parameters()).add_(0.01)
    assert len({fingerprint, other, layered.fingerprint()}) == 3


def test_a_value_without_an_axis_is_scored_by_its_prototype():
    space, care = planted_space(), get_value("care-harm")
    supports, opposes = space.embed([care.supports, care.opposes])
    texts = ["5 | rain", "-2 | rain"]
    expected = space.embed(texts) @ (supports - opposes)
    np.testing.assert_allclose(space.score(care, texts), expected, atol=1e-6)
    np.testing.assert_allclose(planted_encoder().score(care, texts), expected, atol=1e-6)
    np.testing.assert_array_equal(prototype(space, POWER), np.subtract(*space.embed(
        [POWER.supports, POWER.opposes])))  # fmt: skip


def test_a_value_that_says_not_what_supports_it_has_no_score():
    group = next(v for v in get_theory("svt").values if not v.steered)
    with pytest.raises(InvalidInput, match=f"{group.id} has no 'supports' and 'opposes'"):
        planted_space().score(group, ["5 | rain"])


def test_the_fingerprint_is_of_weights_tokenizer_and_cut_and_not_of_the_name(base):
    model = load_encoder(base)
    before = Encoder(model, name="one").fingerprint()
    assert Encoder(load_encoder(base), name="another").fingerprint() == before
    cut = model.max_seq_length
    model.max_seq_length = cut - 1
    shorter = Encoder(model, name="one").fingerprint()
    model.max_seq_length = cut
    with torch.no_grad():
        next(model[0].auto_model.parameters()).add_(0.01)
    changed = Encoder(model, name="one").fingerprint()
    assert len({before, shorter, changed}) == 3


def test_the_axes_and_their_values_are_in_the_fingerprint_of_a_space(base):
    model = build(base, rank=2, upper_blocks=1, max_tokens=16, seed=0)
    space = ValueEncoder(model, name="one")
    before = space.fingerprint()
    assert before != Encoder(model, name="one").fingerprint()
    module = axes_of(model)
    module.values = module.values[::-1]
    renamed = space.fingerprint()
    module.values = module.values[::-1]
    assert ValueEncoder(model, name="another").fingerprint() == before
    with torch.no_grad():
        module.axes[-1, -1] += 0.01
    assert len({before, renamed, space.fingerprint()}) == 3


def test_a_space_is_found_by_its_folder(base, tmp_path):
    model = build(base, rank=2, upper_blocks=1, max_tokens=16, seed=0)
    save_encoder(model, tmp_path / "space", base=base, card={})
    found = load_value_encoder(tmp_path / "space")
    assert found.name == str(tmp_path / "space")
    assert found.values == ValueEncoder(model, name="").values
    with pytest.raises(ArtifactError):
        load_value_encoder(tmp_path / "nothing")


def test_empty_and_very_long_texts_have_embeddings(base):
    encoder = Encoder(load_encoder(base), name="tiny")
    encoder.encoder.max_seq_length = 16
    word = FILLERS[0] + " "
    rows = encoder.embed(["", " \n", ".", word * 400, word * 500, word * 3])
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[[0, 1]], rows[[2, 2]], atol=1e-5)
    np.testing.assert_allclose(rows[3], rows[4], atol=1e-5)
    assert np.abs(rows[3] - rows[5]).max() > 1e-3


def test_embeddings_do_not_depend_on_the_batch(base):
    model = load_encoder(base)
    texts = [" ".join(FILLERS[:n]) for n in (1, 3, 9, 14)]
    alone = [Encoder(model, name="x").embed([text])[0] for text in texts]
    for size in (1, 3, 32):
        together = Encoder(model, name="x", batch_size=size).embed(texts)
        np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


@weights
@needs_encoder
def test_the_embedding_is_that_of_sentence_transformers():
    expected = shared().encoder.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(shared().embed(TEXTS), expected, atol=1e-4)
    assert shared().embed(TEXTS).dtype == np.float32


@weights
@needs_encoder
def test_the_base_reads_as_many_tokens_as_its_docstring_says():
    long, longer = "word " * (MAX_TOKENS - 2), "word " * 300
    almost = "word " * (MAX_TOKENS - 4)
    rows = shared().embed([long, longer, almost])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    assert np.abs(rows[0] - rows[2]).max() > 1e-4
