import dataclasses
import os
import random

import numpy as np
import pytest
import torch
from planted import (
    AGAINST,
    FILLERS,
    FOR,
    VALUES,
    in_order,
    planted_base,
    planted_texts,
    stance_text,
)
from sklearn.metrics import roc_auc_score
from threads import one_thread  # noqa: F401

import valueflow.hives.objective as module
from valueflow.errors import InvalidInput
from valueflow.hives.batches import with_pairs
from valueflow.hives.build import axes_of, build, load_trained, save_encoder
from valueflow.hives.encoder import ValueEncoder
from valueflow.hives.labels import labels_for
from valueflow.hives.recipe import Recipe
from valueflow.hives.texts import TrainingTexts, anchor_texts, join
from valueflow.hives.train import SpaceLoss, train
from valueflow.hives.units import unit_batches
from valueflow.theories.anchors import Anchor

TOUCHED = ("mft/care-harm", "mft/liberty-oppression")
HELD_OUT = planted_texts(seed=9)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return planted_base(tmp_path_factory.mktemp("base"))


def recipe_for(base, **changes):
    settings = {
        "base": base,
        "max_tokens": 64,
        "lora_rank": 4,
        "epochs": (4.0, 0.0),
        "units": (6, 4),
        "pairs": 2,
        "learning_rates": (1e-2, 1e-2),
        "axes_rate": 5e-2,
        "precision": "fp32",
    }
    return Recipe(**settings | changes)


def untrained(base, **options):
    settings = {"rank": 4, "upper_blocks": None, "max_tokens": 64, "seed": 0}
    return build(base, **settings | options).eval()


def space(model):
    return ValueEncoder(model, name="planted")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    texts = planted_texts(seed=0, n_ladders=15)
    return train(recipe_for(base), texts, tmp_path_factory.mktemp("trained"))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def largest_difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


SHORT = {"epochs": (1.6, 0.0)}
N_SHORT = 8


@pytest.fixture(scope="module")
def short(base, tmp_path_factory):
    """A few steps, for what does not need more."""
    texts = planted_texts(seed=0, n_ladders=5)
    return weights(train(recipe_for(base, **SHORT), texts, tmp_path_factory.mktemp("short")))


def test_the_planted_order_is_found_in_ladders_never_seen(base, trained):
    before = in_order(space(untrained(base)), HELD_OUT)
    after = in_order(space(trained), HELD_OUT)
    assert np.mean(list(before.values())) < 0.65, before
    assert np.mean(list(after.values())) > 0.9, after
    assert min(after.values()) > 0.8, after


def test_placebo_shuffled_grades_teach_nothing(base, tmp_path):
    texts = planted_texts(seed=0, n_ladders=15, shuffle=True)
    found = in_order(space(train(recipe_for(base), texts, tmp_path)), HELD_OUT)
    assert 0.35 < np.mean(list(found.values())) < 0.65, found


def test_the_base_itself_is_not_trained(base, trained):
    plain = dict(untrained(base).named_parameters())
    for name, parameter in trained.named_parameters():
        assert parameter.requires_grad != torch.equal(parameter, plain[name]), name
    assert not trained.training


def test_the_same_seed_gives_the_same_weights_and_another_others(base, short, tmp_path):
    texts = planted_texts(seed=0, n_ladders=5)
    torch.manual_seed(99)  # what was drawn before does not count
    again = weights(train(recipe_for(base, **SHORT), texts, tmp_path / "again"))
    assert largest_difference(short, again) == 0
    other = weights(train(recipe_for(base, **SHORT, seed=1), texts, tmp_path / "other"))
    assert largest_difference(short, other) > 0.01


def cut_off(monkeypatch, after):
    """The next training stops in step `after` + 1."""
    calls, forward = [], SpaceLoss.forward

    def failing(self, features, labels):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return forward(self, features, labels)

    monkeypatch.setattr(SpaceLoss, "forward", failing)


