import re
from importlib.resources import files
from itertools import combinations, product

import pytest

from valueflow.dose.prompts import load_prompts
from valueflow.theories import steered_values

SUITES = ["calibration", "verification"]
SIZES = {"calibration": 64, "verification": 64, "search": 24}
# Words of the question's frame: two prompts that share these alone share no situation.
FRAME = """a about an and any are as at be because before but by could describe did do does few
for from go had has have her him his how i if in into is it its like make makes matters me more
most much my never not of on one only opinion or our out over sentences she should so some
someone story than that the their them then they thing things think this to until up us view was
we well were what when where which while who whom why will with would write you your"""


def suite(name):
    path = files("valueflow").joinpath("dose", "prompts", f"{name}.txt")
    return path.read_text(encoding="utf-8").splitlines()


def words(text):
    return set(re.findall(r"[a-z']+", text.lower()))


def overlap(pair):
    one, other = (words(prompt) - words(FRAME) for prompt in pair)
    return len(one & other) / min(len(one), len(other))


@pytest.mark.parametrize("name", SIZES)
def test_a_suite_is_messages_of_8_to_25_words_that_name_no_value(name):
    prompts = suite(name)
    assert prompts == load_prompts(name)
    assert len(prompts) == len(set(prompts)) == SIZES[name]
    assert all(8 <= len(prompt.split()) <= 25 for prompt in prompts)
    named = set().union(*(words(value.name) for value in steered_values()))
    assert [prompt for prompt in prompts if words(prompt) & named] == []


@pytest.mark.parametrize("pair", list(combinations(SIZES, 2)))
def test_no_situation_of_a_suite_returns_in_another(pair):
    nearest = max(product(*map(suite, pair)), key=overlap)
    assert overlap(nearest) < 0.5, nearest


def test_no_two_search_prompts_share_a_situation():
    nearest = max(combinations(suite("search"), 2), key=overlap)
    assert overlap(nearest) < 0.3, nearest


@pytest.mark.parametrize(
    "form", ["^Write ", "^Describe ", "^(Plan|Draw|Make|Outline) ", " should (I|we) "]
)
def test_both_suites_have_each_form_equally_often(form):
    counts = {name: sum(bool(re.search(form, prompt)) for prompt in suite(name)) for name in SUITES}
    assert counts["calibration"] == counts["verification"] > 0
