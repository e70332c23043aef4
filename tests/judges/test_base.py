import importlib
import inspect

import pytest

from valueflow.errors import InvalidInput, UnknownName
from valueflow.hives.encoder import Encoder
from valueflow.judges import JUDGES, get_judge
from valueflow.judges.base import OPTIONS, parse_options
from valueflow.judges.causal_lm import load_causal_lm
from valueflow.judges.chat_client import ChatClient
from valueflow.judges.local_lm import load_local_judge
from valueflow.judges.openai_compatible import load_openai_judge


def test_unknown_judges_come_with_near_misses():
    with pytest.raises(UnknownName, match="unknown judge 'hive': did you mean hives"):
        get_judge("hive")
    with pytest.raises(UnknownName, match="known: hives, hives-small, local, openai, prototype"):
        get_judge("zzz")


@pytest.mark.parametrize("name", list(JUDGES))
def test_every_registered_judge_is_where_the_registry_says(name):
    module, _, attribute = JUDGES[name].partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_a_judge_is_built_with_the_options_given():
    encoder = Encoder(None, name="none")
    judge = get_judge("prototype", encoder=encoder)
    assert judge.name == "prototype" and judge.encoder is encoder


def test_options_of_a_command_line_have_the_kinds_that_judges_take():
    given = ["method=list", "max_new_tokens=64", "dtype=bfloat16"]
    found = parse_options("local:some/model:7b", given)
    assert found == {"method": "list", "max_new_tokens": 64, "dtype": "bfloat16"}
    found = parse_options("openai:gpt", ["base_url=http://h:1/v1?a=b", "timeout=2.5"])
    assert found == {"base_url": "http://h:1/v1?a=b", "timeout": 2.5}
    assert parse_options("hives", []) == {}


@pytest.mark.parametrize(
    ("judge", "option", "words"),
    [
        ("local:m", "methd=list", "did you mean method"),
        ("openai:m", "method=list", "known: base_url"),
        ("local:m", "batch_size=two", "batch_size: expected int, got 'two'"),
        ("local:m", "method", "expected an option as NAME=VALUE, got 'method'"),
        ("hives", "method=list", "judge 'hives' takes no options"),
    ],
)
def test_options_that_are_none_are_refused(judge, option, words):
    with pytest.raises((InvalidInput, UnknownName), match=words):
        parse_options(judge, [option])


@pytest.mark.parametrize("kind", list(OPTIONS))
def test_every_option_is_one_that_some_part_of_the_judge_takes(kind):
    """Those that a loader passes on are looked for where it passes them to."""
    takes = {"local": [load_local_judge, load_causal_lm], "openai": [load_openai_judge, ChatClient]}
    names = {name for each in takes[kind] for name in inspect.signature(each).parameters}
    names |= {"base_url"}  # of OpenAIJudge itself
    assert OPTIONS[kind].keys() <= names
