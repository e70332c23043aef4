import json

import numpy as np
import pytest
import torch
from planted_family import planted_reader, texts_of
from tiny import tiny_model, tiny_tokenizer

from valueflow.errors import InvalidInput, UnknownName
from valueflow.models import load
from valueflow.steering import check_fits, derive, load_vector, save_vector
from valueflow.steering.activations import answer_activations
from valueflow.steering.directions import labels
from valueflow.steering.family import derive_family, family_contrasts
from valueflow.steering.methods import METHODS, Texts, directions_of, drawn
from valueflow.theories import steered_values

SVT = [value.id for value in steered_values("svt")]
FEW = ["svt/power", "svt/achievement", "svt/face", "svt/humility"]
EVERY_METHOD = pytest.mark.parametrize("method", sorted(METHODS))


def embed(texts):
    """What stands for a value space: the letters of a text."""
    return np.array([[text.count(c) + 0.1 for c in "aeiouyr0123456789"] for text in texts])


@pytest.fixture(scope="module")
def loaded():
    return load((tiny_model("llama"), tiny_tokenizer(chat=True)))


@pytest.fixture(scope="module")
def vidb():
    return texts_of(FEW, n_ladders=6, splits=("steer",))


@pytest.fixture(scope="module")
def read(loaded, vidb):
    return answer_activations(loaded, family_contrasts(vidb, FEW), [1, 2])


@EVERY_METHOD
def test_every_method_gives_vectors_of_the_model(loaded, vidb, read, method, tmp_path):
    options = {"layer": [1, 2], "seed": 0, "activations": read, "embed": embed}
    vectors = derive_family(loaded, vidb, FEW, method=method, **options)
    assert list(vectors) == FEW
    for value, vector in vectors.items():
        assert vector.layers == (1, 2)
        assert vector.norms == read.norms
        assert [float(d.norm()) for d in vector.directions.values()] == pytest.approx([1, 1])
        record = vector.provenance
        assert (record["method"], record["value"], record["family"]) == (method, value, FEW)
        assert json.loads(json.dumps(record)) == record
    save_vector(vectors["svt/face"], tmp_path / "x")
    check_fits(load_vector(tmp_path / "x"), loaded)
    again = derive_family(loaded, vidb, FEW, method=method, **options)
    assert all(torch.equal(again[v].directions[2], vectors[v].directions[2]) for v in FEW)


def test_plain_is_the_mean_difference_of_each_value(loaded, vidb, read):
    vectors = derive_family(loaded, vidb, FEW, method="plain", layer=2, seed=0, activations=read)
    for value in FEW:
        alone = derive(loaded, vidb, value, layer=2, seed=0)
        torch.testing.assert_close(
            vectors[value].directions[2], alone.directions[2], rtol=1e-3, atol=1e-5
        )


def test_reads_the_model_itself(loaded, vidb, read):
    options = {"method": "shrunken", "layer": 2, "seed": 0}
    fresh = derive_family(loaded, vidb, FEW, **options)
    given = derive_family(loaded, vidb, FEW, activations=read, **options)
    for value in FEW:
        torch.testing.assert_close(
            fresh[value].directions[2], given[value].directions[2], rtol=1e-4, atol=1e-5
        )


def test_fewer_ladders_are_among_the_more(loaded, vidb, read):
    split = read.by_layer[2].split(30)
    graded = family_contrasts(vidb, FEW)
    family = {v: Texts(split[i], *labels(graded[30 * i : 30 * i + 30])) for i, v in enumerate(FEW)}
    sets = [
        {v: set(texts.ladders) for v, texts in drawn(family, n, seed=3).items()} for n in (2, 4, 6)
    ]
    for value in FEW:
        assert sets[0][value] < sets[1][value] < sets[2][value]
        assert len(sets[0][value]) == 2
    other = {v: set(texts.ladders) for v, texts in drawn(family, 2, seed=4).items()}
    assert other != sets[0]
    # Values draw apart from each other.
    numbers = {tuple(sorted(n.rsplit("-")[-1] for n in names)) for names in sets[0].values()}
    assert len(numbers) > 1
    expected = directions_of(drawn(family, 2, seed=3), "shrunken", rng=np.random.default_rng(3))
    vectors = derive_family(
        loaded, vidb, FEW, method="shrunken", n_ladders=2, layer=2, seed=3, activations=read
    )
    for value in FEW:
        assert torch.equal(vectors[value].directions[2], expected[value])
        assert vectors[value].provenance["n_ladders"] == 2


