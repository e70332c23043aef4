import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valueflow.judges import Unranked
from valueflow.judges.parsing import LONGEST, parse_ranking, parse_rating

planted = settings(max_examples=200, derandomize=True, deadline=None, database=None)
hostile = settings(planted, max_examples=1000)

FORMS = {
    "object": '{"ranking": [2, 3, 1]}',
    "fenced": '```json\n{\n  "ranking": [\n    2,\n    3,\n    1\n  ]\n}\n```',
    "prose around": 'Text 2 is for it, text 1 against. So:\n{"ranking": [2, 3, 1]}\nHope it helps!',
    "names": '{"ranking": ["Text 2", "Text 3", "[1]"]}',
    "list": "[2, 3, 1]",
    "list in prose": "I would say [2, 3, 1], clearly.",
    "signs": "2 > 3 > 1",
    "bracketed signs": "[2] > [3] > [1]",
    "named signs": "**Text 2** > Text 3 > text 1.",
    "arrows": "2 -> 3 -> 1",
    "numbered": "1. Text 2\n2. Text 3\n3. Text 1",
    "numbered prose": "So:\n\n1. **Text 2**: for it\n2. **Text 3**, so-so\n3. **Text 1** is not",
    "numbered brackets": "1) [2] - because 1 is less\n2) [3]\n3) [1]",
    "places": "1st: Text 2\n2nd: Text 3\n3rd: Text 1",
    "ranks": "Rank 1: 2\nRank 2: 3\nRank 3: 1",
    "bare lines": "2\n3\n1",
    "named lines": "- Text 2\n- Text 3\n- Text 1",
    "commas": "2, 3, 1",
    "headed": "The final ranking is: 2, 3, 1.",
    "thoughts": "<think>1 > 2 > 3? No.</think>\n2 > 3 > 1",
    "agreeing": '2 > 3 > 1, that is {"ranking": [2, 3, 1]}; also 2 > 1',
    "copied": "<text-0a1b2c 1>\n1 > 2 > 3\n</text-0a1b2c 1>\n2 > 3 > 1",
}

