from dataclasses import fields

import numpy as np
import pytest

from valueflow.errors import ArtifactError
from valueflow.hives.head import Head, load_head, save_head


def random_head(*, features=24, value_features=12, rank=4, seed=0, weight=0.5):
    rng = np.random.default_rng(seed)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return Head(
        text_mean=drawn(features),
        text_sd=np.exp(drawn(features)),
        value_mean=drawn(value_features),
        value_sd=np.exp(drawn(value_features)),
        P=drawn(rank, features),
        Q=drawn(rank, value_features),
        q=drawn(rank),
        prototype=np.array([0.3, 2.0, weight], dtype=np.float32),
    )


def inputs(seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(7, 24)).astype(np.float32), rng.normal(size=12).astype(np.float32)


def test_the_score_is_the_formula_of_the_docstring():
    head, (texts, value) = random_head(), inputs()
    v = (value - head.value_mean) / head.value_sd
    for text, found in zip(texts, head.score(texts, value), strict=True):
        z = (text - head.text_mean) / head.text_sd
        learned = sum(
            sum(head.P[r, f] * z[f] for f in range(24))
            * np.tanh(sum(head.Q[r, f] * v[f] for f in range(12)) + head.q[r])
            for r in range(4)
        )
        u = (sum(text[18 + i] * value[i] for i in range(6)) - 0.3) / 2.0
        assert found == pytest.approx(learned / 2.0 + 0.5 * u, rel=1e-4, abs=1e-4)


def test_without_text_weights_only_the_prototype_speaks_and_the_reverse():
    texts, value = inputs()
    head = random_head()
    prototype = Head(**(vars(head) | {"P": head.P * 0})).score(texts, value)
    assert (np.argsort(prototype) == np.argsort(texts[:, -6:] @ value[:6])).all()
    learned = random_head(weight=0.0).score(texts, value)
    np.testing.assert_allclose(learned + prototype, head.score(texts, value), atol=1e-4)


def test_no_texts_no_scores():
    assert random_head().score(inputs()[0][:0], inputs()[1]).shape == (0,)


def test_save_and_load_give_the_same_head(tmp_path):
    head, (texts, value) = random_head(), inputs()
    save_head(head, tmp_path / "head", {"seed": 0})
    found = load_head(tmp_path / "head")
    assert found.fingerprint() == head.fingerprint()
    assert np.array_equal(found.score(texts, value), head.score(texts, value))
    save_head(random_head(seed=9), tmp_path / "head", {"seed": 9})
    assert load_head(tmp_path / "head").fingerprint() != head.fingerprint()


def test_every_weight_is_in_the_fingerprint():
    head = random_head()
    prints = {head.fingerprint()}
    for field in fields(head):
        changed = getattr(head, field.name).copy()
        changed.flat[-1] += 0.01
        prints.add(Head(**(vars(head) | {field.name: changed})).fingerprint())
    assert len(prints) == 1 + len(fields(head))


def test_a_head_for_the_real_encoder_is_small(tmp_path):
    save_head(random_head(features=3072, value_features=1536, rank=32), tmp_path / "head", {})
    assert sum(f.stat().st_size for f in (tmp_path / "head").iterdir()) < 2e6


def test_missing_and_damaged_heads_are_refused(tmp_path):
    with pytest.raises(ArtifactError):
        load_head(tmp_path / "nothing")
    save_head(random_head(), tmp_path / "head", {})
    path = next((tmp_path / "head").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        load_head(tmp_path / "head")
