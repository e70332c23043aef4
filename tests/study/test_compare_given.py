"""What the model is given in a comparison, and what is left unmeasured: on few prompts, fast."""

import dataclasses

import pytest
from compared import summary
from planted_loop import loaded
from planted_ways import VALUE, VERIFIED_ON, World, card, exact
from tiny import tiny_tokenizer

from valueflow.cli.compare import _lines
from valueflow.dose.sweep import Decoding
from valueflow.models.chat import format_prompts
from valueflow.prompting.instruct import level_prompt
from valueflow.prompting.persona_texts import SPLIT
from valueflow.study.compare import _controls, compare_value
from valueflow.study.compare_page import HEAD, compare_page
from valueflow.study.compare_plot import compare_figure
from valueflow.study.compare_run import Comparison, write_comparison
from valueflow.study.compare_summary import summarise
from valueflow.study.instructions import Form, Instructor
from valueflow.study.ways import Choice, Plan, Setting
from valueflow.vidb import load_starter

PROMPTS = ["What now?", "Why so?"]
FORM = Form("levels", "person", "user")
CHAT = tiny_tokenizer(chat=True)


def instructor(template):
    return Instructor(CHAT, load_starter().of(VALUE, SPLIT), VALUE, 0, template)


def compared(monkeypatch, world, own=None, **changed):
    world.install(monkeypatch)
    options = {"prompts": VERIFIED_ON[:4], "forms": [FORM], "targets": (0.0,), "seed": 0}
    return compare_value(
        loaded(), own or card(world), exact(), load_starter(), **(options | changed)
    )


@pytest.mark.parametrize("template", ["auto", "chat", "plain"])
def test_no_instruction_is_the_prompt_in_the_format_of_the_decoding(template):
    given = instructor(template).given(None, 0, PROMPTS)
    assert given == format_prompts(CHAT, PROMPTS, template=template)
    plain = format_prompts(CHAT, PROMPTS, template="plain")
    assert (given == plain) == (template == "plain")


@pytest.mark.parametrize("place", ["system", "user"])
def test_in_the_plain_format_an_instruction_stands_above_the_question(place):
    words = level_prompt({VALUE: 2}, wording="person", place=place).text
    form, known = Form("levels", "person", place), instructor("plain")
    plain = format_prompts(CHAT, PROMPTS, template="plain")
    assert known.given(form, 2, PROMPTS) == [f"{words}\n\n{prompt}" for prompt in plain]
    for text, prompt in zip(known.given(form, 2, PROMPTS, placebo=True), plain, strict=True):
        assert text.endswith(f".\n\n{prompt}") and words not in text and "<|" not in text
    for kind in (Form("texts", "said", place), form):
        for text, prompt in zip(known.given(kind, 1, PROMPTS), plain, strict=True):
            assert text.endswith(f"\n\n{prompt}")


def test_every_cell_is_asked_in_the_format_that_the_card_was_made_with(monkeypatch):
    world = World(gains={"person:user": 1.0})
    own = dataclasses.replace(card(world), decoding=Decoding(template="plain"))
    made = compared(monkeypatch, world, own)
    unsteered = format_prompts(loaded().tokenizer, made.prompts, template="plain")
    verified = world.calls[-1]
    assert verified[0] == ({}, tuple(unsteered))
    told = [asked for call in world.calls[1:] for _, row in call for asked in row]
    assert all("Question: " in asked and "<|" not in asked for asked in told)
    moved = [row for cell, row in verified if cell and cell.get("value")]
    assert moved and any(list(row) == unsteered for row in moved)


def test_random_directions_without_a_dose_are_not_measured(monkeypatch, tmp_path):
    """A vector that moves nothing has no ends, and nothing is no measurement of 0."""
    world = World(gains={"person:user": 1.0}, dose=0.0, scatter=0.0)
    made = compared(monkeypatch, world)
    plan = made.plans["activation"]
    assert plan.low.setting.coefficient == plan.high.setting.coefficient == 0.0
    assert set(made.controls) == {"placebo levels"}
    found = summarise(made, seed=0)
    assert set(found.placebos) == {"placebo levels"}
    page = compare_page([found, summary("svt/face")], limit=made.limit)
    cells = [cell.strip() for cell in page.splitlines()[2].strip("|").split("|")]
    row = dict(zip(HEAD, cells, strict=True))
    assert row["random directions"] == "–" and row["words without values"] != "–"
    how = Comparison(prompts=made.prompts, calibration_prompts=())
    told = write_comparison(tmp_path, {made.value: found}, {}, how)
    assert set(told["values"][made.value]["placebos"]) == {"placebo levels"}
    assert len(compare_figure([found], limit=made.limit).axes) == 2
    (_, line) = _lines([found], told, tmp_path)[:2]
    assert line.startswith("  placebos: placebo levels ") and "random" not in line
    bare = dataclasses.replace(found, placebos={})
    assert _lines([bare], told, tmp_path)[1] == "  placebos: –"


@pytest.mark.parametrize(
    ("low", "high", "n"), [(0.0, 0.3, 2), (-0.3, 0.0, 2), (-0.3, 0.3, 2), (0.0, 0.0, 0)]
)
def test_a_random_direction_has_the_doses_of_the_vectors_ends(low, high, n):
    def end(c):
        return Choice(Setting("", 0, "value", c) if c else Setting(), c, 0.0)

    found = _controls({"activation": Plan(end(low), end(high), ())}, 2)
    assert list(found) == ["random 1", "random 2"][:n]
    for name, settings in found.items():
        assert [s.coefficient for s in settings] == [low, high]
        assert [s.vector for s in settings] == [name if c else "" for c in (low, high)]
