"""Controls take out of a vector what they say, and nothing else."""

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from valueflow.errors import InvalidInput
from valueflow.models import load
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import Contrast
from valueflow.steering.vector import SteeringVector
from valueflow.study.nuisance import (
    CONTROLS,
    controlled,
    length_vector,
    nuisances,
    pooled_vector,
    tone_vector,
)
from valueflow.study.tone import load_tone_pairs
from valueflow.vidb import load_starter

PROMPTS = ["Who decides?", "What next?"]
WIDTH = 24


@pytest.fixture(scope="module")
def model():
    return load((tiny_model("llama", n_layers=3), tiny_tokenizer(chat=True)))


def planted(name, **parts):
    """A unit vector made of named axes."""
    axes = {"warmth": 0, "length": 1, "power": 2, "achievement": 3, "hedonism": 4}
    row = torch.zeros(WIDTH)
    for axis, size in parts.items():
        row[axes[axis]] = size
    return SteeringVector(name, {1: row / row.norm()}, {1: 9.0}, {})


def vectors():
    return {
        "svt/power": planted("svt/power", power=1.0, achievement=0.6, warmth=0.9, length=0.5),
        "svt/achievement": planted("svt/achievement", achievement=1.0),
        "svt/hedonism": planted("svt/hedonism", hedonism=1.0, warmth=2.0),
    }


def found(control):
    warm, long = planted("warm", warmth=1.0), planted("long", length=1.0)
    return controlled(vectors(), control, positivity=[warm], length=[long])


def test_each_control_takes_out_its_own_part_alone():
    power = {name: found(name)["svt/power"].directions[1] for name in CONTROLS}
    kept = {name: {axis for axis in range(4) if abs(row[axis]) > 1e-5}
            for name, row in power.items()}  # fmt: skip
    assert kept["plain"] == {0, 1, 2, 3}
    assert kept["positivity"] == {1, 2, 3}
    assert kept["length"] == {0, 2, 3}
    assert kept["siblings"] == {0, 1, 2}
    assert kept["all"] == {2}
    assert all(row.norm() == pytest.approx(1, abs=1e-5) for row in power.values())
    # What is left keeps its proportions.
    assert power["length"][0] / power["length"][2] == pytest.approx(0.9, abs=1e-5)


def test_a_vector_that_was_warmth_is_exposed():
    """Of hedonism's push nine tenths were warmth; without it, it points elsewhere."""
    plain, mended = found("plain")["svt/hedonism"], found("positivity")["svt/hedonism"]
    assert plain.cosine(mended) == pytest.approx(1 / 5**0.5, abs=1e-5)
    pure = {"svt/power": planted("svt/power", warmth=1.0)}
    with pytest.raises(InvalidInput, match="almost"):
        controlled(pure, "positivity", positivity=[planted("warm", warmth=1.0)])


def test_what_all_vectors_share_is_their_mean_direction():
    shared = pooled_vector(list(vectors().values())).directions[1]
    total = sum(vector.directions[1] for vector in vectors().values())
    assert torch.allclose(shared, total / total.norm(), atol=1e-6)
    with pytest.raises(InvalidInput, match="two or more"):
        pooled_vector([planted("one", power=1.0)])


def test_a_control_without_its_direction_is_refused():
    with pytest.raises(InvalidInput, match="needs length"):
        controlled(vectors(), "all", positivity=[planted("warm", warmth=1.0)])
    with pytest.raises(InvalidInput, match="expected one of plain"):
        controlled(vectors(), "warmth")


def test_tone_is_the_mean_difference_of_the_pairs(model):
    pairs = load_tone_pairs()[:4]
    tone = tone_vector(model, [1], prompts=PROMPTS, pairs=pairs)
    rows = []
    for pair in pairs:
        both = [Contrast(t, t, pair.question, t, 0.0) for t in (pair.positive, pair.negative)]
        read = answer_activations(model, both, [1]).by_layer[1]
        rows.append(read[0] - read[1])
    mean = torch.stack(rows).mean(0)
    assert torch.allclose(tone.directions[1], mean / mean.norm(), atol=1e-4)


def test_length_contrasts_answers_of_the_same_value_and_rung(model):
    vidb = load_starter()
    made = length_vector(model, vidb, [0], prompts=PROMPTS, values=["svt/power"], per_cell=1)
    assert made.provenance["texts"] == 10
    frame = vidb.of("svt/power", "steer").frame
    rows = []
    for rung in range(1, 6):
        own = frame[frame["rung"] == rung]
        both = [own[own["register"] == r].iloc[0] for r in ("answer", "brief")]
        told = [Contrast(r.id, r.id, r.context, r.text, 0.0) for r in both]
        read = answer_activations(model, told, [0]).by_layer[0]
        rows.append(read[0] - read[1])
    mean = torch.stack(rows).mean(0)
    assert torch.allclose(made.directions[0], mean / mean.norm(), atol=1e-4)
    assert np.isfinite(made.norms[0])


def test_nuisances_are_derived_in_the_format_of_the_cards(model):
    given = {"svt/power": planted("svt/power", power=1.0)}
    asked = {"prompts": PROMPTS, "values": ["svt/power"], "template": "plain"}
    found = nuisances(model, load_starter(), given, prompts=PROMPTS, template="plain")
    tone = tone_vector(model, [1], prompts=PROMPTS, template="plain")
    length = length_vector(model, load_starter(), [1], **asked)
    for made, oracle in ((found["positivity"][0], tone), (found["length"][0], length)):
        assert torch.equal(made.directions[1], oracle.directions[1])
        assert made.provenance["template"] == "plain"
    chat = nuisances(model, load_starter(), given, prompts=PROMPTS)
    for name in ("positivity", "length"):
        assert chat[name][0].cosine(found[name][0]) < 0.999


def test_nuisances_need_vectors_at_the_same_layers(model):
    other = SteeringVector("svt/face", {2: torch.ones(WIDTH)}, {2: 9.0}, {})
    with pytest.raises(InvalidInput, match="same layers"):
        nuisances(model, load_starter(), vectors() | {"svt/face": other}, prompts=PROMPTS)