def test_a_training_that_was_cut_off_goes_on_where_it_was(base, short, tmp_path, monkeypatch):
    texts = planted_texts(seed=0, n_ladders=5)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_off(patch, after=7)  # in the second epoch
        train(recipe_for(base, **SHORT), texts, tmp_path, checkpoint_every=3)
    seen, forward = [], SpaceLoss.forward
    monkeypatch.setattr(
        SpaceLoss, "forward", lambda *args: seen.append(args[2].tolist()) or forward(*args)
    )
    resumed = weights(train(recipe_for(base, **SHORT), texts, tmp_path, resume=True))
    assert len(seen) == N_SHORT - 6
    assert largest_difference(short, resumed) < 1e-5


@pytest.mark.slow
def test_a_second_stage_that_was_cut_off_goes_on_where_it_was(base, tmp_path, monkeypatch):
    both = recipe_for(base, epochs=(0.3, 0.4))  # parts of an epoch
    texts = join([planted_texts(seed=0, n_ladders=8), concepts()])
    through = weights(train(both, texts, tmp_path / "through"))
    steps = [len(list((tmp_path / "through" / f"stage-{s}").glob("checkpoint-*"))) for s in (1, 2)]
    assert steps == [1, 1]
    n_first = max(1, round(0.3 * len(batches_of(both, texts, 1))))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_off(patch, after=n_first + 3)
        train(both, texts, tmp_path / "cut", checkpoint_every=2)
    resumed = weights(train(both, texts, tmp_path / "cut", resume=True))
    assert largest_difference(through, resumed) < 1e-5


@pytest.mark.slow
def test_resuming_where_nothing_is_starts_and_starting_anew_forgets(
    base, short, tmp_path, monkeypatch
):
    texts = planted_texts(seed=0, n_ladders=5)
    stale = tmp_path / "stage-2" / "checkpoint-9"
    stale.mkdir(parents=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_off(patch, after=5)
        train(recipe_for(base, **SHORT, seed=1), texts, tmp_path, checkpoint_every=3)
    assert not stale.exists()
    anew = weights(train(recipe_for(base, **SHORT), texts, tmp_path))
    fresh = weights(train(recipe_for(base, **SHORT), texts, tmp_path / "new", resume=True))
    assert largest_difference(short, anew) == largest_difference(short, fresh) == 0


def test_every_epoch_deals_all_texts_in_other_batches(base, tmp_path, monkeypatch):
    texts, seen, forward = planted_texts(seed=0, n_ladders=5), [], SpaceLoss.forward
    monkeypatch.setattr(
        SpaceLoss, "forward", lambda *args: seen.append(args[2].tolist()) or forward(*args)
    )
    train(recipe_for(base, epochs=(2.0, 0.0)), texts, tmp_path)
    assert len(seen) == 10
    for epoch in (seen[:5], seen[5:]):
        assert {row for batch in epoch for row in batch} == set(range(len(texts)))
    assert {frozenset(b) for b in seen[:5]} != {frozenset(b) for b in seen[5:]}


def concepts(n=6):
    """Anchors that join care and power in the words of care; each has a word of its own."""
    rng = np.random.default_rng(3)

    def said(word, rung):
        return tuple(
            stance_text(TOUCHED[0], rung, [word] * 3, rng) + f" {FILLERS[-k]}" for k in (1, 2, 3, 4)
        )

    return anchor_texts(
        [
            Anchor(
                f"concept-{i}",
                "planted",
                (("mft/care-harm", 1), ("svt/power", 1)),
                "planted",
                said(FILLERS[i], 2),
                said(FILLERS[i], -2),
            )
            for i in range(n)
        ]
    )


def batches_of(recipe, texts, stage):
    rng = np.random.default_rng(4)
    tree = unit_batches(texts, n_units=recipe.units[stage - 1], rng=rng)
    if stage == 1:
        return tree
    groups = (texts.instances.tolist(), texts.concepts.tolist())
    return with_pairs(tree, texts.labels, *groups, pairs=recipe.pairs, rng=rng)


def mean_losses(model, texts, recipe, stage, targets=None):
    pairs = recipe.pairs if stage == 2 else 0
    loss = SpaceLoss(model, texts, recipe, pairs=pairs, targets=targets)
    with torch.no_grad():
        found = [
            {k: float(v) for k, v in loss(*fed(model, texts, rows)).items()}
            for rows in batches_of(recipe, texts, stage)
        ]
    return {name: np.mean([f[name] for f in found if name in f]) for name in found[0]}


def fed(model, texts, rows):
    """A batch as the trainer hands it over."""
    return [dict(model.preprocess([texts.texts[row] for row in rows]))], torch.tensor(rows)


def test_the_second_stage_ties_instances_and_concepts_together(base, tmp_path):
    texts = join([planted_texts(seed=0, n_ladders=8), concepts()])
    recipe = recipe_for(base, epochs=(0.0, 2.0))
    before = mean_losses(untrained(base), texts, recipe, 2)
    after = mean_losses(train(recipe, texts, tmp_path), texts, recipe, 2)
    assert list(before) == ["hierarchical", "graded", "spread", "instances", "anchors"]
    assert after["instances"] < 0.8 * before["instances"], (before, after)
    assert after["anchors"] < 0.8 * before["anchors"], (before, after)


@pytest.mark.slow
def test_a_student_learns_the_scores_of_its_teacher(base, trained, tmp_path):
    save_encoder(trained, tmp_path / "teacher", base=base, card={})
    losses = {"graded_weight": 0.0, "tree_weight": 0.0, "teacher": str(tmp_path / "teacher")}
    recipe = recipe_for(base, **losses, epochs=(6.0, 0.0), seed=1)
    student = train(recipe, planted_texts(seed=1, n_ladders=15), tmp_path / "student")
    columns = [axes_of(trained).values.index(value) for value in VALUES]

    def alike(model):
        found, wanted = (space(m).scores(HELD_OUT.texts)[:, columns].T for m in (model, trained))
        return np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(found, wanted, strict=True)])

    before, after = alike(untrained(base, seed=1)), alike(student)
    assert after > 0.9 > before + 0.4, (before, after)


