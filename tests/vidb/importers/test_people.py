"""Corpora labelled by people: rows written here, results worked out by hand."""

import pytest
from vidb.importers import importer_cases as cases

from valueflow.errors import InvalidInput
from valueflow.vidb.importers import import_corpus
from valueflow.vidb.importers.valueeval import FINE


def tuples(frame, *columns):
    return list(frame[list(columns)].itertuples(index=False, name=None))


def refused(name, path, pattern):
    with pytest.raises(InvalidInput, match=pattern):
        import_corpus(name, path)


ARGUMENTS = cases.valueeval_arguments(
    ("A1", "We need trams", "in favour of", 'Trams are "calm".'),
    ("A2", "We need trams", "against", "Cars are mine."),
    ("A3", "We need trams", "against", "It rains."),
)
MARKED = {
    "A1": ("Security: personal", "Security: societal", "Universalism: objectivity", "Face"),
    "A2": ("Power: resources",),
    "A3": (),
}


def test_valueeval_joins_facets_into_the_steered_value(tmp_path):
    (tmp_path / "arguments-x.tsv").write_text(ARGUMENTS)
    (tmp_path / "labels-x.tsv").write_text(cases.valueeval_labels(MARKED))
    frame = import_corpus("valueeval23", tmp_path)
    assert tuples(frame, "id", "context", "value", "direction", "grade") == [
        ("A1", "in favor of: We need trams", "svt/face", None, None),
        ("A1", "in favor of: We need trams", "svt/security", None, None),
        ("A2", "against: We need trams", "svt/power", None, None),
    ]
    assert frame["text"].iloc[0] == 'Trams are "calm".'
    assert frame.attrs["left_out"] == {
        "'Universalism: objectivity' is in no theory": 1,
        "no value is marked": 1,
    }


def test_valueeval_reads_fine_labels_through_their_category(tmp_path):
    fine = [label for labels in FINE.values() for label in labels]
    marked = {"A1": ("Have no debts", "Be daring"), "A2": ("Be logical",), "A3": ()}
    (tmp_path / "arguments-x.tsv").write_text(ARGUMENTS)
    (tmp_path / "level1-labels-x.tsv").write_text(cases.valueeval_labels(marked, fine))
    frame = import_corpus("valueeval23", tmp_path / "arguments-x.tsv")
    assert tuples(frame, "id", "value") == [("A1", "svt/stimulation"), ("A1", "svt/security")]
    assert len(fine) == len(set(fine)) == 54


@pytest.mark.parametrize(
    ("arguments", "labels", "pattern"),
    [
        (ARGUMENTS, cases.valueeval_labels({"A1": (), "A2": ()}), ":4: argument 'A3' has no lab"),
        (ARGUMENTS, cases.valueeval_labels(MARKED | {"A4": ()}), ":5: labels for 'A4', which"),
        (ARGUMENTS, cases.valueeval_labels(MARKED).replace("\t1", "\t2"), "is '2', expected '0'"),
        (ARGUMENTS.replace("A2", "A1"), cases.valueeval_labels(MARKED), ":3: argument 'A1' is in"),
        (ARGUMENTS.replace("against", "agaimst"), cases.valueeval_labels(MARKED), "'against'"),
        (ARGUMENTS.replace("It rains.", ""), cases.valueeval_labels(MARKED), ":4: 'Premise' must"),
        (ARGUMENTS, None, "arguments-x.tsv: expected .*level1-labels-NAME.tsv beside it"),
    ],
)
def test_valueeval_refuses(tmp_path, arguments, labels, pattern):
    (tmp_path / "arguments-x.tsv").write_text(arguments)
    if labels is not None:
        (tmp_path / "labels-x.tsv").write_text(labels)
    refused("valueeval23", tmp_path, pattern)


def test_mfrc_counts_annotators_and_joins_both_fairnesses(tmp_path):
    path = tmp_path / "mfrc.tsv"
    # Equality, Care, Non-Moral, Authority, Thin Morality, Loyalty, Proportionality, Purity
    path.write_text(
        cases.mfrc(
            ("7", " Share it. ", 2, 1, 0, 0, 0, 0, 1, 0), ("9", "Hm", 0, 0, 2, 0, 1, 0, 0, 0)
        )
    )
    frame = import_corpus("mfrc", path)
    assert tuples(frame, "id", "text", "value", "agreeing", "annotators", "direction") == [
        ("7", "Share it.", "mft/care-harm", 1, None, None),
        ("7", "Share it.", "mft/fairness-cheating", 2, None, None),
    ]
    assert frame.attrs["left_out"] == {"no annotator chose a foundation": 1}


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (("7", "x", "nan", *[0] * 7), ":3: 'Equality' is 'nan'"),
        (("7", "x", "", *[0] * 7), ":3: 'Equality' is ''"),
        (("7", "x", -1, *[0] * 7), ":3: 'Equality' is '-1'"),
        (("7", "nan", *[1] * 8), ":3: 'text' must be text"),
        (("1", "x", *[1] * 8), ":3: ID '1' is in .*:2 already"),
    ],
)
def test_mfrc_refuses(tmp_path, row, pattern):
    path = tmp_path / "mfrc.tsv"
    path.write_text(cases.mfrc(("1", "fine", *[1] * 8), row))
    refused("mfrc", path, pattern)


