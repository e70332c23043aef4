"""A card refuses whatever it was not made for, and names it."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from planted_loop import evaluator
from tiny import tiny_model, tiny_tokenizer

from valueflow.dose.curve import DoseCurve
from valueflow.dose.stale import check_evaluator, check_model, measured_by
from valueflow.dose.steerer import Card, Steerer, load_card, save_card
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput, StaleArtifact, UnknownName
from valueflow.evaluate import AnchorEvaluator
from valueflow.judges import ScriptedJudge
from valueflow.models import load
from valueflow.steering.store import vector_hash
from valueflow.steering.vector import SteeringVector, random_like


@functools.cache
def loaded(seed=0, bos=True, chat=True):
    model = tiny_model("llama", n_layers=4, seed=seed)
    return load((model, tiny_tokenizer(bos=bos, chat=chat)))


def vector(layers=(2,)):
    model = {"name": "tiny", **dataclasses.asdict(loaded().fingerprint)}
    row = torch.ones(loaded().hidden_size)
    row = row / row.norm()
    return SteeringVector(
        "svt/power", dict.fromkeys(layers, row), dict.fromkeys(layers, 30.0), {"model": model}
    )


@functools.cache
def card():
    c = np.linspace(-0.5, 0.5, 11)
    curve = DoseCurve("pchip", n_bootstrap=50, seed=0)
    curve.fit(c, 10 * c[:, None] + np.array([-0.2, 0.0, 0.2]))
    provenance = {
        **vector().provenance,
        "layers": [2],
        "vector": vector_hash(vector()),
        **measured_by(evaluator()),
        "prompts": ["one", "two"],
        "seed": 0,
    }
    return Card(vector(), curve, Decoding(max_new_tokens=8), provenance, {"error": 0.5})


def other_evaluator(**changed):
    """The evaluator of the card with one thing swapped; fitted, as it will be."""
    known = evaluator()
    settings = {name: getattr(known, name) for name in ("n_windows", "window_size", "sampling")}
    judge = changed.pop("judge", known.judge)
    panel = changed.pop("panel", known.panel)
    found = AnchorEvaluator(judge, panel, **(settings | {"seed": 0} | changed))
    found.sharpness_, found.scale_ = known.sharpness_, known.scale_
    return found


def test_the_card_fits_what_it_was_made_for():
    steerer = Steerer(loaded(), [card()], evaluators={"svt/power": evaluator()})
    assert steerer.coefficient("power", 2) == pytest.approx(0.2, abs=1e-6)
    Steerer(loaded(), [card()], evaluators={"svt/power": other_evaluator(seed=9)})


@pytest.mark.parametrize(
    ("swapped", "field"),
    [({"seed": 1}, "model"), ({"bos": False}, "tokenizer"), ({"chat": False}, "chat_template")],
)
def test_another_model_tokenizer_or_template_is_refused(swapped, field):
    with pytest.raises(StaleArtifact) as refused:
        Steerer(loaded(**swapped), [card()])
    told = str(refused.value)
    assert field in told or field.replace("_", " ") in told
    others = {"model", "tokenizer", "chat_template"} - {field}
    # "tokenizer" may only be named where it is what differs.
    assert not [other for other in others - {"model"} if other in told], told


def other_template(fresh):
    fresh.tokenizer.chat_template = "{{ messages[0].content }}"


def no_template(fresh):
    fresh.tokenizer.chat_template = None


def another_token(fresh):
    fresh.tokenizer.add_tokens(["<new>"])


def zeroed(fresh):
    with torch.no_grad():
        list(fresh.model.parameters())[3].zero_()


CHANGES = [
    (other_template, "chat_template"),
    (no_template, "chat_template"),
    (another_token, "tokenizer"),
    (zeroed, "model"),
]


@pytest.mark.parametrize(("change", "field"), CHANGES)
def test_what_is_changed_after_loading_is_noticed_at_once_and_later(change, field):
    fresh = loaded.__wrapped__()
    before = Steerer(fresh, [card()])
    assert len(before.generate(["Who leads?"], {"power": 2})) == 1
    change(fresh)
    for targets in ({"power": 2}, {}):
        with pytest.raises(StaleArtifact, match=f"now differs in {field}.*load the model again"):
            before.generate(["Who leads?"], targets)
    with pytest.raises(StaleArtifact, match=f"now differs in {field}"):
        Steerer(fresh, [card()])
    told = field.replace("_", " ")
    with pytest.raises(StaleArtifact, match=f"another {told} .*changed after .* load the model ag"):
        check_model("svt/power", card().provenance, fresh)


def test_a_model_that_is_compiled_in_place_or_went_elsewhere_is_the_same():
    fresh = loaded.__wrapped__()
    steerer = Steerer(fresh, [card()])
    fresh.model.compile(backend="eager")
    fresh.model.to("cpu")
    check_model("svt/power", card().provenance, fresh)
    wrapped = dataclasses.replace(fresh, model=torch.compile(fresh.model, backend="eager"))
    check_model("svt/power", card().provenance, wrapped)
    assert len(steerer.generate(["Who leads?"], {"power": 2})) == 1


@pytest.mark.parametrize(
    ("swapped", "field"),
    [
        (lambda: vector((1,)), r"layers \(\[2\], here \[1\]\)"),
        (lambda: vector((1, 2)), r"layers \(\[2\], here \[1, 2\]\)"),
        (lambda: random_like(vector(), seed=0), "vector"),
    ],
)
def test_another_layer_set_or_vector_is_refused(swapped, field):
    made = swapped()
    if made.value != "svt/power":
        made = dataclasses.replace(made, value="svt/power")
    with pytest.raises(StaleArtifact, match=f"another {field}"):
        Steerer(loaded(), [dataclasses.replace(card(), vector=made)])


def test_a_vector_swapped_on_disk_is_refused(tmp_path):
    import shutil

    save_card(card(), tmp_path / "one")
    save_card(dataclasses.replace(card(), vector=vector((3,))), tmp_path / "two")
    shutil.rmtree(tmp_path / "one" / "vector")
    shutil.copytree(tmp_path / "two" / "vector", tmp_path / "one" / "vector")
    with pytest.raises(StaleArtifact, match="layers"):
        Steerer(loaded(), [load_card(tmp_path / "one")])


@pytest.mark.parametrize(
    ("swapped", "field"),
    [
        (lambda: {"judge": ScriptedJudge(lambda i: 0.0, sharpness=0.7, seed=0)}, "judge"),
        (lambda: {"judge": Renamed()}, r"judge \(scripted, here renamed\)"),
        (lambda: {"panel": evaluator().panel.take(range(40))}, "panel"),
        (lambda: {"n_windows": 5}, r"n windows \(6, here 5\)"),
        (lambda: {"window_size": 4}, "window size"),
        (lambda: {"sampling": "random"}, "sampling"),
        (lambda: {"mode": "paper"}, "mode"),
    ],
)
def test_another_judge_panel_or_way_of_ranking_is_refused(swapped, field):
    other = other_evaluator(**swapped())
    with pytest.raises(StaleArtifact, match=f"another {field}"):
        check_evaluator("svt/power", card().provenance, other)
    with pytest.raises(StaleArtifact, match=f"another {field}"):
        Steerer(loaded(), [card()], evaluators={"svt/power": other})


@pytest.mark.parametrize("name", ["power", "Power", "pvq/power"])
def test_an_evaluator_counts_under_any_name_of_its_value(name):
    Steerer(loaded(), [card()], evaluators={name: evaluator()})
    with pytest.raises(StaleArtifact, match="another judge"):
        Steerer(loaded(), [card()], evaluators={name: other_evaluator(judge=Renamed())})


def test_an_evaluator_needs_a_card_of_its_value():
    with pytest.raises(InvalidInput, match=r"\(svt/power\), got one of svt/hedonism; leave it out"):
        Steerer(loaded(), [card()], evaluators={"hedonism": evaluator()})
    with pytest.raises(InvalidInput, match=r"there is none"):
        Steerer(loaded(), [], evaluators={"power": evaluator()})
    with pytest.raises(UnknownName, match="power"):
        Steerer(loaded(), [card()], evaluators={"powr": evaluator()})
    two = {"power": evaluator(), "svt/power": evaluator()}
    with pytest.raises(InvalidInput, match="svt/power as 'power' and as 'svt/power'"):
        Steerer(loaded(), [card()], evaluators=two)


class Renamed:
    name = "renamed"

    def fingerprint(self):
        return evaluator().judge.fingerprint()

    def rank(self, value, windows):
        return evaluator().judge.rank(value, windows)


def test_a_saved_card_keeps_what_it_was_measured_by(tmp_path):
    save_card(card(), tmp_path / "card")
    again = load_card(tmp_path / "card")
    assert again.provenance == card().provenance and again.measured == {"error": 0.5}
    fine = np.linspace(*card().curve.usable_range_, 41)
    assert np.array_equal(again.curve.predict(fine), card().curve.predict(fine))
    assert again.curve.inverse(3.3) == card().curve.inverse(3.3)
    Steerer(loaded(), [again], evaluators={"svt/power": evaluator()})
