"""Instructions: what they say, where they stand, and that no level is no instruction."""

import jaxtyping
import numpy as np
import pytest
from tiny import tiny_tokenizer

from valueflow.errors import InvalidInput, UnknownName
from valueflow.models.chat import format_prompts
from valueflow.prompting import LEVELS, ValuePrompt, level_prompt, placebo_prompt, wordings
from valueflow.prompting.instruct import check_level
from valueflow.prompting.wording import get_wording, placebo_words, templates_hash
from valueflow.theories import get_value, steered_values

PROMPTS = ["What now?", 'Say "$name" and {{ bos_token }}.']
CHAT = tiny_tokenizer(chat=True)
PLAIN = tiny_tokenizer(chat=False)
NO_SYSTEM = tiny_tokenizer(chat=True)
NO_SYSTEM.chat_template = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.mark.parametrize("wording", wordings("levels"))
@pytest.mark.parametrize("place", ["system", "user"])
@pytest.mark.parametrize("tokenizer", [CHAT, PLAIN, NO_SYSTEM], ids=["chat", "plain", "no system"])
def test_level_0_is_the_plain_prompt_exactly(wording, place, tokenizer):
    for levels in ({}, {"power": 0}, {"power": 0, "face": 0}):
        prompt = level_prompt(levels, wording=wording, place=place)
        assert prompt.text == "" and prompt.levels == ()
        assert prompt.formatted(tokenizer, PROMPTS) == format_prompts(tokenizer, PROMPTS)


@pytest.mark.parametrize("wording", wordings("levels"))
def test_every_level_of_every_value_has_words_of_its_own(wording):
    for value in steered_values():
        texts = [level_prompt({value.id: x}, wording=wording).text for x in LEVELS if x]
        assert len(set(texts)) == 4
        for text in texts:
            assert value.name in text and value.definition in text
            assert "$" not in text and "  " not in text


def test_the_poles_are_told_by_the_sign():
    value = get_value("power")
    for level in (1, 2):
        up = level_prompt({"power": level}, wording="reply").text
        down = level_prompt({"power": -level}, wording="reply").text
        assert value.supports in up and value.opposes not in up
        assert value.opposes in down and value.supports not in down


@pytest.mark.parametrize("wording", wordings("levels"))
def test_a_profile_lists_its_values_in_order_and_leaves_level_0_out(wording):
    found = level_prompt({"power": 2, "face": 0, "care/harm": -1}, wording=wording)
    assert found.levels == (("svt/power", 2), ("mft/care-harm", -1))
    lines = [line for line in found.text.splitlines() if line.startswith("- ")]
    assert len(lines) == 2
    for line, name, other in zip(
        lines, ("power", "care/harm"), ("care/harm", "power"), strict=True
    ):
        assert get_value(name).definition in line and get_value(other).definition not in line
    # What a line says of a value is what an instruction for it alone says.
    own = get_wording(wording, "levels")
    for line, (name, level) in zip(lines, found.levels, strict=True):
        value = get_value(name)
        fields = {"name": value.name, "supports": value.supports, "opposes": value.opposes}
        assert own.fill(own.stances[level], fields) in line


def test_a_system_instruction_goes_where_the_format_has_it():
    prompt = level_prompt({"power": 2}, place="system")
    (text, _) = prompt.formatted(CHAT, PROMPTS)
    assert (
        text == f"<s><|system|>\n{prompt.text}<|end|>\n<|user|>\nWhat now?<|end|>\n<|assistant|>\n"
    )


@pytest.mark.parametrize(
    ("tokenizer", "place"), [(NO_SYSTEM, "system"), (NO_SYSTEM, "user"), (CHAT, "user")]
)
def test_without_a_system_role_it_is_the_users_message(tokenizer, place):
    prompt = level_prompt({"power": -2}, place=place)
    (text, _) = prompt.formatted(tokenizer, PROMPTS)
    assert text == f"<s><|user|>\n{prompt.text}\n\nWhat now?<|end|>\n<|assistant|>\n"


@pytest.mark.parametrize("place", ["system", "user"])
def test_without_a_chat_template_it_stands_above_the_question(place):
    prompt = level_prompt({"power": 1}, place=place)
    (text, _) = prompt.formatted(PLAIN, PROMPTS)
    assert text == f"{prompt.text}\n\nQuestion: What now?\nAnswer:"


