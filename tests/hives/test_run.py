import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from planted import planted_base
from vidb.importers import importer_cases

from valueflow.errors import ArtifactError, InvalidInput
from valueflow.hives.build import KIND, axes_of, card_of, load_trained
from valueflow.hives.lessons import load_lessons
from valueflow.hives.questions import as_read, load_questions
from valueflow.hives.reading import ask_teacher
from valueflow.hives.recipe import Recipe, recipe_of
from valueflow.hives.run import train_and_save, training_texts
from valueflow.hives.train import SpaceLoss
from valueflow.theories import get_value
from valueflow.theories.anchors import load_anchors
from valueflow.vidb import Vidb, load_starter

VIDB = load_starter().of("power")

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return planted_base(tmp_path_factory.mktemp("base"), n_blocks=1)


CALM = "Q: in favor of: We need trams A: Trams are calm."
MINE = "Q: against: We need trams A: Cars are mine."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of two texts, one of them of two values."""
    folder = tmp_path_factory.mktemp("my-own-copy")
    arguments = importer_cases.valueeval_arguments(
        ("A1", "We need trams", "in favour of", "Trams are calm."),
        ("A2", "We need trams", "against", "Cars are mine."),
    )
    marked = {"A1": ("Security: personal", "Face"), "A2": ("Power: resources",)}
    (folder / "arguments-x.tsv").write_text(arguments)
    (folder / "labels-x.tsv").write_text(importer_cases.valueeval_labels(marked))
    return folder


def recipe_for(base, **changes):
    """Two steps."""
    settings = {
        "base": base,
        "max_tokens": 12,
        "lora_rank": 2,
        "lessons": False,
        "questions": False,
        "epochs": [0.0, 0.0],
    }
    steps = {"epochs": [2 / n_batches(), 0.0]}
    return recipe_of(
        settings | {"precision": "fp32", "learning_rates": [0.01, 0.01]} | steps | changes
    )


def n_batches():
    from valueflow.hives.units import unit_batches

    texts = training_texts(Recipe(lessons=False, questions=False), VIDB)
    return len(unit_batches(texts, n_units=8, rng=np.random.default_rng(0)))


@pytest.fixture(scope="module")
def done(base, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "space"
    recipe = recipe_for(base, corpora={"valueeval23": str(corpus)}, seed=3)
    return train_and_save(recipe, folder, vidb=VIDB), folder


def test_texts_are_those_that_the_recipe_names(base, corpus):
    n_anchors = sum(len(a.supports) + len(a.opposes) for a in load_anchors())
    n_judge = len(VIDB.of("power", "judge"))
    bare = training_texts(recipe_for(base), VIDB)
    assert len(bare) == n_judge + n_anchors
    assert not set(bare.texts) & set(VIDB.of("power", "test").frame["text"])
    more = training_texts(
        recipe_for(base, lessons=True, questions=True, corpora={"valueeval23": str(corpus)}), VIDB
    )
    n_answers = 2 * len(load_questions("train"))
    assert len(more) == len(bare) + 5 * len(load_lessons()) + n_answers + 2
    assert [len(s.sources) for s in (bare, more)] == [2, 5]
    kept = {as_read(*item) for pair in load_questions("kept")
            for item in (pair.supports, pair.opposes)}  # fmt: skip
    assert len(kept) == 2 * len(load_questions("kept")) and not kept & set(more.texts)
    assert set(more.texts[-2:]) == {CALM, MINE}


def test_texts_that_must_not_be_taught_are_left_out_of_corpora(base, corpus):
    recipe = recipe_for(base, corpora={"valueeval23": str(corpus)})
    found = training_texts(recipe, VIDB, without={"Cars are mine."})
    assert MINE not in found.texts and CALM in found.texts


def test_an_empty_database_is_not_the_starter(base):
    empty = Vidb(VIDB.frame.iloc[:0])
    texts = training_texts(recipe_for(base), empty)
    assert len(texts) == sum(len(a.supports) + len(a.opposes) for a in load_anchors())


def test_a_corpus_that_is_not_there_is_refused_before_training(base, tmp_path):
    recipe = recipe_for(base, corpora={"valueeval23": str(tmp_path / "nothing")})
    with pytest.raises(InvalidInput):
        train_and_save(recipe, tmp_path / "space", vidb=VIDB)
    assert list(tmp_path.iterdir()) == []


def test_the_card_says_what_went_in(base, corpus, done):
    card, folder = done
    assert card == card_of(folder)
    assert card["recipe"]["seed"] == 3 and card["recipe"]["corpora"] == ["valueeval23"]
    vidb, anchors, own = card["data"]
    assert VIDB.fingerprint() in vidb and "split judge" in vidb and vidb.endswith("CC BY 4.0")
    assert anchors.endswith("MIT")
    assert "2 texts" in own and own.endswith("CC BY-SA 4.0")
    recipe = recipe_for(base, corpora={"valueeval23": str(corpus)}, seed=3)
    assert card["texts"] == Counter(training_texts(recipe, VIDB).labels.values)
    assert list(card["texts"]) == sorted(card["texts"])
    assert all(get_value(value).id == value for value in card["texts"])


def test_the_card_has_no_path_of_a_corpus(corpus, done):
    _, folder = done
    written = (folder / f"{KIND}.json").read_text()
    assert str(corpus) not in written and corpus.name not in written
    assert str(folder) not in json.dumps(card_of(folder))


def test_what_is_written_can_be_loaded_and_the_checkpoints_are_gone(done):
    _, folder = done
    assert {f.name for f in folder.iterdir()} == {f"{KIND}.json", f"{KIND}.safetensors"}
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]
    assert len(axes_of(load_trained(folder)).values) == 32


def test_an_earlier_run_is_replaced_and_names_its_teacher_without_the_path(base, done, tmp_path):
    target = tmp_path / "space"
    train_and_save(recipe_for(base), target, vidb=VIDB)
    before = (target / f"{KIND}.safetensors").read_bytes()
    card = train_and_save(recipe_for(base, teacher=str(done[1]), seed=1), target, vidb=VIDB)
    assert (target / f"{KIND}.safetensors").read_bytes() != before
    assert card_of(target) == card and card["recipe"]["teacher"] == done[1].name
    assert str(done[1]) not in (target / f"{KIND}.json").read_text()


@pytest.mark.slow
def test_unlabelled_texts_are_distilled_and_on_the_card_but_not_those_held_out(
    base, done, tmp_path, monkeypatch
):
    asked = []

    def listening(name, texts, values, *, precision):
        asked.extend(texts)
        return ask_teacher(name, texts, values, precision=precision)

    monkeypatch.setattr("valueflow.hives.train.ask_teacher", listening)
    recipe = recipe_for(
        base, teacher=str(done[1]), distil_epochs=0.1, tune_epochs=0.0, hidden=8, epochs=[0.1, 0.0]
    )
    more = ["A text without any label.", "Another one of them.", "To be measured, not learned."]
    left_out = ["to be  measured, not LEARNED."]
    folder = tmp_path / "space"
    card = train_and_save(recipe, folder, vidb=VIDB, unlabelled=more, without=left_out)
    assert asked[-2:] == more[:2] and more[2] not in asked
    assert re.fullmatch(r"unlabelled: 2 texts, [0-9a-f]{16}", card["data"][-1])
    assert card_of(folder) == card


def test_unlabelled_texts_need_something_to_distil(base, tmp_path):
    with pytest.raises(InvalidInput, match="unlabelled texts are for distillation"):
        train_and_save(recipe_for(base), tmp_path / "space", vidb=VIDB, unlabelled=["A text."])


def test_a_failing_run_leaves_nothing_but_checkpoints_and_can_go_on(base, tmp_path, monkeypatch):
    folder, calls, forward = tmp_path / "space", [], SpaceLoss.forward

    def failing(self, features, labels):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return forward(self, features, labels)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(SpaceLoss, "forward", failing)
        train_and_save(recipe_for(base), folder, vidb=VIDB)
    assert [f.name for f in tmp_path.iterdir() if f.name != "space.checkpoints"] == []
    train_and_save(recipe_for(base), folder, vidb=VIDB, resume=True)
    assert [f.name for f in tmp_path.iterdir()] == ["space"]
    load_trained(folder)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_place_of_something_else_is_refused_before_training(base, tmp_path, monkeypatch, kind):
    mine = tmp_path / "space" / "notes.txt" if kind == "folder" else tmp_path / "space"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    monkeypatch.setattr(SpaceLoss, "forward", lambda *_: pytest.fail("trained"))
    with pytest.raises(ArtifactError):
        train_and_save(recipe_for(base), tmp_path / "space", vidb=VIDB)
    assert mine.read_text() == "mine"
    assert [f for f in Path(tmp_path).rglob("*") if f.is_file()] == [mine]