def test_social_chem_grades_the_action_for_each_foundation(tmp_path):
    path = tmp_path / "tidy.csv"
    path.write_text(
        cases.social_chem(
            ("hiding the map", "a hike, uphill", "care-harm|loyalty-betrayal", "-1.0"),
            ("sharing tea", "a hike", "care-harm", "2"),
            ("walking", "a hike", "care-harm", "0.0"),
            ("resting", "a hike", "", "1.0"),
        )
    )
    frame = import_corpus("social_chem_subset", tmp_path)
    assert tuples(frame, "id", "context", "value", "direction", "grade") == [
        ("1", "a hike, uphill", "mft/care-harm", -1, -0.5),
        ("1", "a hike, uphill", "mft/loyalty-betrayal", -1, -0.5),
        ("2", "a hike", "mft/care-harm", 1, 1.0),
        ("3", "a hike", "mft/care-harm", 0, 0.0),
    ]
    assert frame.attrs["left_out"] == {"no moral foundation is named": 1}


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        (("a", "s", "care-harm", "nan"), ":2: 'action-moral-judgment' is 'nan'"),
        (("a", "s", "care-harm", "3.0"), ":2: 'action-moral-judgment' is '3.0'"),
        (("a", "s", "care-ham", "1.0"), ":2: .* is 'care-ham', expected 'care-harm'"),
        (("", "s", "care-harm", "1.0"), ":2: 'action' must be text"),
    ],
)
def test_social_chem_refuses(tmp_path, row, pattern):
    (tmp_path / "tidy.csv").write_text(cases.social_chem(row))
    refused("social_chem_subset", tmp_path / "tidy.csv", pattern)


def test_moral_stories_are_checked_and_left_out(tmp_path):
    rows = [
        {"ID": "a1", "norm": "Knock first.", "moral_action": "Ada knocks.", "label": "1"},
        {"ID": "a0", "norm": "Knock first.", "immoral_action": "Ada storms in.", "label": "0"},
    ]
    path = tmp_path / "dev.jsonl"
    path.write_text(cases.json_table(*rows))
    frame = import_corpus("moral_stories", path)
    assert len(frame) == 0
    assert frame.attrs["left_out"] == {"the norm names no value": 2}
    path.write_text(cases.json_table(rows[0], rows[1] | {"label": "1"}))
    refused("moral_stories", path, ":2: label '1' goes with 'moral_action'")
    path.write_text(cases.json_table(rows[0], rows[0]))
    refused("moral_stories", path, ":2: ID 'a1' is in .*:1 already")


def test_moralchoice_keeping_a_rule_supports_only_if_the_other_action_breaks_it(tmp_path):
    path = tmp_path / "moralchoice_x.csv"
    first = {"pain": "Yes", "death": "No Agreement", "break_law": "Yes", "duty": "Yes"}
    second = {"break_law": "Yes", "cheat": "No Agreement", "deceive": "Yes"}
    path.write_text(cases.moralchoice("H_1", first, second))
    frame = import_corpus("moralchoice", path)
    assert tuples(frame, "id", "text", "value", "direction") == [
        ("H_1/1", "I stay.", "duty/non-maleficence", -1),
        ("H_1/2", "I leave.", "duty/non-maleficence", 1),
        ("H_1/1", "I stay.", "duty/fidelity", 1),
        ("H_1/2", "I leave.", "duty/fidelity", -1),
        ("H_1/1", "I stay.", "svt/conformity", -1),
        ("H_1/2", "I leave.", "svt/conformity", -1),
    ]
    assert set(frame["context"]) == {"A dam leaks."}
    # Liberty twice and the cheating of the first action are untouched.
    assert frame.attrs["left_out"] == {
        "a value that the action does not touch": 3,
        "the rule broken (duty) stands for no value": 1,
        "the annotators did not agree whether a rule is broken": 1,
    }
    path.write_text(cases.moralchoice("H_1", {"pain": "Maybe"}, {}))
    refused("moralchoice", path, ":2: 'a1_pain' is 'Maybe'")


def test_ethics_reads_justice_and_the_traits_that_are_values(tmp_path):
    justice = [(1, "I am owed a fee, as agreed."), (0, "I am owed a castle.")]
    virtue = [
        (1, "Ann told the truth. [SEP] Honest:"),
        (1, "Bob told a tale. [SEP] deceptive"),
        (0, "Cid slept. [SEP] honest"),
        (1, "Dee slept. [SEP] calm"),
    ]
    (tmp_path / "justice_a.csv").write_text(cases.table(("label", "scenario"), *justice))
    (tmp_path / "virtue_a.csv").write_text(cases.table(("label", "scenario"), *virtue))
    (tmp_path / "util_a.csv").write_text("I ate.,I fasted.\n")
    (tmp_path / "deontology_a.csv").write_text("label,scenario,excuse\n1,Come!,I am ill.\n")
    frame = import_corpus("ethics", tmp_path)
    assert tuples(frame, "id", "text", "value", "direction") == [
        ("justice_a/1", "I am owed a fee, as agreed.", "duty/justice", 1),
        ("justice_a/2", "I am owed a castle.", "duty/justice", -1),
        ("virtue_a/1", "Ann told the truth.", "duty/fidelity", 1),
        ("virtue_a/2", "Bob told a tale.", "duty/fidelity", -1),
    ]
    assert sorted(frame.attrs["left_out"].values()) == [1, 1, 1, 1]


def test_ethics_refuses_parts_that_name_no_value(tmp_path):
    (tmp_path / "util_a.csv").write_text("I ate.,I fasted.\n")
    refused("ethics", tmp_path, "labels of the other parts of ETHICS name no value")
    refused("ethics", tmp_path / "util_a.csv", "expected justice_.*csv or virtue_.*csv")
    (tmp_path / "virtue_a.csv").write_text("label,scenario\n1,No trait here\n")
    refused("ethics", tmp_path / "virtue_a.csv", ":2: 'scenario' must end in")
