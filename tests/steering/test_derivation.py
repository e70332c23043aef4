import json

import numpy as np
import pytest
import torch
from planted_family import worded
from tiny import tiny_model, tiny_tokenizer

import valueflow
from valueflow.errors import InvalidInput, UnknownName
from valueflow.models import load
from valueflow.steering import check_fits, derive, load_vector, random_like, save_vector
from valueflow.steering.activations import answer_activations, typical_norms
from valueflow.steering.contrasts import contrasts, shuffled
from valueflow.steering.directions import ESTIMATORS, choose_layer, labels

PLACES = ["the office", "a hat shop", "one island", "the theatre", "an old inn", "our garden"]
RUNGS = [
    (-8.0, "zzz no no never in {}"),
    (-4.0, "zz no never in {}"),
    (0.0, "in {} there is rain"),
    (4.0, "QQ yes ever in {}"),
    (8.0, "QQQ yes yes ever in {}"),
]


@pytest.fixture(scope="module")
def vidb():
    return worded(RUNGS, PLACES)


@pytest.fixture(scope="module")
def loaded():
    return load((tiny_model("llama"), tiny_tokenizer(chat=True)))


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_is_the_composition_of_its_verbs(loaded, vidb, estimator):
    vector = derive(loaded, vidb, "power", estimator=estimator, seed=4)
    graded = contrasts(vidb, "svt/power")
    activations = answer_activations(loaded, graded, [1, 2, 3])
    best, scores = choose_layer(
        activations, graded, estimator=ESTIMATORS[estimator], rng=np.random.default_rng(4)
    )
    expected = ESTIMATORS[estimator](activations.by_layer[best], *labels(graded))
    assert vector.layers == (best,)
    assert torch.equal(vector.directions[best], expected)
    assert vector.norms == {best: activations.norms[best]}
    assert vector.provenance["layer_scores"] == {str(k): s._asdict() for k, s in scores.items()}


def test_reads_the_texts_it_was_made_from(loaded, vidb):
    vector = derive(loaded, vidb, "svt/power", layer=2, seed=0)
    graded = contrasts(vidb, "svt/power")
    rows = answer_activations(loaded, graded, [2]).by_layer[2] @ vector.directions[2]
    assert np.corrcoef(rows, [c.intensity for c in graded])[0, 1] > 0.8
    placebo = derive(loaded, vidb, "svt/power", layer=2, seed=0, shuffle_labels=True)
    assert placebo.value == "shuffled(svt/power)"
    assert placebo.norms == vector.norms
    again = shuffled(graded, rng=np.random.default_rng(0))
    rows = answer_activations(loaded, graded, [2]).by_layer[2]
    assert torch.equal(placebo.directions[2], ESTIMATORS["mean_difference"](rows, *labels(again)))
    assert placebo.cosine(vector) < 0.8


def test_says_how_it_was_made(loaded, vidb, tmp_path):
    vector = derive(loaded, vidb, "power", layer=[3, 1], seed=7, estimator="lda")
    record = vector.provenance
    assert vector.value == record["value"] == "svt/power"
    assert vector.layers == (1, 3)
    assert record["model"]["model"] == loaded.fingerprint.model
    assert record["model"]["tokenizer"] == loaded.fingerprint.tokenizer
    assert record["model"]["chat_template"] == loaded.fingerprint.chat_template
    assert record["vidb"] == vidb.fingerprint()
    assert (record["split"], record["texts"], record["labels"]) == ("steer", 30, "true")
    assert (record["estimator"], record["layer"], record["seed"]) == ("lda", [3, 1], 7)
    assert record["library_version"] == valueflow.__version__
    assert record["layer_scores"] == {}
    assert json.loads(json.dumps(record)) == record
    save_vector(vector - random_like(vector, seed=0), tmp_path / "x")
    check_fits(load_vector(tmp_path / "x"), loaded)


