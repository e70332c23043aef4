import json

import numpy as np
import pytest
import torch
from planted_family import planted_reader, texts_of
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from tiny import tiny_model, tiny_tokenizer

import valueflow
from valueflow import artifacts
from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact, UnknownName
from valueflow.models import load
from valueflow.steering import check_fits, load_probes, save_probes, train_probes
from valueflow.steering import probes as module
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import contrasts

HIDDEN = 64
VALUES = ["svt/power", "mft/care-harm"]


def truths():
    axes = torch.linalg.qr(torch.randn(HIDDEN, 2, generator=torch.Generator().manual_seed(0))).Q
    return dict(zip(VALUES, axes.T, strict=True))


def planted(monkeypatch, *, strength, n_ladders=30, seed=0, scenario=0.5, **options):
    """Probes of planted activations, without a model."""
    reader = planted_reader(truths(), strength=strength, scenario=scenario, seed=seed)
    monkeypatch.setattr(module, "answer_activations", reader)
    vidb = texts_of(VALUES, n_ladders=n_ladders)
    model = tiny_loaded()
    return train_probes(model, vidb, VALUES, seed=seed, **({"layers": [1]} | options))


def tiny_loaded(seed=0):
    return load((tiny_model("llama", seed=seed), tiny_tokenizer(chat=True)))


def test_a_planted_value_is_read_on_ladders_not_seen(monkeypatch):
    probes = planted(monkeypatch, strength=1.0, n_ladders=60)
    assert list(probes) == VALUES
    for value, probe in probes.items():
        readout = probe.readouts[1]
        truth = truths()[value]
        assert float(readout.direction @ truth) > 0.75
        # Poles lie 2 apart on average (4 and 8 of 6, on either side): AUC of the best reader.
        spread = np.sqrt(1 + 0.25)
        gaps = [(a + b) / 6 for a in (4, 8) for b in (4, 8)]
        best = np.mean([norm.cdf(gap / spread / np.sqrt(2)) for gap in gaps])
        assert best - 0.12 < readout.test.estimate < best + 0.05
        assert readout.test.low < readout.test.estimate < readout.test.high
        assert readout.test.ladders == readout.validation.ladders == 60


def test_placebos_read_nothing(monkeypatch):
    probes = planted(monkeypatch, strength=0.7, placebos=12, estimator="mean_difference")
    chance = [a for probe in probes.values() for a in probe.readouts[1].placebos]
    assert len(chance) == 24
    assert np.mean(chance) == pytest.approx(0.5, abs=0.12)
    for probe in probes.values():
        assert probe.readouts[1].test.estimate > max(np.quantile(chance, 0.9), 0.7)


def test_without_a_value_there_is_nothing_to_read(monkeypatch):
    found = [
        probe.readouts[1].test
        for seed in range(3)
        for probe in planted(
            monkeypatch, strength=0.0, seed=seed, placebos=0, estimator="mean_difference"
        ).values()
    ]
    assert np.mean([f.estimate for f in found]) == pytest.approx(0.5, abs=0.06)
    assert sum(f.low < 0.5 < f.high for f in found) >= 5


def test_scores_are_log_odds_that_hold_elsewhere(monkeypatch):
    """Refitted on ladders not seen, the slope stays near 1: a scale learned in place would not."""
    probes = planted(monkeypatch, strength=0.5, n_ladders=40)
    reader = planted_reader(truths(), strength=0.5, scenario=0.5, seed=77)
    vidb = texts_of(VALUES, n_ladders=200, splits=("steer",))
    slopes = []
    for value, probe in probes.items():
        graded = [c for c in contrasts(vidb, value) if abs(c.intensity) > 2]
        fresh = reader(tiny_loaded(), graded, [1])
        scores = probe.read(fresh)
        high = np.array([c.intensity > 0 for c in graded])
        refit = LogisticRegression(C=1e6).fit(scores.numpy()[:, None], high)
        slopes.append(float(refit.coef_[0, 0]))
        assert (
            float(scores[torch.from_numpy(high)].mean())
            > 0
            > float(scores[torch.from_numpy(~high)].mean())
        )
    assert 0.5 < np.mean(slopes) < 2.0


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded()


@pytest.fixture(scope="module")
def vidb():
    return texts_of(VALUES, n_ladders=4)


@pytest.fixture(scope="module")
def trained(loaded, vidb):
    return train_probes(loaded, vidb, VALUES, layers=[2, 1], seed=3, placebos=2)


def test_reads_what_the_model_says(loaded, vidb, trained):
    """The tiny model's texts differ by words, which any of its layers shows."""
    probe = trained["svt/power"]
    graded = contrasts(vidb, "svt/power", split="test")
    read = answer_activations(loaded, graded, [1, 2])
    scores = probe.read(read, layer=2)
    assert np.corrcoef(scores, [c.intensity for c in graded])[0, 1] > 0.8
    readout = probe.readouts[2]
    by_hand = readout.scale * (read.by_layer[2] @ readout.direction) + readout.offset
    torch.testing.assert_close(scores, by_hand)
    tokens = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    found = probe.score(tokens, layer=1)
    torch.testing.assert_close(found[1, 2], probe.score(tokens[1, 2], layer=1))
    better = max((1, 2), key=lambda k: probe.readouts[k].validation.estimate)
    assert probe.best_layer == better
    torch.testing.assert_close(probe.read(read), probe.read(read, layer=better))


