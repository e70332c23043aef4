import functools

import numpy as np
import pytest
from planted import PlantedEncoder

from valueflow.hives.encoder import MIDDLE_LAYERS, FrozenEncoder, load_frozen_encoder
from valueflow.models import is_fetched

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
    return load_frozen_encoder()


class Counting(PlantedEncoder):
    def __init__(self, batch_size):
        super().__init__()
        self.batch_size, self.batches = batch_size, []

    def _forward(self, batch):
        self.batches.append(list(batch))
        return super()._forward(batch)


def test_each_text_is_read_once_in_batches_longest_first():
    encoder = Counting(batch_size=2)
    rows = encoder.features(["aaa", "a", "aa", "a"])
    assert encoder.batches == [["aaa", "aa"], ["a"]]
    assert np.array_equal(rows[1], rows[3]) and not np.array_equal(rows[0], rows[1])
    again = encoder.features(["a", "aaaa", "aaa"])
    assert encoder.batches[2:] == [["aaaa"]]
    assert np.array_equal(again[[0, 2]], rows[[1, 0]])


def test_no_texts_no_features():
    assert PlantedEncoder().features([]).shape == (0, 64)
    assert PlantedEncoder().embed([]).shape == (0, 16)


@weights
@needs_encoder
def test_features_do_not_depend_on_the_batch():
    alone = [FrozenEncoder(shared().encoder, name="x").features([t])[0] for t in TEXTS]
    together = FrozenEncoder(shared().encoder, name="x").features(TEXTS)
    assert together.shape == (4, (len(MIDDLE_LAYERS) + 1) * shared().width)
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)


@weights
@needs_encoder
def test_the_embedding_is_that_of_sentence_transformers():
    expected = shared().encoder.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(shared().embed(TEXTS), expected, atol=1e-4)


@weights
@needs_encoder
def test_middle_features_are_means_over_the_tokens_of_the_states():
    import torch

    encoder = shared().encoder
    tokens = encoder.tokenizer([TEXTS[1]], return_tensors="pt")
    with torch.no_grad():
        states = encoder[0].auto_model(**tokens, output_hidden_states=True).hidden_states
    expected = torch.cat([states[layer][0].mean(0) for layer in MIDDLE_LAYERS]).numpy()
    found = shared().features([TEXTS[1]])[0, : -shared().width]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@weights
@needs_encoder
def test_empty_and_very_long_texts_have_features():
    rows = shared().features(["", "  ", ".", "word " * 400, "word " * 500])
    assert np.isfinite(rows).all()
    assert np.array_equal(rows[0], rows[1])
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-4)
    np.testing.assert_allclose(rows[3], rows[4], atol=1e-4)


@weights
@needs_encoder
def test_the_fingerprint_is_of_the_weights_not_the_name():
    import torch

    before = shared().fingerprint()
    assert FrozenEncoder(shared().encoder, name="another").fingerprint() == before
    parameter = next(shared().encoder[0].auto_model.parameters())
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.add_(0.01)
    changed = shared().fingerprint()
    with torch.no_grad():
        parameter.copy_(kept)
    assert changed != before == shared().fingerprint()