def test_norms_of_calibration_prompts(loaded, vidb):
    prompts = ["What is in the hat?", "And then?"]
    vector = derive(loaded, vidb, "power", layer=1, seed=0, prompts=prompts)
    assert vector.norms == typical_norms(loaded, prompts, [1])
    assert vector.provenance["norms"] == "prompts"
    assert vector.norms != derive(loaded, vidb, "power", layer=1, seed=0).norms


class Unread:
    """A backend that must not be asked."""

    n_layers = 4

    def capture(self, *_):
        raise AssertionError("read again")


@pytest.mark.parametrize("options", [{}, {"layer": 2}, {"layer": [2, 3], "shuffle_labels": True}])
def test_activations_read_before_give_the_same_vector(loaded, vidb, options):
    read = answer_activations(loaded, contrasts(vidb, "power"), [1, 2, 3])
    again = derive(loaded, vidb, "power", seed=4, activations=read, backend=Unread(), **options)
    fresh = derive(loaded, vidb, "power", seed=4, **options)
    assert again.layers == fresh.layers
    for layer in fresh.layers:
        torch.testing.assert_close(again.directions[layer], fresh.directions[layer])
        assert again.norms[layer] == pytest.approx(fresh.norms[layer])
    assert again.value == fresh.value and again.provenance["layer"] == fresh.provenance["layer"]


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (np.int64(2), 2),
        (torch.tensor(2), 2),
        (list(np.arange(3, 0, -2)), [3, 1]),
        (np.arange(1, 3), [1, 2]),
        (range(1, 3), [1, 2]),
    ],
)
def test_any_integers_are_layers(loaded, vidb, tmp_path, layer, kept):
    vector = derive(loaded, vidb, "power", layer=layer, seed=0)
    assert vector.provenance["layer"] == kept
    assert vector.layers == ((kept,) if isinstance(kept, int) else tuple(sorted(kept)))
    save_vector(vector, tmp_path / "x")
    assert load_vector(tmp_path / "x").provenance == vector.provenance


@pytest.mark.parametrize("layer", [True, [1, True]])
def test_a_flag_is_no_layer(loaded, vidb, layer):
    with pytest.raises(InvalidInput, match=r"layer .*(True|False).*: expected 'auto', a whole num"):
        derive(loaded, vidb, "power", layer=layer, seed=0)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("Who leads?", r"a list of prompts, got one string: write \['Who leads"),
        (["Who?", " "], "prompt ' ' is empty"),
        ([], "expected texts"),
    ],
)
def test_prompts_are_checked_before_the_answers_are_read(loaded, vidb, prompts, message):
    def read(*_):
        raise AssertionError("the answers were read")

    with pytest.raises(InvalidInput, match=message):
        derive(loaded, vidb, "power", layer=2, seed=0, prompts=prompts, progress=read)


def test_activations_of_other_texts_or_layers_are_refused(loaded, vidb):
    graded = contrasts(vidb, "power")
    fewer = answer_activations(loaded, graded[:-1], [2])
    with pytest.raises(InvalidInput, match="activations of 29 texts, but the contrasts are 30"):
        derive(loaded, vidb, "power", layer=2, seed=0, activations=fewer)
    read = answer_activations(loaded, graded, [2])
    for layer in (1, [1, 2], "auto"):
        with pytest.raises(InvalidInput, match="activations have no layer 1"):
            derive(loaded, vidb, "power", layer=layer, seed=0, activations=read)


def test_what_cannot_be_derived(loaded, vidb):
    with pytest.raises(UnknownName, match="did you mean pca"):
        derive(loaded, vidb, "power", estimator="pac", seed=0)
    with pytest.raises(UnknownName, match="hedonism"):
        derive(loaded, vidb, "hedonism", seed=0)
    with pytest.raises(InvalidInput, match=r"expected one or more of 0\.\.3"):
        derive(loaded, vidb, "power", layer=4, seed=0)
    with pytest.raises(InvalidInput, match="expected one or more"):
        derive(loaded, vidb, "power", layer=[], seed=0)