@pytest.mark.slow
def test_a_student_learns_from_its_teacher_alone(base, trained, tmp_path):
    """Distilled without a single label: shuffled grades do no harm."""
    save_encoder(trained, tmp_path / "teacher", base=base, card={})
    recipe = recipe_for(
        base,
        teacher=str(tmp_path / "teacher"),
        distil_epochs=15.0,
        tune_rate=1e-2,
        tune_epochs=0.0,
        hidden=8,
        epochs=(0.01, 0.0),
        seed=1,
    )
    student = train(recipe, planted_texts(seed=1, n_ladders=15, shuffle=True), tmp_path / "student")
    del student[-1]
    before, after = in_order(space(untrained(base)), HELD_OUT), in_order(space(student), HELD_OUT)
    assert np.mean(list(before.values())) < 0.65, before
    assert np.mean(list(after.values())) > 0.88, after


def test_a_teacher_of_other_values_is_refused(base, tmp_path):
    model = untrained(base)
    axes_of(model).values.reverse()
    save_encoder(model, tmp_path / "teacher", base=base, card={})
    with pytest.raises(InvalidInput, match="a teacher of other values than the student's"):
        train(recipe_for(base, teacher=str(tmp_path / "teacher")), HELD_OUT, tmp_path / "student")


HIDDEN = {
    "hidden": 32,
    "width": 16,
    "dropout": 0.1,
    "tune_epochs": 4.0,
    "tune_rate": 1e-2,
    "tune_units": 6,
    "epochs": (8.0, 2.0),
}


@pytest.fixture(scope="module")
def layered(base, tmp_path_factory):
    """An encoder with a hidden layer, and where it is saved."""
    folder = tmp_path_factory.mktemp("layered")
    texts = join([planted_texts(seed=0, n_ladders=15), concepts()])
    model = train(recipe_for(base, **HIDDEN), texts, folder / "work")
    save_encoder(model, folder / "space", base=base, card={})
    return model, folder / "space"