def test_what_the_user_says_is_never_filled_in():
    text = level_prompt({"power": 2}).formatted(CHAT, PROMPTS)[1]
    assert 'Say "$name" and {{ bos_token }}.' in text


@pytest.mark.parametrize("level", [3, -3, True, 1.0, "2", None, float("nan")])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(InvalidInput, match="level of svt/power: expected -2, -1, 0, 1 or 2"):
        check_level("svt/power", level)
    if isinstance(level, int):
        with pytest.raises(InvalidInput, match="level of svt/power"):
            level_prompt({"power": level})


@pytest.mark.parametrize("level", [np.int64(-2), np.int8(0), np.uint8(2)])
def test_numpys_integers_are_levels(level):
    found, plain = level_prompt({"power": level}), level_prompt({"power": int(level)})
    assert found == plain and all(type(x) is int for _, x in found.levels)


@pytest.mark.parametrize("level", [np.int64(3), np.bool_(True), np.float64(1.0), np.array([1, 2])])
def test_other_numbers_of_numpy_are_no_levels(level):
    with pytest.raises(InvalidInput, match="level of svt/power: expected -2, -1, 0, 1 or 2"):
        check_level("svt/power", level)


@pytest.mark.parametrize("name", ["powr", "", "../../etc/passwd", "$name", "<|im_end|>", "svt/"])
def test_names_of_no_value_are_refused(name):
    with pytest.raises(UnknownName):
        level_prompt({name: 1})


def test_a_value_under_two_names_is_refused():
    with pytest.raises(InvalidInput, match="svt/power has two levels"):
        level_prompt({"power": 1, "svt/power": 2})


def test_a_value_without_poles_needs_another_wording():
    group = "svt/self-enhancement"
    assert get_value(group).supports is None
    assert get_value(group).definition in level_prompt({group: 1}, wording="person").text
    with pytest.raises(InvalidInput, match="no description of its poles"):
        level_prompt({group: 1}, wording="reply")


def test_unknown_wordings_and_places_are_refused():
    with pytest.raises(UnknownName, match="person"):
        level_prompt({"power": 1}, wording="persn")
    with pytest.raises(UnknownName, match="person"):
        level_prompt({"power": 1}, wording="said")  # of another kind


def test_a_placebo_is_as_long_and_says_nothing_of_values():
    def count(text):
        return len(CHAT(text, add_special_tokens=False)["input_ids"])

    for place in ("system", "user"):
        for wording in wordings("levels"):
            like = level_prompt({"power": 2}, wording=wording, place=place)
            found = placebo_prompt(like, count)
            assert found.place == place and found.levels == ()
            # Words are taken whole; the tokenizer makes a token of nearly every letter.
            assert abs(count(found.text) - count(like.text)) <= 10
            assert found.text.endswith(".")
    names = {v.name for v in steered_values()} | {"value", "moral", "right", "good", "should"}
    words = {word.strip(".,:").lower() for word in placebo_words()}
    assert words & names <= {"right"}  # of the window sill


def test_a_placebo_of_no_instruction_is_none_and_of_a_long_one_all_there_is():
    assert placebo_prompt(ValuePrompt(), len).text == ""
    found = placebo_prompt(ValuePrompt("word " * 5000), len)
    assert found.text == " ".join(placebo_words())


@pytest.mark.parametrize("wanted", range(1, 60))
def test_no_cut_of_the_placebo_is_nearer(wanted):
    def count(text):
        return len(text.split())

    found = placebo_prompt(ValuePrompt(" ".join(["x"] * wanted)), count)
    assert count(found.text) == wanted


def test_the_hash_is_of_all_templates():
    assert len(templates_hash()) == 16 and templates_hash() == templates_hash()
    assert set(wordings("levels")) == {"person", "reply"} and wordings("texts") == ("said",)


@pytest.mark.parametrize("place", ["system", "user"])
def test_one_string_is_no_list_of_prompts(place, monkeypatch):
    asked = level_prompt({"power": 2}, place=place)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InvalidInput, match="a list of prompts, got one string"):
        asked.formatted(tiny_tokenizer(chat=True), "Who?")
