import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from valueflow.errors import InvalidInput, UnknownName
from valueflow.hives.recipe import RECIPES, Recipe, find_recipe, load_recipe, recipe_of

SHIPPED = sorted(Path(str(RECIPES)).glob("*.yaml"))
DEFAULTS = Recipe().as_dict()


def of_kind(kind):
    return [name for name, default in DEFAULTS.items() if type(default) is kind]


WHOLE, REAL, PAIRS = of_kind(int), of_kind(float), of_kind(list)
NUMBERS = [*WHOLE, *REAL, *PAIRS]
OPTIONAL = {
    "start": "tuned",
    "teacher": "hives",
    "upper_blocks": 3,
    "hidden": 32,
    "floor": "coarser",
}
POSITIVE = ["max_tokens", "lora_rank", "per_value", "pairs", "temperature", "axes_rate", "width",
            "tune_units"]  # fmt: skip

OTHER = (
    {name: DEFAULTS[name] + 1 for name in WHOLE}
    | {name: DEFAULTS[name] / 3 + 1e-6 for name in REAL}
    | {"epochs": [0.25, 0.0], "learning_rates": [3e-5, 1e-7], "units": [3, 2]}
    | {"base": "all-MiniLM-L6-v2", "directed": "every", "precision": "fp32"}
    | {"lessons": False, "questions": False}
    | {"corpora": {"mfrc": "data/mfrc.csv", "valuebench": "data/valuebench"}}
    | OPTIONAL
)
"""Each setting another than its default."""


def write(folder, content):
    path = folder / "recipe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(settings):
    """The message about one wrong setting; it names the setting and the file."""
    (name,) = settings
    with pytest.raises(InvalidInput) as caught:
        recipe_of(settings, where="some.yaml")
    message = str(caught.value)
    assert message.startswith(f"some.yaml: {name} ")
    return message


def test_the_settings_above_leave_no_default():
    assert OTHER.keys() == DEFAULTS.keys()
    assert [name for name in OTHER if OTHER[name] == DEFAULTS[name]] == []


