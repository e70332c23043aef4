import json

import pytest

VERBS = [
    "theories",
    "derive",
    "calibrate",
    "steer",
    "compare",
    "evaluate",
    "reliability",
    "profile",
    "demo",
    "models",
]


@pytest.mark.parametrize(
    "verb",
    [
        [],
        *([v] for v in VERBS),
        ["models", "list"],
        ["models", "fetch"],
        ["hives", "eval"],
        ["hives", "train"],
    ],
)
def test_help_shows_an_example_of_that_verb(run, verb):
    done = run(*verb, "--help")
    assert done.code == 0
    assert f"Example: {' '.join(['valueflow', *verb])}" in " ".join(done.out.split())


def test_help_lists_every_verb(run):
    shown = run("--help").out
    assert all(f" {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("arguments", [["nonsense"], ["derive"], ["theories", "--seed"]])
def test_wrong_usage_exits_with_2(run, arguments):
    done = run(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_models_list_as_json(run, tmp_path):
    file = tmp_path / "models.json"
    done = run("models", "list", "--json", file)
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == [line.split()[0] for line in done.out.splitlines()]
    assert all(row["download_bytes"] > 1e6 and row["fetched"] in (True, False) for row in rows)


def test_an_unwritable_json_file_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("theories", "--json", tmp_path / "file" / "x.json").refused("cannot be written")
    assert (tmp_path / "file").read_text() == ""


def test_a_demo_of_an_unknown_value_writes_nothing(run, tmp_path):
    done = run("demo", "--value", "powr", "--out", tmp_path / "demo")
    assert done.refused("powr", "svt/power")
    assert not (tmp_path / "demo").exists()


def test_a_demo_hands_on_what_was_asked_and_writes_the_results(run, tmp_path, monkeypatch):
    asked = {}

    def run_demo(value, out, *, model, seed, stage):
        stage("sweep")(5, 10)
        asked.update(value=value, out=out, model=model, seed=seed)
        return None, {"mae": float("nan"), "span": 2.5}

    monkeypatch.setattr("valueflow.study.runner.run_demo", run_demo)
    # What is printed of a loop is tested beside the report, where there is one.
    monkeypatch.setattr("valueflow.cli.demo._show", lambda loop, results: None)
    file, out = tmp_path / "results.json", tmp_path / "demo"
    options = ["--value", "hedonism", "--out", out, "--model", "tiny", "--seed", "3"]
    done = run("demo", *options, "--json", file)
    assert done.code == 0, done.err
    assert asked == {"value": "hedonism", "out": out, "model": "tiny", "seed": 3}
    assert "sweep 5/10" in done.err
    assert str(out / "report.html") in done.out
    assert json.loads(file.read_text()) == {"mae": None, "span": 2.5}