UNREADABLE = {
    "": "empty",
    " \n ": "empty",
    "I cannot rank these.": "no ranking",
    "1.\n2.\n3.": "no ranking",
    "1: 3\n2: 1\n3: 2": "no ranking",  # Place and text, or text and place?
    "Text 1: 3rd\nText 2: 1st\nText 3: 2nd": "no ranking",
    "1. 3.5 points\n2. 1.5 points": "no ranking",
    "2 > 3 > 1 or 1 > 2 > 3": "more than one",
    '{"ranking": [2, 3, 1], "ranking": [1, 2, 3]}': "more than one",
    "Text 1\nText 2\nText 3\nRanking: 2, 3, 1": "more than one",
    "1. Text 1\n2. Text 2\n3. Text 3\n\n1. Text 2\n2. Text 3\n3. Text 1": "more than one",
    "[2, 3, 1] though 1 > 2": "contradicts",
    '{"ranking": [2, 3, 1], "best": [1, 2]}': "contradicts",
    "[2, 3]": "2 of 3",
    '{"ranking": []}': "0 of 3",
    "[2, 3, 1, 1]": "twice",
    "1 > 2 > 1": "twice",
    "[2, 3, 1, 4]": "between 1 and 3",
    "[0, 1, 2]": "between 1 and 3",
    "[2, 3, 99999999999]": "not",
    "2 = 3 > 1": "not a list",
    "1 < 3 < 2": "not a list",
    '{"ranking": "2 3 1"}': "not a list",
    '{"ranking": [[2, 3], 1]}': "not a list",
    '{"ranking": [{"text": 2}, 3, 1]}': "not a list",
    '{"ranking": [2, 3, true]}': "not a list",
    '{"ranking": [2, 3, 1.5]}': "not a list",
    '{"ranking": [-2, 3, 1]}': "not",
    "1. Text 2\n3. Text 3\n2. Text 1": "not a list",
    "<think>2 > 3 > 1": "thought",
    '{"ranking": [2, 3, 1': "no ranking",
    "x" * (LONGEST + 1): "characters",
    '{"a":' * 3000: "not a list",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_models_write_is_read(form):
    assert parse_ranking(FORMS[form], 3) == (1, 2, 0)


@pytest.mark.parametrize("answer", UNREADABLE)
def test_what_has_no_one_meaning_is_unranked_with_the_reason(answer):
    found = parse_ranking(answer, 3)
    assert isinstance(found, Unranked)
    assert UNREADABLE[answer] in found.reason
    assert found.raw == answer


def written(order, form):
    """How a model may write an order of numbers from 1."""
    numbers = [str(number) for number in order]
    return {
        "object": '{"ranking": [' + ", ".join(numbers) + "]}",
        "list": "[" + ",".join(numbers) + "]",
        "signs": " > ".join(f"[{number}]" for number in numbers),
        "lines": "\n".join(f"{place}. Text {n}" for place, n in enumerate(numbers, start=1)),
    }[form]


@planted
@given(
    order=st.permutations(range(1, 9)).flatmap(
        lambda order: st.integers(2, 8).map(lambda n: [i for i in order if i <= n])
    ),
    form=st.sampled_from(["object", "list", "signs", "lines"]),
    before=st.sampled_from(["", "Sure!\n", "Text 1 is odd.\n", "<think>Hm: 2 > 1</think>"]),
    after=st.sampled_from(["", "\nThat is all.", "\n\n(10 years of practice)"]),
)
def test_a_planted_order_is_read_as_it_is(order, form, before, after):
    answer = before + written(order, form) + after
    assert parse_ranking(answer, len(order)) == tuple(number - 1 for number in order)


@planted
@given(
    order=st.permutations(range(1, 6)),
    form=st.sampled_from(["object", "list", "signs", "lines"]),
    fault=st.sampled_from(["missing", "twice", "beyond", "zero", "other order too"]),
    at=st.integers(0, 4),
)
def test_a_spoiled_order_is_never_mended(order, form, fault, at):
    spoiled = list(order)
    if fault == "missing":
        del spoiled[at]
    elif fault == "other order too":
        other = [*order[1:], order[0]]
        found = parse_ranking(f"{written(order, form)}\n\nor\n\n{written(other, form)}", 5)
        assert isinstance(found, Unranked)
        return
    else:
        spoiled[at] = {"twice": order[at - 1], "beyond": 6, "zero": 0}[fault]
    assert isinstance(parse_ranking(written(spoiled, form), 5), Unranked)


PIECES = st.one_of(
    st.sampled_from(
        [
            "1",
            "2",
            "3",
            "4",
            "0",
            "-1",
            "2.5",
            "１",
            "²",
            ">",
            "<",
            "=",
            ",",
            "->",
            "[",
            "]",
            "{",
            "}",
        ]
        + [
            '"ranking"',
            ":",
            '"',
            "\\",
            "```json",
            "Text",
            "text ",
            "#",
            "**",
            "rank 1:",
            "1st:",
            "\n",
        ]
        + ["1. ", "2) ", "- ", "<think>", "</think>", "<text-0a1b2c 1>", "</text-0a1b2c 1>", "null"]
        + [
            "rank me first",
            "NaN",
            "Infinity",
            "1e9",
            "9" * 5000,
            "\x00",
            "\ud800",
            "[" * 2000,
            " " * 999,
        ]
        + ['{"ranking": [1, 2, 3]}', '{"ranking": [3, 1, 2]}', "1 > 2 > 3", "3 > 2 > 1", "[2, 1]"]
    ),
    st.text(max_size=12),
)


@hostile
@given(answer=st.lists(PIECES, max_size=14).map("".join), n=st.integers(1, 6))
def test_hostile_answers_neither_crash_nor_make_up_an_order_or_rating(answer, n):
    rating = parse_rating(answer)
    assert isinstance(rating, Unranked) or -10 <= rating <= 10
    found = parse_ranking(answer, n)
    if isinstance(found, Unranked):
        assert found.reason
        return
    assert sorted(found) == list(range(n))
    # Whatever was read stands there, in that order.
    said = iter(re.findall("[0-9]+", answer))
    assert all(any(int(number) == i + 1 for number in said) for i in found)


@pytest.mark.parametrize(
    "answer",
    ["{" * LONGEST, '{"a":' * 60, "ranking" + " " * (LONGEST - 9) + "x", "> " * 9000, "1 > " * 4900]
    + ["1 " * 9000, "- " * 9000, "[" + "9" * 19000 + "]", "<think>" * 2800, "Text " * 3900]
    + ["-10 (" * 3900, "rating is " * 1900, "[" * LONGEST, "1. 2\n" * 3900, "\n" * LONGEST],
)
def test_no_answer_takes_long(answer):
    start = time.process_time()
    assert isinstance(parse_ranking(answer, 3), Unranked)
    parse_rating(answer)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("7", 7),
        ("+4", 4),
        ("-3.5", -3.5),
        ("\u22123", -3),
        ("-10", -10),
        ("10.0", 10),
        ('{"rating": -3}', -3),
        ('{"rating": "4"}', 4),
        ('{"rating": 0, "why": "2 of 3 sentences"}', 0),
        ("Rating: **-3**", -3),
        ("The rating is 3, as 2 of 4 say so.", 3),
        ("I'd give it a 7.", 7),
        ("On a scale from -10 (against) to 10, I rate it 7", 7),
        ("7, yes, 7", 7),
        ("<think>9? 3?</think>7", 7),
    ],
)
def test_ratings_are_read(answer, rating):
    assert parse_rating(answer) == rating


@pytest.mark.parametrize(
    "answer",
    ["", "neutral", "7/10", "7 out of 10", "Rating: 7/10", "7-8", "3,5", "between 2 and 3", "- 3"]
    + ["\u20133", "1e3", "5%", "11", "-10.01", "1" * 400, '{"rating": 11}', '{"rating": NaN}']
    + ['{"rating": 1e400}', '{"rating": true}', '{"rating": null}', '{"rating": [3]}', "<think>7"]
    + ['{"rating": 3} or rather rating: 4', '{"rating": "high"}', "-10 to 10"],
)
def test_what_is_no_rating_on_the_scale_is_unranked_and_never_clipped(answer):
    found = parse_rating(answer)
    assert isinstance(found, Unranked)
    assert found.reason and found.raw == answer
