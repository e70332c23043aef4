import pytest

from valueflow.errors import InvalidInput
from valueflow.theories.loader import parse_theory

GOOD = """
id: toy
name: A toy theory
source: Nobody (2000). Nothing.
circle: [sweet, sour]
values:
  - {id: taste, name: taste, definition: Any taste.}
  - id: sweet
    name: sweet
    definition: Like sugar.
    supports: The text asks for sugar.
    opposes: The text refuses sugar.
    parents: [taste]
    aliases: [sugary]
    steered: true
  - id: sour
    name: sour
    definition: Like lemon.
    supports: The text asks for lemon.
    opposes: The text refuses lemon.
    parents: [taste]
    steered: true
"""


def test_a_good_file_becomes_a_theory():
    theory = parse_theory(GOOD, file="toy.yaml")
    assert [value.id for value in theory.values] == ["toy/taste", "toy/sweet", "toy/sour"]
    assert theory.circle == ("toy/sweet", "toy/sour")
    sweet = theory.value("Sugary")
    assert (sweet.parents, sweet.steered, sweet.article) == (("toy/taste",), True, None)
    assert theory.source == "Nobody (2000). Nothing."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "parents: [taste]\n    aliases",
            "parents: [tast]\n    aliases",
            "toy/sweet.*unknown parent",
        ),
        ("parents: [taste]\n    aliases", "parents: [taste, taste]\n    aliases", "parent twice"),
        (
            "parents: [taste]\n    aliases",
            "parents: taste\n    aliases",
            "'sweet'.*'parents'.*list",
        ),
        ("definition: Any taste.}", "definition: Any., parents: [sour]}", "cycle.*toy/taste"),
        ("definition: Any taste.}", "definition: Any., parents: [taste]}", "cycle.*toy/taste"),
        ("id: sour", "id: sweet", "'toy/sweet' occurs twice"),
        ("aliases: [sugary]", "aliases: [Sour]", "toy/sour.*'sour' already stands for 'toy/sweet'"),
        ("aliases: [sugary]", "aliases: [7]", "'sweet'.*'aliases' to be text"),
        ("aliases: [sugary]", "alias: [sugary]", "'sweet'.*unknown key alias"),
        ("id: sour", "id: So ur", "kebab-case.*'So ur'"),
        ("    opposes: The text refuses lemon.\n", "", "'sour'.*'supports' and 'opposes'"),
        ("The text refuses lemon.", "''", "'sour'.*'opposes' to be text"),
        ("definition: Like lemon.", "", "'sour'.*missing definition"),
        (
            "definition: Any taste.}",
            "definition: Any., steered: 2}",
            "'taste'.*true or false, got 2",
        ),
        ("[sweet, sour]", "[sweet]", "circle.*toy/sour"),
        ("[sweet, sour]", "[sweet, sour, taste]", "circle.*toy/taste"),
        ("[sweet, sour]", "[sweet, sour, sweet]", "circle.*toy/sweet"),
        ("source: Nobody (2000). Nothing.", "", "missing source"),
        ("name: A toy theory", "name: [", "expected YAML"),
        ("- {id: taste, name: taste, definition: Any taste.}", "- taste", "mapping.*got 'taste'"),
    ],
)
def test_files_that_describe_no_theory_are_refused(old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(InvalidInput, match=f"toy.yaml.*{message}"):
        parse_theory(GOOD.replace(old, new), file="toy.yaml")


@pytest.mark.parametrize(
    "text", ["", "[]", "just words", "{id: toy, name: t, source: s, values: []}"]
)
def test_documents_of_another_shape_are_refused(text):
    with pytest.raises(InvalidInput, match="toy.yaml: expected"):
        parse_theory(text, file="toy.yaml")


def test_objects_in_yaml_are_not_built():
    with pytest.raises(InvalidInput, match="expected YAML"):
        parse_theory("id: !!python/object/apply:os.getcwd []", file="toy.yaml")


def test_two_parents_whose_ancestors_meet_are_no_cycle():
    nodes = [("a", ""), ("b", "a"), ("c", "a"), ("d", "b, c"), ("e", "d, b")]
    lines = [
        f"  - {{id: {node}, name: {node}, definition: Text., parents: [{parents}]}}"
        for node, parents in reversed(nodes)
    ]
    theory = parse_theory(
        "id: toy\nname: toy\nsource: none\nvalues:\n" + "\n".join(lines), file="toy.yaml"
    )
    # b is a parent of e and a grandparent too: it counts once, as the parent.
    assert theory.ancestors("e") == ("toy/d", "toy/b", "toy/c", "toy/a")
    assert theory.ancestors("d") == ("toy/b", "toy/c", "toy/a")
    assert theory.paths("d") == (("toy/a", "toy/b", "toy/d"), ("toy/a", "toy/c", "toy/d"))
