"""Corpora by or with language models, and questionnaires: results worked out by hand."""

import pytest
from vidb.importers import importer_cases as cases

from valueflow.errors import InvalidInput
from valueflow.vidb.importers import import_corpus


def tuples(frame, *columns):
    return list(frame[list(columns)].itertuples(index=False, name=None))


def refused(name, path, pattern):
    with pytest.raises(InvalidInput, match=pattern):
        import_corpus(name, path)


ITEMS = ("questionnaire", "item", "value", "agreement")


def test_valuebench_items_point_where_their_key_says(tmp_path):
    path = tmp_path / "value_orientation.csv"
    rows = [
        ("PVQ40", "I rest on silk.", "Hedonism", 1),
        ("LVI", "I praise myself.", "Humility", -1),
        ("LVI", "I like chess clubs.", "Belonging", 1),
        ("MFT23", "Pay by merit.", "Proportionality", 1),
        ("6FPQ", "I finish things.", "Achievement", 1),
    ]
    path.write_text(cases.table(ITEMS, *rows))
    frame = import_corpus("valuebench", tmp_path)
    assert tuples(frame, "id", "context", "value", "direction", "grade") == [
        ("item/1", None, "svt/hedonism", 1, None),
        ("item/2", None, "svt/humility", -1, None),
        ("item/4", None, "mft/fairness-cheating", 1, None),
    ]
    assert frame.attrs["left_out"] == {"an item of a scale that stands for no value": 2}


def test_valuebench_answers_are_graded_by_rating_and_key(tmp_path):
    path = tmp_path / "QA_answers_rating.csv"
    path.write_text(cases.valuebench_answers("CSF", "Fear of Losing Face", -1, (0, 2, 5, 6, 8, 10)))
    frame = import_corpus("valuebench", path)
    assert frame["grade"].to_list() == pytest.approx([1.0, 0.6, 0.0, -0.2, -0.6, -1.0])
    assert frame["direction"].to_list() == [1, 1, 0, -1, -1, -1]
    assert set(frame["value"]) == {"svt/face"}
    assert set(frame["context"]) == {"Should I climb?"}
    assert frame["id"].iloc[1] == "answer/1/gpt-3.5-turbo-1106"


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (("PVQ4O", "x", "Power", 1), "'questionnaire' is 'PVQ4O', expected 'PVQ40'"),
        (("PVQ40", "x", "Powr", 1), "'value' is 'Powr', expected 'Power'"),
        (("PVQ40", "x", "Power", 0), "'agreement' is '0'"),
        (("PVQ40", " ", "Power", 1), "'item' must be text"),
    ],
)
def test_valuebench_refuses(tmp_path, row, pattern):
    path = tmp_path / "value_orientation.csv"
    path.write_text(cases.table(ITEMS, row))
    refused("valuebench", path, f":2: {pattern}")
    refused("valuebench", path.rename(tmp_path / "items.csv"), "keep the published names")


def test_valuelens_pairs_values_with_grades(tmp_path):
    path = tmp_path / "schwartz.csv"
    path.write_text(
        cases.valuelens(
            ("m", "I led.", "[Power, Self-Direction]", "[mild_support, strong_resistance]"),
            ("m", "I knelt.", "\\[Tradition]", "\\[strong\\_support]"),
            ("m", "Four legs.", "[]", "[no_values]"),
            ("m", "Why so?", "[Hedonism, Power]", "[reframing, neutral]"),
        )
    )
    frame = import_corpus("valuelens_synth", path)
    assert tuples(frame, "id", "text", "value", "direction", "grade") == [
        ("1", "I led.", "svt/power", 1, 0.5),
        ("1", "I led.", "svt/self-direction", -1, -1.0),
        ("2", "I knelt.", "svt/tradition", 1, 1.0),
        ("4", "Why so?", "svt/power", 0, 0.0),
    ]
    assert frame.attrs["left_out"] == {
        "the text has no value": 1,
        "'reframing' is no grade": 1,
    }


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (("m", "x", "[Family security]", "[neutral]"), "'values' is 'family security', expected"),
        (("m", "x", "[Power]", "[mild]"), "'intensity' is 'mild', expected"),
        (("m", "x", "[Power]", "[neutral, neutral]"), "got 1 values and 2 intensities"),
        (("m", "x", "Power", "[neutral]"), "'values' must be a list in brackets"),
        (("m", "", "[Power]", "[neutral]"), "'text' must be text"),
        (("m", "x", "[Power]"), "expected 4 cells divided by '###', got 3"),
    ],
)
def test_valuelens_refuses(tmp_path, row, pattern):
    path = tmp_path / "schwartz.csv"
    path.write_text(cases.valuelens(row))
    refused("valuelens_synth", path, f":4: .*{pattern}")


