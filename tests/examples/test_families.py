"""The example of families on a tiny random model of each, and its table."""

import importlib.util
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from planted_family import worded
from planted_loop import evaluator
from tiny import tiny_model, tiny_tokenizer

from valueflow.models import load

FOLDER = Path(__file__).parents[2] / "examples" / "families"


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


family, table = module("family"), module("table")

RUNGS = [(-8.0, "no no never in {}"), (0.0, "in {} there is rain"), (8.0, "yes ever in {}")]
PLACES = ["the office", "a hat shop", "one island", "the theatre"]


@pytest.fixture(scope="module")
def vidb():
    return worded(RUNGS, PLACES)


ARCHITECTURES = ["llama", "gpt2", "gpt_neox", "mistral", "phi", "olmo", "gemma3"]


@pytest.fixture(scope="module")
def rows(vidb):
    made = {}
    for number, arch in enumerate(ARCHITECTURES):
        chat = number % 2 == 0
        loaded = load((tiny_model(arch), tiny_tokenizer(chat=chat)))
        settings = family.Settings(
            template="chat" if chat else "plain",
            coefficient=4.0,
            prompts=2,
            tokens=6,
            ladders=3,
            layer="auto" if arch == "llama" else None,
        )
        made[arch] = family.steer_family(loaded, vidb, evaluator(), settings)
    return made


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_same_function_steers_every_family(rows, arch):
    row = rows[arch]
    assert row.family == ("gemma3_text" if arch == "gemma3" else arch)
    assert (row.dtype, row.layers, row.value) == ("float32", 4, "svt/power")
    assert 1 <= row.layer <= 3
    assert row.coefficients == (-4.0, 0.0, 4.0)
    # Steered, and in either direction.
    assert row.texts[0] != row.texts[1]
    assert row.damage[1] == 0 and min(row.damage[0], row.damage[2]) > 0.2
    assert row.format == ("chat" if ARCHITECTURES.index(arch) % 2 == 0 else "plain")


def test_the_table_has_a_line_for_each_and_shows_what_was_measured(rows):
    text = table.table([json.loads(json.dumps(asdict(row))) for row in rows.values()])
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len(ARCHITECTURES)
    row = rows["gpt2"]
    shown = [f"{x:+.2f}".replace("-", "−") for x in row.intensities]
    assert ", ".join(shown) in lines[1] and "| plain |" in lines[1]
    assert {line.count("|") for line in text.splitlines()[:2] + lines} == {12}


def test_a_text_that_was_not_ranked_has_no_number(rows):
    row = asdict(rows["gpt2"]) | {"intensities": [None, 0.5, None], "damage": [None, 0.0, 0.1]}
    assert "| –, +0.50, – |" in table.table([row])
    assert family._numbers([math.nan, 1.0]) == (None, 1.0)
    assert "not ranked" in family.show(family.Row(**row))


def test_the_table_takes_its_place_between_the_marks():
    page = f"before\n{table.START}old\n{table.END}after\n"
    once = table.replaced(page, "new")
    assert once == f"before\n{table.START}\nnew\n{table.END}after\n"
    assert table.replaced(once, "new") == once
    with pytest.raises(ValueError, match="expected the lines"):
        table.replaced("no marks", "new")


def test_the_page_of_the_project_has_the_marks():
    page = (FOLDER.parents[1] / "docs" / "families.md").read_text(encoding="utf-8")
    assert table.replaced(page, "new")


@pytest.mark.parametrize("name", ["gemma", "qwen"])
def test_scripts_of_one_family_are_choices_alone(name, monkeypatch):
    given = []
    monkeypatch.setattr(family, "main", lambda model, **options: given.append((model, options)))
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    exec(compile(source, name, "exec"), {"__name__": "__main__"})
    ((model, options),) = given
    assert model in {m.name for m in __import__("valueflow.models", fromlist=["x"]).list_packaged()}
    dtype = options.pop("dtype", "float32")
    assert dtype in ("float32", "bfloat16")
    family.Settings(**options)
