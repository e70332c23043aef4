import csv
import json

import pytest

from valueflow.evaluate import vidb_evaluator
from valueflow.typing import Item
from valueflow.vidb import load_starter

TEXTS = {"I seize it, all of it.": 5.0, 'So be it, "they" said,\nand left.': 0.5, "Yours.": -4.0}
OUTSIDE = {"beyond everything": 50.0, "below everything": -50.0}


@pytest.fixture
def judge(scripted):
    return scripted(lambda text: {**TEXTS, **OUTSIDE}[text])


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_the_evaluators_own(run, tmp_path, judge):
    texts = [*TEXTS, *OUTSIDE]
    given = [
        {"dataset": "ab"[i % 2], "query": "Who?" if i else "", "response": text, "id": str(i)}
        for i, text in enumerate(texts)
    ]
    file, out = write_csv(tmp_path / "in.csv", given), tmp_path / "out.csv"
    done = run("evaluate", file, "--value", "power", "--out", out, "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    oracle = vidb_evaluator(load_starter(), "svt/power", judge(), seed=0)
    expected = oracle.score([Item(row["response"], row["query"] or None) for row in given])
    rows = read_csv(out)
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    for row, score in zip(rows, expected, strict=True):
        assert row["power_status"] == score.status
        if score.status == "ok":
            assert float(row["power_score"]) == pytest.approx(score.estimate)
            assert float(row["power_stderr"]) == pytest.approx(score.stderr)
    known = [float(row["power_score"]) for row in rows[:3]]
    assert known == pytest.approx(list(TEXTS.values()), abs=2)
    assert [row["power_status"] for row in rows[3:]] == ["above_panel", "below_panel"]
    assert [row["power_score"] for row in rows[3:]] == ["", ""]
    summary = json.loads((tmp_path / "r.json").read_text())
    own = [expected[i].central for i in (1, 3)]
    assert summary["datasets"]["b"]["mean"] == pytest.approx(sum(own) / 2)
    assert summary["datasets"]["b"]["status"] == {"ok": 1, "above_panel": 1}


def test_jsonl_in_and_out_keeps_what_it_does_not_know(run, tmp_path, judge):
    file, out = tmp_path / "in.jsonl", tmp_path / "new" / "out.jsonl"
    rows = [
        {"response": text, "n": [i], "query": None} for i, text in enumerate([*TEXTS, *OUTSIDE])
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert run("evaluate", file, "--value", "svt/power", "--out", out).code == 0
    read = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [{k: v for k, v in row.items() if not k.startswith("power_")} for row in read] == rows
    assert read[3]["power_score"] is None
    assert abs(read[0]["power_score"] - 5) < 2


def test_paper_mode_and_windows_reach_the_evaluator(run, tmp_path, judge):
    file, out = write_csv(tmp_path / "in.csv", [{"response": "Yours."}]), tmp_path / "out.csv"
    options = ["--mode", "paper", "--windows", "3", "--seed", "7"]
    assert run("evaluate", file, "--value", "power", "--out", out, *options).code == 0
    oracle = vidb_evaluator(
        load_starter(), "power", judge(), mode="paper", n_windows=3, seed=7
    ).score([Item("Yours.")])
    assert float(read_csv(out)[0]["power_score"]) == pytest.approx(oracle[0].estimate)


def test_size_and_sampling_reach_the_evaluator(run, tmp_path, judge):
    file, out = write_csv(tmp_path / "in.csv", [{"response": "Yours."}]), tmp_path / "out.csv"
    options = ["--size", "4", "--sampling", "random", "--json", tmp_path / "r.json"]
    assert run("evaluate", file, "--value", "power", "--out", out, *options).code == 0
    oracle = vidb_evaluator(
        load_starter(), "power", judge(), window_size=4, sampling="random", seed=0
    )
    assert float(read_csv(out)[0]["power_score"]) == oracle.score([Item("Yours.")])[0].estimate
    told = json.loads((tmp_path / "r.json").read_text())
    assert (told["size"], told["sampling"], told["windows"]) == (4, "random", 8)


def test_kept_rankings_are_scored_again_without_a_judge(run, tmp_path, judge, monkeypatch):
    rows = [{"query": "Who?", "response": text} for text in [*TEXTS, *OUTSIDE]]
    file, kept = write_csv(tmp_path / "in.csv", rows), tmp_path / "kept.json"
    first, again, paper = (tmp_path / f"{n}.csv" for n in range(3))
    common = ["evaluate", file, "--value", "power"]
    assert run(*common, "--out", first, "--rankings", kept, "--windows", "3").code == 0

    def nobody(name):
        raise AssertionError(f"judge {name} was loaded")

    monkeypatch.setattr("valueflow.judges.base.get_judge", nobody)
    result = tmp_path / "r.json"
    done = run(*common, "--out", again, "--from-rankings", kept, "--json", result)
    assert done.code == 0, done.err
    assert again.read_bytes() == first.read_bytes()
    told = json.loads(result.read_text())
    assert (told["judge"], told["windows"]) == ("scripted", 3)
    options = ["--from-rankings", kept, "--mode", "paper"]
    assert run(*common, "--out", paper, *options).code == 0
    assert paper.read_bytes() != first.read_bytes()
    assert all(row["power_score"] for row in read_csv(paper))


def test_rankings_of_other_texts_or_another_value_are_refused(run, tmp_path, judge):
    file = write_csv(tmp_path / "in.csv", [{"response": "Yours."}])
    other = write_csv(tmp_path / "other.csv", [{"response": "Mine."}])
    kept, out = tmp_path / "kept.json", tmp_path / "out.csv"
    common = ["--out", out, "--mode", "paper"]
    assert run("evaluate", file, "--value", "power", "--rankings", kept, *common).code == 0
    out.unlink()
    options = ["--from-rankings", kept, *common]
    assert run("evaluate", other, "--value", "power", *options).refused("text 1", "rank")
    assert run("evaluate", file, "--value", "hedonism", *options).refused("svt/power")
    kept.write_text(kept.read_text()[:-20])
    assert run("evaluate", file, "--value", "power", *options).refused("kept.json")
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text,query\na,b\n", ["'response'", "text, query"]),
        ("response,query\na,b,c\n", ["line 2", "expected 2 fields", "got 3"]),
        ("response,query\na\n", ["line 2", "got 1"]),
        ('response\n"a"b\n', ["line 2", "not CSV"]),
        ('response\n"never closed\n', ["not CSV"]),
        ("response,response\na,b\n", ["occurs twice"]),
        ("response,power_score\na,1\n", ["power_score", "already"]),
        ("response\n", ["found none"]),
        ("", ["found none"]),
    ],
)
def test_a_malformed_csv_is_refused(run, tmp_path, judge, text, words):
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text(text, encoding="utf-8")
    assert run("evaluate", file, "--value", "power", "--out", out).refused("in.csv", *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"response": "a"}\n{"respons', ["line 2", "not JSON"]),
        ("[1]", ["line 1", "object"]),
        ('{"response": null}', ["line 1", "'response'"]),
        ('{"response": "a", "query": 3}', ["line 1", "'query'"]),
        ('{"response": "a"}\n{"answer": "b"}', ["line 2", "answer"]),
    ],
)
def test_a_malformed_jsonl_is_refused(run, tmp_path, judge, text, words):
    file = tmp_path / "in.jsonl"
    file.write_text(text, encoding="utf-8")
    done = run("evaluate", file, "--value", "power", "--out", tmp_path / "out.csv")
    assert done.refused("in.jsonl", *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--value": "powr"}, ["svt/power"]),
        ({"--value": "openness-to-change"}, ["unknown value of the database"]),
        ({"--judge": "hive"}, ["hives"]),
        ({"--out": "out.txt"}, [".csv or .jsonl"]),
        ({"--out": "in.csv/out.csv"}, ["no folder"]),
        ({"file": "none.csv"}, ["none.csv", "No such file"]),
        ({"file": "latin.csv"}, ["latin.csv", "UTF-8"]),
    ],
)
def test_other_bad_input_is_refused(run, tmp_path, monkeypatch, judge, change, words):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "in.csv", [{"response": "Yours."}])
    (tmp_path / "latin.csv").write_bytes("response\nétat\n".encode("latin-1"))
    before = sorted(tmp_path.iterdir())
    given = {"file": "in.csv", "--value": "power", "--out": "out.csv"} | change
    file = given.pop("file")
    assert run("evaluate", file, *(x for pair in given.items() for x in pair)).refused(*words)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failing_judge_leaves_the_old_file(run, tmp_path, scripted):
    scripted(lambda text: TEXTS[text])
    file = write_csv(tmp_path / "in.csv", [{"response": "Yours."}])
    before = file.read_bytes()
    monkey = write_csv(tmp_path / "bad.csv", [{"response": "Yours."}, {"response": "unheard of"}])
    with pytest.raises(KeyError):
        run("evaluate", monkey, "--value", "power", "--out", file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "in.csv"]