@pytest.mark.slow
def test_with_a_hidden_layer_the_planted_order_is_found_too(layered):
    after = in_order(space(layered[0]), HELD_OUT)
    assert np.mean(list(after.values())) > 0.9, after
    loaded = load_trained(layered[1])
    assert loaded.get_embedding_dimension() == 16
    rows, stances = space(loaded).embed(HELD_OUT.texts), HELD_OUT.labels.directions.numpy()
    told = np.flatnonzero(stances)
    cosines = (rows @ rows.T)[np.ix_(told, told)]
    sides = np.array([f"{v} {d}" for v, d in zip(HELD_OUT.labels.values, stances, strict=True)])
    same, upper = sides[told][:, None] == sides[told][None, :], np.triu_indices(len(told), 1)
    # Half of the texts tell their side by one word of seven.
    assert roc_auc_score(same[upper], cosines[upper]) > 0.75
    np.testing.assert_allclose(
        space(loaded).embed(HELD_OUT.texts), space(layered[0]).embed(HELD_OUT.texts), atol=0.02
    )


BRIEF = HIDDEN | {"tune_epochs": 1.5, "epochs": (2.0, 1.0)}


@pytest.fixture(scope="module")
def through(base, tmp_path_factory):
    """The weights of a training in three phases that was not cut off."""
    texts, folder = join([planted_texts(seed=0, n_ladders=5), concepts()]), tmp_path_factory
    return train(recipe_for(base, **BRIEF), texts, folder.mktemp("through")).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(("after", "phase"), [(4, "tune"), (15, "stage-1"), (30, "stage-2")])
def test_each_phase_can_be_cut_off(base, through, tmp_path, monkeypatch, after, phase):
    texts = join([planted_texts(seed=0, n_ladders=5), concepts()])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_off(patch, after=after)
        train(recipe_for(base, **BRIEF), texts, tmp_path, checkpoint_every=3)
    reached = [name for name in ("tune", "stage-1", "stage-2") if (tmp_path / name).exists()]
    assert reached[-1] == phase
    resumed = train(recipe_for(base, **BRIEF), texts, tmp_path, resume=True).state_dict()
    assert largest_difference(through, resumed) < 1e-4


@pytest.mark.slow
def test_a_start_gives_its_adapter_and_axes_and_not_its_space(base, layered, tmp_path):
    texts = join([planted_texts(seed=0, n_ladders=5), concepts()])
    recipe = recipe_for(base, **HIDDEN | {"start": str(layered[1]), "width": 8})
    model = train(recipe, texts, tmp_path / "work")
    assert not (tmp_path / "work" / "tune").exists()
    save_encoder(model, tmp_path / "space", base=base, card={})
    found = load_trained(tmp_path / "space")
    assert found.get_embedding_dimension() == 8
    assert torch.equal(axes_of(model).axes, axes_of(load_trained(layered[1])).axes)
    np.testing.assert_allclose(
        space(found).embed(HELD_OUT.texts), space(model).embed(HELD_OUT.texts), atol=0.02
    )


def touching(*, seed, n=60):
    """Texts for or against one of two values, or on neither; it is not said which way."""
    rng = np.random.default_rng(seed)
    texts, touches = [], []
    for number in range(n):
        topic = rng.choice(FILLERS, 3).tolist()
        value = (*TOUCHED, None)[number % 3]
        rung = 2 if number % 2 else -2
        texts.append(stance_text(value or TOUCHED[0], rung if value else 0, topic, rng))
        touches.append((value,) if value else ("svt/power",))
    labels = labels_for([own[0] for own in touches], [0] * n)
    asked = ((*TOUCHED, "svt/power"),) * n
    return TrainingTexts(
        tuple(texts), labels, (None,) * n, np.full(n, -1), tuple(touches), asked, ("touching",)
    )


def told_apart(model, texts, value):
    """Share of pairs where the text that touches the value is farther from 0 on its axis."""
    size = np.abs(space(model).scores(texts.texts)[:, space(model).values.index(value)])
    touched = np.array([value in own for own in texts.touches])
    return (size[touched][:, None] > size[~touched][None, :]).mean()


def test_texts_that_touch_a_value_train_the_size_of_its_score(base, tmp_path):
    texts = join([planted_texts(seed=0, values=VALUES[:3], n_ladders=4), touching(seed=0)])
    recipe = recipe_for(base, epochs=(12.0, 0.0))
    model, held_out = train(recipe, texts, tmp_path), touching(seed=5)
    before = np.mean([told_apart(untrained(base), held_out, value) for value in TOUCHED])
    after = np.mean([told_apart(model, held_out, value) for value in TOUCHED])
    assert after > 0.8 > before + 0.1, (before, after)


