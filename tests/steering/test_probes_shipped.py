"""The released probes: whole, better than their placebos, and measured again."""

import numpy as np
import pytest

from valueflow.models import is_fetched, load
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import contrasts
from valueflow.steering.directions import labels
from valueflow.steering.probe_store import load_probes, shipped_probes
from valueflow.steering.separation import auc
from valueflow.steering.store import check_fits
from valueflow.theories import steered_values
from valueflow.vidb import load_starter

SHIPPED = {
    "smollm2-135m-instruct": {value.id for value in steered_values()},
    "gemma-3-270m": {value.id for value in steered_values() if value.theory == "svt"},
}


def best(name):
    return [probe.readouts[probe.best_layer] for probe in load_probes(name).values()]


def test_each_model_has_the_values_it_is_said_to_have():
    assert {name: set(load_probes(name)) for name in shipped_probes()} == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_they_read_ladders_they_have_not_seen_and_their_placebos_do_not(name):
    found = best(name)
    test = np.array([readout.test.estimate for readout in found])
    chance = np.array([np.mean(readout.placebos) for readout in found])
    assert test.mean() > 0.7 and abs(chance.mean() - 0.5) < 0.04
    assert (test > chance + 0.1).mean() > 0.85
    assert np.mean([readout.test.low > 0.5 for readout in found]) > 0.8


def test_the_page_has_their_figures():
    page = (shipped_probes()["gemma-3-270m"].parent / "README.md").read_text("utf-8")
    for name in SHIPPED:
        _, _, part = page.partition(f"\n## {name}\n")
        for value, probe in load_probes(name).items():
            readout = probe.readouts[probe.best_layer]
            row = f"| {value} | {probe.best_layer} | {readout.validation.estimate:.3f} |"
            assert f"{row} {readout.test.estimate:.3f} |" in part.partition("\n## ")[0]


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", SHIPPED)
def test_a_released_probe_reads_the_test_ladders_as_its_card_says(name):
    if not is_fetched(name):
        pytest.skip(f"{name} is not in the cache")
    model, probe = load(name), load_probes(name)["svt/tradition"]
    check_fits(probe, model)
    graded = contrasts(load_starter(), "svt/tradition", split="test")
    read = answer_activations(model, graded, [probe.best_layer])
    found = auc(probe.read(read), *labels(graded), rng=np.random.default_rng(0))
    said = probe.readouts[probe.best_layer].test
    assert found.ladders == said.ladders
    assert found.estimate == pytest.approx(said.estimate, abs=0.005)
