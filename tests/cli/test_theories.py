import json

import pytest


def fields(shown):
    return {line[:11].strip(): line[12:] for line in shown.splitlines()}


def test_lists_the_theories(run):
    lines = run("theories").out.splitlines()
    assert [line.split()[0] for line in lines] == ["svt", "mft", "duty", "right"]
    assert "12 steered" in lines[0]


@pytest.mark.parametrize("name", ["svt", "Schwartz", "pvq"])
def test_the_tree_is_indented_by_depth(run, name):
    lines = run("theories", name).out.splitlines()
    depth = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines[4:]}
    assert depth["self-protection"] == 0
    assert depth["self-enhancement"] == 2
    assert depth["power"] == 4
    assert depth["power-dominance"] == 6
    assert "    power *" in lines


def test_a_node_with_two_parents_stands_below_both(run):
    lines = [line.strip() for line in run("theories", "svt").out.splitlines()]
    assert lines.count("hedonism *") == 2
    assert lines.count("power *") == 1


def test_a_value(run):
    shown = fields(run("theories", "power").out)
    assert shown["id"] == "svt/power"
    assert shown["parents"] == "svt/self-enhancement"
    assert shown["neighbours"] == "svt/achievement, svt/face"
    assert set(shown["opposites"].split(", ")) == {
        "svt/benevolence",
        "svt/humility",
        "svt/universalism",
    }
    assert "svt/hedonism" in shown["siblings"]
    assert all(shown[name] for name in ("definition", "supports", "opposes"))


def test_a_value_off_the_circle_has_no_neighbours(run):
    shown = fields(run("theories", "care/harm").out)
    assert shown["id"] == "mft/care-harm"
    assert "neighbours" not in shown


@pytest.mark.parametrize(
    ("name", "hint"),
    [("powr", "svt/power"), ("svt/pwer", "svt/power"), ("schwarz", "the theory schwartz")],
)
def test_near_misses(run, tmp_path, name, hint):
    file = tmp_path / "result.json"
    assert run("theories", name, "--json", file).refused(name, hint)
    assert not file.exists()


def test_json_says_what_is_shown(run, tmp_path):
    read = {}
    for name in ("svt", "power"):
        file = tmp_path / "deep" / f"{name}.json"
        assert run("theories", name, "--json", file).code == 0
        read[name] = json.loads(file.read_text(encoding="utf-8"))
    assert read["power"] in read["svt"]["values"]
    assert read["power"]["steered"] is True
    assert read["power"]["opposites"][0] in read["svt"]["circle"]
    assert len(read["svt"]["values"]) == read["svt"]["nodes"]
    file = tmp_path / "all.json"
    run("theories", "--json", file)
    assert [row["id"] for row in json.loads(file.read_text())] == ["svt", "mft", "duty", "right"]