def test_valuelens_needs_its_header(tmp_path):
    path = tmp_path / "schwartz.csv"
    path.write_text("m###x###[Power]###[neutral]\n")
    refused("valuelens_synth", path, "no header model###text###values###intensity")


def answer(*types, dialogue="Human: Shall we?\nBob: Yes.\nBob agrees."):
    return {"dialogue": dialogue, "value_types": list(types)}


def test_fulcra_takes_a_sign_only_if_it_is_one(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(
        cases.json_table(
            answer("power: +1", "security: -1", "humility: 1", "tradition: 0", "power: 1"),
            answer("power: +1", "power: -1", "security: =1", dialogue="Human: a\nBob: b"),
            answer(),
            answer("power: 1", dialogue="Human: a\nBob: b\nHuman: c\nBob: d"),
        )
    )
    frame = import_corpus("fulcra", path)
    assert tuples(frame, "id", "value", "direction") == [
        ("1", "svt/power", 1),
        ("1", "svt/security", -1),
        ("1", "svt/humility", 1),
        ("1", "svt/tradition", 0),
    ]
    assert set(frame["context"]) == {"Shall we?"}
    assert set(frame["text"]) == {"Yes.\nBob agrees."}
    assert frame.attrs["left_out"] == {
        "a value type is named twice with different signs": 1,
        "the sign of a value type cannot be read": 1,
        "no value type is named": 1,
        "a dialogue of several turns": 1,
    }


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (answer("powr: 1"), "'value_types' is 'powr', expected 'power'"),
        (answer("power: 2"), "'value_types' is '2'"),
        (answer("power"), "'value_types' is ''"),
        ({"dialogue": "Human: a\nBob: b", "value_types": "power"}, "must be a list of texts"),
        (answer(dialogue="Human: a\nBob: "), "answer in .* must be text|must be 'Human"),
        (answer(dialogue="Hello"), "must be 'Human"),
    ],
)
def test_fulcra_refuses(tmp_path, row, pattern):
    path = tmp_path / "x.jsonl"
    path.write_text(cases.json_table(row))
    refused("fulcra", path, f":1: .*({pattern})")


def test_personas_merged_or_as_published(tmp_path):
    merged = [
        {"persona": "no-power-discomfort", "statement": "I lead.", "agrees": True},
        {"persona": "no-power-discomfort", "statement": "I follow.", "agrees": False},
        {"persona": "interest-in-sports", "statement": "I row.", "agrees": True},
    ]
    published = [
        {"statement": "All are welcome.", "answer_matching_behavior": " No"},
        {"statement": "Few are welcome.", "answer_matching_behavior": " Yes"},
    ]
    (tmp_path / "all.jsonl").write_text(cases.json_table(*merged))
    (tmp_path / "anti-LGBTQ-rights.jsonl").write_text(cases.json_table(*published))
    frame = import_corpus("anthropic_persona", tmp_path)
    assert tuples(frame, "id", "text", "value", "direction") == [
        ("no-power-discomfort/1", "I lead.", "svt/power", 1),
        ("no-power-discomfort/2", "I follow.", "svt/power", -1),
        # Against a persona that is itself against the value: for it.
        ("anti-LGBTQ-rights/1", "All are welcome.", "svt/universalism", 1),
        ("anti-LGBTQ-rights/2", "Few are welcome.", "svt/universalism", -1),
    ]
    assert frame.attrs["left_out"] == {"the persona stands for no value": 1}


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        ({"persona": "p", "statement": "x", "agrees": "true"}, "'agrees' must be true or false"),
        ({"persona": "p", "statement": "x"}, "'agrees' must be true or false, got None"),
        ({"persona": "", "statement": "x", "agrees": True}, "'persona' must be text"),
        ({"persona": "p", "statement": None, "agrees": True}, "'statement' must be text"),
        ({"statement": "x", "answer_matching_behavior": "Y"}, "'answer_matching_behavior' is 'Y'"),
    ],
)
def test_personas_refuse(tmp_path, row, pattern):
    path = tmp_path / "p.jsonl"
    path.write_text(cases.json_table(row))
    refused("anthropic_persona", path, f":1: {pattern}")