def test_batches_of_touching_texts_have_no_other_loss(base):
    texts, model = touching(seed=0), untrained(base)
    loss = SpaceLoss(model, texts, recipe_for(base, touch_weight=3.0))
    (three,), (one,) = (
        list(
            SpaceLoss(model, texts, recipe_for(base, touch_weight=w))(
                *fed(model, texts, [0, 1, 2])
            ).values()
        )
        for w in (3.0, 1.0)
    )
    assert list(loss(*fed(model, texts, [0, 1, 2]))) == ["touch"]
    assert float(three.detach()) == pytest.approx(3 * float(one.detach()))


def test_reading_in_groups_of_like_length_changes_no_loss(base, monkeypatch):
    texts = join([planted_texts(seed=0, n_ladders=4), concepts()])
    uneven = dataclasses.replace(
        texts, texts=tuple(" ".join([t] * (1 + i % 5)) for i, t in enumerate(texts.texts))
    )
    recipe, model = recipe_for(base, spread_weight=1.0), untrained(base)
    found = []
    for groups in (1, 2, 7):
        monkeypatch.setattr(module, "LENGTH_GROUPS", groups)
        targets = torch.zeros(len(uneven), len(axes_of(model).values))
        found.append(mean_losses(model, uneven, recipe, 2, targets))
    assert found[0].keys() == {
        "hierarchical",
        "graded",
        "spread",
        "instances",
        "anchors",
        "teacher",
    }
    assert all(loss > 0 for loss in found[0].values())
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)


def test_each_loss_has_its_weight(base):
    texts, model = join([planted_texts(seed=0, n_ladders=4), concepts()]), untrained(base)
    targets = torch.ones(len(texts), len(axes_of(model).values))
    plain = mean_losses(model, texts, recipe_for(base, spread_weight=1.0), 2, targets)
    weights = {"tree_weight": 2.0, "graded_weight": 3.0, "teacher_weight": 5.0}
    changed = recipe_for(base, spread_weight=7.0, **weights)
    ratios = {"hierarchical": 2, "graded": 3, "teacher": 5, "spread": 7}
    ratios |= {"instances": 1, "anchors": 1}
    for name, loss in mean_losses(model, texts, changed, 2, targets).items():
        assert loss == pytest.approx(ratios[name] * plain[name], rel=1e-5), name


@pytest.mark.slow
def test_half_precision_trains_and_gives_the_base_back_as_it_was(base, tmp_path):
    model = train(recipe_for(base, epochs=(0.3, 0.0), precision="bf16"), HELD_OUT, tmp_path)
    plain = dict(untrained(base).named_parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all()
        assert parameter.requires_grad or torch.equal(parameter, plain[name]), name
    assert not torch.equal(axes_of(model).axes, axes_of(untrained(base)).axes)


def process_state():
    return {
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "folder": os.getcwd(),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
    }


@pytest.mark.slow
def test_nothing_of_the_process_is_changed(base, tmp_path):
    before, here = process_state(), set(os.listdir())
    train(recipe_for(base, epochs=(0.1, 0.0)), HELD_OUT, tmp_path)
    after = process_state()
    assert [name for name in before if before[name] != after[name]] == []
    assert set(os.listdir()) == here
    # Type checks draw from Python's generator, but nobody seeds it. And the precision may change.
    states = []
    for seed, precision in ((1, "bf16"), (2, "fp32")):
        random.seed(seed)
        train(recipe_for(base, epochs=(0.1, 0.0), precision=precision), HELD_OUT, tmp_path)
        states.append(random.getstate())
    assert states[0] != states[1]


def test_planted_words_are_those_of_their_value_and_side():
    rng = np.random.default_rng(0)
    words = stance_text("svt/power", 2, ["word1"], rng).split()
    assert len(set(words) & set(FOR["svt/power"])) == 2
    assert not set(words) & set(AGAINST["svt/power"])
