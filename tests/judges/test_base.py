import importlib

import pytest

from valueflow.errors import UnknownName
from valueflow.hives.encoder import Encoder
from valueflow.judges import JUDGES, get_judge


def test_unknown_judges_come_with_near_misses():
    with pytest.raises(UnknownName, match="unknown judge 'hive': did you mean hives"):
        get_judge("hive")
    with pytest.raises(UnknownName, match="known: hives, local, openai, prototype"):
        get_judge("zzz")


@pytest.mark.parametrize("name", list(JUDGES))
def test_every_registered_judge_is_where_the_registry_says(name):
    module, _, attribute = JUDGES[name].partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_a_judge_is_built_with_the_options_given():
    encoder = Encoder(None, name="none")
    judge = get_judge("prototype", encoder=encoder)
    assert judge.name == "prototype" and judge.encoder is encoder
