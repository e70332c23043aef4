"""Instructions in sweeps and calibrations: plain damage, levels for coefficients."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from oracles.steering import full_logits
from planted_loop import CALIBRATED_ON, DECODING, evaluator, loaded, vector

from valueflow.dose.arms import Arm
from valueflow.dose.calibrate import calibrate
from valueflow.dose.prompted import merged, prompt_arms
from valueflow.dose.steerer import load_card, save_card
from valueflow.dose.sweep import Decoding, sweep
from valueflow.errors import InvalidInput
from valueflow.models.chat import encode, format_prompts

PROMPTS = CALIBRATED_ON[:3]
SHORT = Decoding(max_new_tokens=8)


@functools.cache
def asked(instruction):
    return tuple(format_prompts(loaded().tokenizer, PROMPTS, system=instruction))


@functools.cache
def grid():
    cells = [{}, {}, {"v": 0.4}, {"v": 0.4}]
    plain = tuple(format_prompts(loaded().tokenizer, PROMPTS))
    given = [plain, asked("Be brief."), plain, asked("Be brief.")]
    return sweep(loaded(), {"v": vector()}, cells, PROMPTS, asked=given, decoding=SHORT)


def test_rows_of_one_call_carry_instructions_and_coefficients():
    alone = sweep(loaded(), {"v": vector()}, [{}, {"v": 0.4}], PROMPTS, decoding=SHORT)
    assert grid().texts[0] == alone.texts[0] and grid().texts[2] == alone.texts[1]
    np.testing.assert_allclose(grid().nll[[0, 2]], alone.nll, atol=1e-4)
    assert len({grid().texts[i] for i in range(4)}) == 4
    # An instruction alone is what the model says to that text.
    tokenizer = loaded().tokenizer
    for p, text in enumerate(asked("Be brief.")):
        encoded = encode(tokenizer, [text])
        new = loaded().model.generate(
            **encoded, do_sample=False, max_new_tokens=8, repetition_penalty=1.1
        )[0, encoded["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True).strip() == grid().texts[1][p]


def test_damage_is_counted_after_the_plain_prompt():
    """The oracle scores the answer to the instruction as if the plain prompt had been asked."""
    tokenizer, model = loaded().tokenizer, loaded().model
    plain = format_prompts(tokenizer, PROMPTS)
    for p in range(len(PROMPTS)):
        given = encode(tokenizer, [asked("Be brief.")[p]])
        new = model.generate(**given, do_sample=False, max_new_tokens=8, repetition_penalty=1.1)[
            0, given["input_ids"].shape[1] :
        ]
        losses = {}
        for name, text in (("plain", plain[p]), ("instructed", asked("Be brief.")[p])):
            prompt = encode(tokenizer, [text])["input_ids"][0]
            whole = torch.cat([prompt, new])[None]
            logp = full_logits(model, whole, torch.ones_like(whole)).log_softmax(-1)[0]
            own = [-logp[t - 1, whole[0, t]] for t in range(len(prompt), whole.shape[1])]
            losses[name] = float(torch.stack(own).mean())
        assert grid().nll[1, p] == pytest.approx(losses["plain"], abs=1e-4)
        assert abs(losses["plain"] - losses["instructed"]) > 1e-3


@pytest.mark.parametrize("rows", [[["a", "b", "c"]], [["a", "b"], ["a", "b"]]])
def test_a_text_per_cell_and_prompt_is_needed(rows):
    with pytest.raises(InvalidInput, match="expected 3 texts for each of 2 cells"):
        sweep(loaded(), {}, [{}, {}], PROMPTS, asked=rows, decoding=SHORT)


def test_calibrations_carry_instructions_if_asked(tmp_path):
    given = {"rude": {-2: asked("Be rude."), 1: asked("Be kind.")}, "odd": {2: asked("Be odd.")}}
    made = calibrate(
        loaded(),
        vector(),
        evaluator(),
        prompts=PROMPTS,
        asked=given,
        coefficients=(-0.4, -0.2, 0.0, 0.2),
        decoding=SHORT,
        damage_limit=50.0,
        seed=0,
    )
    assert set(made.prompted) == {"rude", "odd"}
    arm = made.prompted["rude"]
    assert arm.coefficients == (-2.0, 0.0, 1.0) and made.prompted["odd"].coefficients == (0.0, 2.0)
    zero = made.arm.coefficients.index(0.0)
    assert arm.texts[1] == made.arm.texts[zero]
    np.testing.assert_array_equal(arm.damage[1], np.zeros(3))
    alone = sweep(loaded(), {}, [{}], PROMPTS, asked=[asked("Be rude.")], decoding=SHORT)
    assert arm.texts[0] == alone.texts[0]
    named = dataclasses.replace(made, vector=dataclasses.replace(made.vector, value="svt/power"))
    save_card(named, tmp_path / "card")
    assert load_card(tmp_path / "card").curve.to_dict() == made.curve.to_dict()


def test_level_0_is_no_instruction():
    unsteered = sweep(loaded(), {}, [{}], PROMPTS, decoding=SHORT)
    with pytest.raises(InvalidInput, match="level 0 is no instruction"):
        prompt_arms(
            loaded(), {"a": {0: asked("x")}}, evaluator(), unsteered=unsteered, decoding=SHORT
        )
    assert prompt_arms(loaded(), {}, evaluator(), unsteered=unsteered, decoding=DECODING) == {}


def made_arm(levels, mark):
    n = len(levels)
    table = np.arange(n * 2, dtype=float).reshape(n, 2) + 100 * mark
    texts = tuple((f"{mark} {x}", "b") for x in levels)
    rest = tuple(float(10 * mark + i) for i in range(n))
    return Arm(tuple(levels), table, table + 0.5, rest, rest, rest, texts)


def test_merged_arms_keep_every_row_with_its_level():
    one, other = made_arm((-2.0, 0.0, 2.0), 1), made_arm((-1.0, 0.0, 1.0), 2)
    found = merged(one, other)
    assert found.coefficients == (-2.0, -1.0, 0.0, 1.0, 2.0)
    assert [t[0] for t in found.texts] == ["1 -2.0", "2 -1.0", "1 0.0", "2 1.0", "1 2.0"]
    assert found.intensities[:, 0].tolist() == [100, 200, 102, 204, 104]
    assert found.damage[:, 1].tolist() == [101.5, 201.5, 103.5, 205.5, 105.5]
    assert found.degenerate == found.outside == found.second == (10, 20, 11, 22, 12)