def circle_family(n_ladders, *, seed, hidden=80):
    """The twelve basic values: a strong part of all, one of each parent, one of their own."""
    from valueflow.theories import get_value

    draw = torch.Generator().manual_seed(seed)

    def part(length):
        return length * torch.nn.functional.normalize(torch.randn(hidden, generator=draw), dim=0)

    common, parents, truths = part(0.8), {}, {}
    for value in SVT:
        own, above = part(0.6), get_value(value).parents
        for parent in above:
            parents.setdefault(parent, part(0.8))
        truths[value] = common + own + sum(parents[p] for p in above) / len(above)
    vidb = texts_of(SVT, n_ladders=n_ladders, splits=("steer",))
    reader = planted_reader(truths, strength=1.0, seed=seed)

    class Model:
        n_layers = 3

    graded = family_contrasts(vidb, SVT)
    rows = reader(Model, graded, [0]).by_layer[0].split(5 * n_ladders)
    family = {
        v: Texts(row, *labels(graded[5 * n_ladders * i :][: 5 * n_ladders]))
        for i, (v, row) in enumerate(zip(SVT, rows, strict=True))
    }
    return family, truths


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_methods_on_values_that_are_relatives():
    means = {}
    for method in ("plain", "shrunken", "shuffled_tree", "specific", "plain_specific"):
        own, others = [], []
        for seed in range(6):
            family, truths = circle_family(3, seed=seed)
            found = directions_of(family, method, rng=np.random.default_rng(seed))
            own += [cosine(found[v], truths[v]) for v in SVT]
            others += [
                abs(cosine(found["svt/security"], truths[w]))
                for w in ("svt/tradition", "svt/conformity")
            ]
        means[method] = np.mean(own), np.mean(others)
    assert means["shrunken"][0] > means["plain"][0] + 0.05
    assert means["shrunken"][0] > means["shuffled_tree"][0] + 0.01
    for method, whole in (("specific", "shrunken"), ("plain_specific", "plain")):
        assert means[method][1] < 0.75 * means[whole][1]
        assert means[method][0] < means[whole][0]


def test_what_a_family_cannot_be(loaded, vidb, read):
    options = {"layer": 2, "seed": 0, "activations": read}
    with pytest.raises(UnknownName, match="did you mean shrunken"):
        derive_family(loaded, vidb, FEW, method="shrunk", **options)
    with pytest.raises(InvalidInput, match="each once"):
        derive_family(loaded, vidb, ["power", "svt/power"], method="plain", **options)
    with pytest.raises(InvalidInput, match="each once"):
        derive_family(loaded, vidb, [], method="plain", **options)
    with pytest.raises(InvalidInput, match="0 ladders"):
        derive_family(loaded, vidb, FEW, method="plain", n_ladders=0, **options)
    with pytest.raises(InvalidInput, match="needs embeddings"):
        derive_family(loaded, vidb, FEW, method="matched", **options)
    with pytest.raises(InvalidInput, match="activations of 120 texts, but the contrasts are 60"):
        derive_family(loaded, vidb, FEW[:2], method="plain", **options)
    with pytest.raises(InvalidInput, match=r"no layer \[3\]"):
        derive_family(loaded, vidb, FEW, method="plain", **(options | {"layer": 3}))
