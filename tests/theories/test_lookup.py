import os
import subprocess
import sys
from pathlib import Path

import pytest

import valueflow
from valueflow.errors import InvalidInput, UnknownName
from valueflow.theories import get_theory, get_value, steered_values, theories

STEERED = {
    "svt": [
        "self-direction",
        "stimulation",
        "hedonism",
        "achievement",
        "power",
        "face",
        "security",
        "tradition",
        "conformity",
        "humility",
        "benevolence",
        "universalism",
    ],
    "mft": [
        "care-harm",
        "fairness-cheating",
        "loyalty-betrayal",
        "authority-subversion",
        "sanctity-degradation",
        "liberty-oppression",
    ],
    "duty": [
        "fidelity",
        "reparation",
        "gratitude",
        "justice",
        "beneficence",
        "self-improvement",
        "non-maleficence",
    ],
    "right": [
        "civil",
        "political",
        "economic",
        "social",
        "cultural",
        "national-solidarity",
        "social-group-solidarity",
    ],
}


def test_the_32_steered_values_in_their_order():
    expected = [f"{theory}/{short}" for theory, shorts in STEERED.items() for short in shorts]
    assert [value.id for value in steered_values()] == expected
    counts = {theory.id: len(steered_values(theory.id)) for theory in theories()}
    assert counts == {"svt": 12, "mft": 6, "duty": 7, "right": 7}
    assert tuple(value.id for value in steered_values("pvq")) == get_theory("svt").circle


def test_every_name_of_every_node_leads_to_it():
    for theory in theories():
        for value in theory.values:
            for name in (value.id.partition("/")[2], value.name, *value.aliases):
                assert get_value(f"{theory.id}/{name}") is value
            assert get_value(value.id) is value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("power", "svt/power"),
        ("pvq/power", "svt/power"),
        (" PVQ/Self_Direction ", "svt/self-direction"),
        ("self direction", "svt/self-direction"),
        ("Self-direction: thought", "svt/self-direction-thought"),
        ("Benevolence\N{EN DASH}Caring", "svt/benevolence-caring"),
        ("care/harm", "mft/care-harm"),
        ("mft/care/harm", "mft/care-harm"),
        ("Care", "mft/care-harm"),
        ("loyalty", "mft/loyalty-betrayal"),
        ("purity", "mft/sanctity-degradation"),
        ("non maleficence", "duty/non-maleficence"),
        ("rights/civil", "right/civil"),
        ("national_solidarity_rights", "right/national-solidarity"),
        ("right to life", "right/life"),
    ],
)
def test_names_as_people_write_them(name, expected):
    assert get_value(name).id == expected


@pytest.mark.parametrize(
    ("name", "expected", "other"),
    [
        ("justice", "duty/justice", "mft/fairness-justice"),
        ("tradition", "svt/tradition", "mft/authority-tradition"),
    ],
)
def test_the_steered_value_is_meant_where_only_one_is_steered(name, expected, other):
    assert get_value(name).id == expected
    theory = other.split("/")[0]
    assert get_value(f"{theory}/{name}").id == other


def test_names_that_mean_several_values_are_refused():
    with pytest.raises(InvalidInput, match=r"'caring'.*svt/benevolence-caring, mft/care-caring"):
        get_value("caring")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("benevolance", "svt/benevolence"),
        ("svt/benevolance", "svt/benevolence"),
        ("hedonsim", "svt/hedonism"),
        ("mft/fairnes", "mft/fairness-cheating"),
        ("schwarz/power", "svt/power"),
    ],
)
def test_misspelt_names_get_near_misses(name, suggestion):
    with pytest.raises(UnknownName, match="did you mean") as caught:
        get_value(name)
    assert suggestion in str(caught.value)


@pytest.mark.parametrize("name", ["", "/", "svt/", "qqqqqq", "mft/power"])
def test_names_like_no_other_get_the_steered_values(name):
    with pytest.raises(UnknownName, match="steered values are [a-z]+/"):
        get_value(name)


def test_a_near_miss_stays_inside_the_theory_that_was_named():
    with pytest.raises(UnknownName) as caught:
        get_value("duty/benevolence")
    assert "duty/beneficence" in str(caught.value) and "svt/" not in str(caught.value)


def test_theories_by_name():
    assert [theory.id for theory in theories()] == ["svt", "mft", "duty", "right"]
    assert get_theory("PVQ") is get_theory("svt")
    with pytest.raises(UnknownName, match="did you mean right"):
        get_theory("rigth")


def test_looking_values_up_imports_no_heavy_library():
    script = (
        "import sys; from valueflow.theories import get_value; get_value('power');"
        "print(*{'torch', 'numpy', 'transformers', 'pandas'} & set(sys.modules))"
    )
    root = str(Path(valueflow.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