def test_the_same_seed_gives_the_same_probes(loaded, vidb, trained):
    again = train_probes(loaded, vidb, VALUES, layers=[1, 2], seed=3, placebos=2)
    for value in VALUES:
        for layer in (1, 2):
            a, b = trained[value].readouts[layer], again[value].readouts[layer]
            assert torch.equal(a.direction, b.direction)
            assert (a.scale, a.offset, a.test, a.placebos) == (
                b.scale, b.offset, b.test, b.placebos
            )  # fmt: skip
    # A value's probe does not depend on which others are trained beside it.
    alone = train_probes(loaded, vidb, VALUES[1:], layers=[2], seed=3, placebos=2)
    assert alone[VALUES[1]].readouts[2].placebos == trained[VALUES[1]].readouts[2].placebos


def test_round_trip(loaded, trained, tmp_path):
    save_probes(trained, tmp_path / "x")
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["card.json", "card.safetensors"]
    back = load_probes(tmp_path / "x")
    assert list(back) == VALUES
    for value, probe in back.items():
        assert probe.provenance == trained[value].provenance
        for layer in (1, 2):
            a, b = trained[value].readouts[layer], probe.readouts[layer]
            assert torch.equal(a.direction, b.direction)
            assert (a.scale, a.offset, a.validation, a.test, a.placebos) == (
                b.scale, b.offset, b.validation, b.test, b.placebos
            )  # fmt: skip
        check_fits(probe, loaded)
        with pytest.raises(StaleArtifact, match="svt/power|mft/care-harm.*differs.*in model"):
            check_fits(probe, tiny_loaded(seed=1))
    assert (tmp_path / "x" / "card.safetensors").stat().st_size < 2 * 2 * 32 * 2 + 400


def test_shipped_probes_go_by_the_name_of_the_model(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(valueflow, "__file__", str(tmp_path / "valueflow" / "__init__.py"))
    save_probes(trained, tmp_path / "probes" / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    assert list(load_probes("tiny-llama")) == VALUES
    with pytest.raises(UnknownName, match=r"did you mean tiny-llama\? .or train them"):
        load_probes("tiny-lama")
    with pytest.raises(UnknownName, match="known: tiny-llama .*probes train MODEL --all --out FOL"):
        load_probes("gpt")
    with pytest.raises(ArtifactError, match="no card there.*shipped for tiny-llama .or train"):
        load_probes("probes/nowhere")


def test_shipped_probes_go_by_the_hub_id_of_the_model(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(valueflow, "__file__", str(tmp_path / "valueflow" / "__init__.py"))
    save_probes(trained, tmp_path / "probes" / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    for name in ("Some-Owner/Tiny-Llama", "Tiny-Llama", "some-owner/tiny-llama/"):
        assert list(load_probes(name)) == VALUES
    # A folder of that name goes first, and a path that leads nowhere is not taken for a name.
    save_probes({VALUES[0]: trained[VALUES[0]]}, tmp_path / "Some-Owner" / "Tiny-Llama")
    assert list(load_probes("Some-Owner/Tiny-Llama")) == VALUES[:1]
    for path in ("./tiny-llama", tmp_path / "tiny-llama", "out/of/tiny-llama"):
        with pytest.raises(ArtifactError, match="no card there.*shipped for tiny-llama"):
            load_probes(path)


def test_other_cards_are_no_probes(trained, tmp_path):
    save_probes(trained, tmp_path / "x")
    tensors, metadata = artifacts.load(tmp_path / "x", "card")
    artifacts.save(tmp_path / "other", "card", tensors, metadata | {"content": "vectors"})
    with pytest.raises(ArtifactError, match="expected linear probes, found 'vectors'"):
        load_probes(tmp_path / "other")
    artifacts.save(tmp_path / "less", "card", {"layer.1": tensors["layer.1"]}, metadata)
    with pytest.raises(ArtifactError, match="no probes in it"):
        load_probes(tmp_path / "less")
    json.loads((tmp_path / "x" / "card.json").read_text())


def test_what_cannot_be_trained_read_or_saved(loaded, vidb, trained, tmp_path):
    with pytest.raises(InvalidInput, match="one value or more"):
        train_probes(loaded, vidb, [], seed=0)
    with pytest.raises(UnknownName, match="estimator"):
        train_probes(loaded, vidb, VALUES, estimator="guess", seed=0)
    probe = trained["svt/power"]
    read = answer_activations(loaded, contrasts(vidb, "svt/power", split="test"), [3])
    with pytest.raises(InvalidInput, match="no layer"):
        probe.read(read)
    with pytest.raises(InvalidInput, match=r"reads layers \[1, 2\], not 3"):
        probe.read(read, layer=3)
    with pytest.raises(InvalidInput, match="size 32, got 16"):
        probe.score(torch.zeros(2, 16), layer=1)
    other = train_probes(loaded, vidb, VALUES[1:], layers=[1], seed=3, placebos=0)
    with pytest.raises(InvalidInput, match="trained together"):
        save_probes(trained | other, tmp_path / "x")
    with pytest.raises(InvalidInput, match="one probe or more"):
        save_probes({}, tmp_path / "x")