@pytest.mark.parametrize("settings", [DEFAULTS, OTHER], ids=["default", "other"])
def test_a_recipe_comes_back_from_a_dict_json_and_a_file(tmp_path, settings):
    recipe = recipe_of(settings)
    assert recipe.as_dict() == settings
    assert recipe_of(recipe.as_dict()) == recipe
    assert recipe_of(json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert load_recipe(write(tmp_path, yaml.safe_dump(recipe.as_dict()))) == recipe
    assert all(isinstance(getattr(recipe, name), tuple) for name in PAIRS)


def test_what_is_not_named_has_its_default(tmp_path):
    assert recipe_of({}) == Recipe()
    partly = load_recipe(write(tmp_path, "lora_rank: 4\nunits: [3, 2]\n"))
    assert partly == dataclasses.replace(Recipe(), lora_rank=4, units=(3, 2))


def test_changes_go_before_the_file_and_are_checked_alike(tmp_path):
    path = write(tmp_path, "seed: 3\npairs: 2\n")
    assert load_recipe(path, seed=4) == dataclasses.replace(Recipe(), seed=4, pairs=2)
    with pytest.raises(InvalidInput, match=r"recipe\.yaml: seed must be 0 or more, got -1"):
        load_recipe(path, seed=-1)
    with pytest.raises(UnknownName, match="did you mean seed"):
        load_recipe(path, sed=4)


def test_the_plain_settings_are_a_copy():
    recipe = recipe_of({"corpora": {"mfrc": "here"}})
    recipe.as_dict()["corpora"]["mfrc"] = "there"
    assert recipe.corpora == {"mfrc": "here"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_packaged_recipes_load_and_set_what_they_say(path):
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert said.items() <= load_recipe(path).as_dict().items()


def test_a_recipe_is_found_by_its_name_or_by_its_path(tmp_path):
    assert "hives" in [path.stem for path in SHIPPED]
    assert [find_recipe(path.stem) for path in SHIPPED] == SHIPPED
    own = write(tmp_path, "seed: 1\n")
    assert find_recipe(str(own)) == own
    for name in ("hivse", str(tmp_path)):
        with pytest.raises(UnknownName, match="unknown recipe .*hives"):
            find_recipe(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("learning_rate", "learning_rates"), ("Temperature", "temperature"), ("epoch", "epochs"),
     ("per-value", "per_value"), ("lora_rnak", "lora_rank")],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_a_near_miss(tmp_path, name, meant):
    with pytest.raises(UnknownName, match=f"setting '{name}'.*did you mean.*{meant}"):
        load_recipe(write(tmp_path, f"{name}: 1\n"))


def test_a_name_like_none_is_refused_with_all_there_are():
    with pytest.raises(UnknownName, match="'zzz': known: axes_rate, base, .*weight_decay"):
        recipe_of({"zzz": 1})


@pytest.mark.parametrize("name", OTHER)
def test_no_setting_takes_another_kind(name):
    wrong = [("of", "texts")] if name == "corpora" else {"of": 3}
    assert refused({name: wrong}).endswith(f"got {wrong!r}")


@pytest.mark.parametrize("name", [name for name in OTHER if name not in OPTIONAL])
def test_most_settings_may_not_be_none(name):
    refused({name: None})


@pytest.mark.parametrize("name", OPTIONAL)
def test_some_settings_may_be_none(name):
    alone = {"distil_epochs": 0.0} if name == "teacher" else {}
    assert getattr(recipe_of(OTHER | {name: None} | alone), name) is None


def test_distillation_wants_a_teacher():
    with pytest.raises(InvalidInput, match="distil_epochs without a teacher"):
        recipe_of({"distil_epochs": 2.0})


@pytest.mark.parametrize("name", [*NUMBERS, "upper_blocks", "hidden"])
def test_digits_in_quotes_are_no_number(name):
    refused({name: ["1", "1"] if name in PAIRS else "1"})


@pytest.mark.parametrize("name", NUMBERS)
def test_booleans_are_no_numbers(name):
    refused({name: [1, True] if name in PAIRS else True})


@pytest.mark.parametrize("name", [*WHOLE, "upper_blocks", "hidden"])
def test_parts_are_no_whole_numbers(name):
    refused({name: 2.5})


@pytest.mark.parametrize("number", [0, 1, "yes", "true"])
def test_numbers_and_words_are_no_booleans(number):
    refused({"lessons": number})


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("wrong", [[], [1], [1, 1, 1], 1, [1, None], [[1], 1]])
def test_a_pair_has_two_numbers(name, wrong):
    refused({name: wrong})


@pytest.mark.parametrize("wrong", [{"mfrc": 3}, {"mfrc": None}, {"mfrc": ["here"]}, "mfrc"])
def test_a_corpus_has_one_path(wrong):
    refused({"corpora": wrong})


@pytest.mark.parametrize("name", [*NUMBERS, "upper_blocks", "hidden"])
def test_negative_numbers_are_refused(name):
    least = -1 if name in (*WHOLE, "units", "upper_blocks", "hidden") else -0.001
    pairs = {"units": [8, -1], "epochs": [1.0, -0.001], "learning_rates": [1.0, -0.001]}
    assert refused({name: pairs.get(name, least)}).endswith(f"got {least}")


@pytest.mark.parametrize("name", [*WHOLE, *REAL, "hidden"])
def test_zero_is_refused_where_something_is_needed_and_there_alone(name):
    zero = 0.0 if name in REAL else 0
    if name in (*POSITIVE, "hidden"):
        assert "must be above 0" in refused({name: zero})
    else:
        assert getattr(recipe_of({name: zero}), name) == 0


@pytest.mark.parametrize("name", [*REAL, "epochs", "learning_rates"])
def test_what_is_not_a_number_is_refused(name):
    nan = float("nan")
    assert refused({name: [1.0, nan] if name in PAIRS else nan}).endswith("got nan")


def test_one_stage_may_be_left_out_but_not_both():
    assert recipe_of({"epochs": [0.0, 0.5]}).epochs == (0.0, 0.5)
    assert recipe_of({"epochs": [0.5, 0.0]}).epochs == (0.5, 0.0)
    with pytest.raises(InvalidInput, match=r"some\.yaml: both stages have 0 epochs"):
        recipe_of({"epochs": [0.0, 0.0]}, where="some.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected settings"),
        ("- seed: 1\n", "expected settings"),
        ("seed\n", "expected settings"),
        ("seed: [1\n", "cannot be read"),
        ("seed: *other\n", "cannot be read"),
        ("seed: \x01\n", "cannot be read"),
        ("seed: !!python/object:os.system x\n", "cannot be read"),
        (b"base: caf\xe9\n", "cannot be read"),
    ],
    ids=["empty", "list", "word", "bracket", "alias", "control", "object", "latin"],
)
def test_a_file_that_holds_no_settings_is_refused_by_its_name(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InvalidInput, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_cannot_be_opened_is_refused_by_its_name(tmp_path):
    for path in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(InvalidInput, match="cannot be read") as caught:
            load_recipe(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "choices"),
    [("floor", "finer, coarser, None"), ("directed", "every, last"), ("precision", "bf16, fp32")],
)
def test_a_choice_that_there_is_not_is_refused_with_those_that_there_are(name, choices):
    assert f"one of {choices}" in refused({name: "other"})


@pytest.mark.parametrize(
    ("name", "whole"), [("temperature", 1), ("weight_decay", 0), ("epochs", [2, 1])]
)
def test_whole_numbers_do_where_parts_are_allowed(name, whole):
    assert recipe_of({name: whole}).as_dict()[name] == whole


@pytest.mark.parametrize(
    "settings",
    [
        {"upper_blocks": True},
        {"hidden": True},
        {"units": [8.5, 4]},
        {"units": [0, 4]},
        {"corpora": {3: "here"}},
        {"weight_decay": float("inf")},
        {"epochs": [float("inf"), 1.0]},
    ],
    ids=str,
)
def test_what_no_training_could_use_is_refused(settings):
    refused(settings)


@pytest.mark.parametrize(
    "content",
    ["[" * 3000, "seed: 2001-99-99", "seed: 0x_", "seed: " + "9" * 5000],
    ids=["nested", "date", "no digits", "digits"],
)
def test_what_yaml_stumbles_over_is_refused(tmp_path, content):
    with pytest.raises(InvalidInput, match=r"recipe\.yaml: cannot be read"):
        load_recipe(write(tmp_path, content))


def test_a_name_that_is_no_text_is_refused(tmp_path):
    with pytest.raises((InvalidInput, UnknownName), match="3"):
        load_recipe(write(tmp_path, "3: 4\n"))
