import csv
import json
import re
from collections import Counter

import numpy as np
import pytest
from planted_vidb import CARE, POWER, ladders_of, planted, read, write_folder

from valueflow.hives import encoder
from valueflow.judges.scripted import ScriptedJudge
from valueflow.vidb import build, load_vidb
from valueflow.vidb.importers import IMPORTERS
from valueflow.vidb.planning import connected_windows, read_plan, write_plan
from valueflow.vidb.quality import quality
from valueflow.vidb.schema import read_rankings
from valueflow.vidb.store import Vidb

LADDERS = [*ladders_of(CARE, 10), *ladders_of(POWER, 10)]
TRUTH = planted(LADDERS, seed=0, spread=0.3)
PLANNED = connected_windows(LADDERS, per_text=6, rng=np.random.default_rng(0))
RECORDS = read(PLANNED, TRUTH, seed=0)
VERBS = ("build", "windows", "rank", "check", "stats", "show", "export", "import")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "vidb", LADDERS, RECORDS)


@pytest.fixture
def judge(monkeypatch):
    """Every judge orders by rung."""
    made = ScriptedJudge(lambda item: float(item.text.rpartition(" ")[2]), seed=0)
    monkeypatch.setattr("valueflow.judges.base.get_judge", lambda name: made)
    return made


def everything(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_an_example(run, verb):
    done = run("vidb", verb, "--help")
    assert done.code == 0
    assert f"Example: valueflow vidb {verb}" in done.out
    assert verb in run("vidb", "--help").out


def test_build_writes_what_the_library_builds(run, folder, tmp_path):
    out, told = tmp_path / "new" / "vidb.parquet", tmp_path / "told.json"
    done = run("vidb", "build", folder, "--out", out, "--json", told)
    assert done.code == 0, done.err
    expected = Vidb(build(LADDERS, RECORDS)).fingerprint()
    assert load_vidb(out).fingerprint() == expected
    assert done.out.strip() == f"100 texts of 2 values, {expected}: {out}"
    assert json.loads(told.read_text()) == {
        "texts": 100,
        "values": [CARE, POWER],
        "fingerprint": expected,
    }
    first = out.read_bytes()
    assert run("vidb", "build", folder, "--out", out).code == 0
    assert out.read_bytes() == first


def test_windows_of_every_kind(run, folder, tmp_path):
    out = tmp_path / "new" / "plan.jsonl"
    done = run("vidb", "windows", folder, "--out", out)
    assert (done.code, done.out) == (0, f"{len(read_plan(out))} windows: {out}\n")
    missing = read_plan(out)
    done = run("vidb", "windows", folder, "--out", out, "--per-text", 7, "--value", "power")
    more = read_plan(out)
    assert missing == [] and {p.kind for p in more} == {"cross", "repeat"}
    assert {p.window.rpartition("/")[0] for p in more} == {POWER}
    for kind in ("random", "adaptive"):
        options = ("--kind", kind, "-n", 8, "--size", 4)
        assert run("vidb", "windows", folder, "--out", out, *options).code == 0
        planned = read_plan(out)
        assert len(planned) == 16 and {len(p.shown) for p in planned} == {4}
        assert not {p.window for p in planned} & {r.window for r in RECORDS}
        again = tmp_path / "again.jsonl"
        run("vidb", "windows", folder, "--out", again, *options, "--seed", 0)
        assert read_plan(again) == planned
        run("vidb", "windows", folder, "--out", again, *options, "--seed", 1)
        assert read_plan(again) != planned


def test_a_folder_of_ladders_goes_all_the_way(run, tmp_path, judge):
    folder = write_folder(tmp_path / "own", ladders_of(n=6))
    plan, out, told = (tmp_path / name for name in ("plan.jsonl", "a.jsonl", "told.json"))
    assert run("vidb", "windows", folder, "--out", plan, "--per-text", 2).code == 0
    n = len(read_plan(plan))
    done = run("vidb", "rank", folder, plan, "--out", out, "--json", told)
    assert done.code == 0, done.err
    assert done.out == f"{n} windows ranked, 0 known, 0 unranked: {out}\n"
    assert f"rank {n}/{n}" in done.err
    assert json.loads(told.read_text()) == {"ranked": n, "known": 0, "unranked": []}
    done = run("vidb", "rank", folder, plan, "--out", out)
    assert done.out == f"0 windows ranked, {n} known, 0 unranked: {out}\n"
    (folder / "rankings").mkdir()
    out.rename(folder / "rankings" / "a.jsonl")
    assert run("vidb", "build", folder, "--out", tmp_path / "own.parquet").code == 0
    frame = load_vidb(tmp_path / "own.parquet").frame
    assert frame.groupby("rung")["intensity"].mean().is_monotonic_increasing


def test_rank_goes_on_where_it_stopped_and_tells_what_is_unranked(
    run, folder, tmp_path, monkeypatch
):
    plan, out, told = tmp_path / "plan.jsonl", tmp_path / "a.jsonl", tmp_path / "told.json"
    write_plan(PLANNED[:20], plan)
    failing = ScriptedJudge(lambda item: 0.0, failure_rate=0.5, seed=3)
    monkeypatch.setattr("valueflow.judges.base.get_judge", lambda name: failing)
    done = run("vidb", "rank", folder, plan, "--out", out, "--json", told)
    unranked = json.loads(told.read_text())["unranked"]
    assert done.code == 0 and 3 < len(unranked) < 17
    told_lines = [line for line in done.err.splitlines() if line.startswith("unranked ")]
    assert told_lines == [f"unranked {w}: scripted failure" for w, _ in unranked[:5]]
    ranked = len(read_rankings(out))
    assert ranked == 20 - len(unranked)
    failing.failure_rate = 0.0
    done = run("vidb", "rank", folder, plan, "--out", out)
    assert done.out.startswith(f"{len(unranked)} windows ranked, {ranked} known, 0 unranked")
    assert {(r.window, r.kind) for r in read_rankings(out)} == {
        (p.window, p.kind) for p in PLANNED[:20]
    }


def test_check_prints_and_passes_what_is_good(run, folder, tmp_path, monkeypatch):
    told = tmp_path / "told.json"
    monkeypatch.setattr(encoder, "load_frozen_encoder", lambda: pytest.fail("encoder loaded"))
    done = run("vidb", "check", folder, "--no-duplicates", "--json", told)
    assert done.code == 0, done
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["value", CARE, POWER, "check"]
    assert lines[-1] == "check passed"
    result = json.loads(told.read_text())
    assert result["problems"] == []
    expected = quality(Vidb(build(LADDERS, RECORDS)), LADDERS, RECORDS)
    for row, own in zip(result["values"], expected, strict=True):
        assert row["retest"] == pytest.approx(own.retest) and row["near_duplicates"] is None
        assert row["held_out"] == own.held_out and row["shares"] == list(own.shares)
    assert f"{expected[0].retest:.1%}" in lines[1]


class FakeEncoder:
    """Takes all texts for one another."""

    def embed(self, texts):
        return np.ones((len(texts), 1), dtype=np.float32)


def test_check_fails_with_code_1_and_a_line_per_problem(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "load_frozen_encoder", FakeEncoder)
    done = run("vidb", "check", folder, "--value", "power", "--json", tmp_path / "told.json")
    assert done.code == 1
    assert done.out.splitlines()[-1] == "check failed"
    # 50 texts; pairs within the 10 ladders are none.
    n_pairs = 50 * 49 // 2 - 10 * 10
    (problem,) = json.loads((tmp_path / "told.json").read_text())["problems"]
    assert problem.startswith(f"{POWER}: {n_pairs} near-duplicates across ladders, e.g. ")
    assert problem in done.err.splitlines()


def test_what_check_cannot_tell_is_null_in_json(run, tmp_path):
    # Each text in one cross-ladder window: only ladder windows tie these to each other.
    ladders = ladders_of(n=10)
    planned = connected_windows(ladders, per_text=1, repeat_share=0.0, rng=np.random.default_rng(0))
    folder = write_folder(tmp_path / "vidb", ladders, read(planned, TRUTH, seed=0))
    done = run("vidb", "check", folder, "--no-duplicates", "--json", tmp_path / "told.json")
    assert done.code == 1
    assert f"{POWER}: cross-ladder windows alone do not tell the order of rungs" in done.err
    (row,) = json.loads((tmp_path / "told.json").read_text())["values"]
    assert row["held_out"] is None and row["retest"] is None and row["retest_pairs"] == 0


def test_stats_count(run, folder, tmp_path):
    done = run("vidb", "stats", folder, "--json", tmp_path / "told.json")
    assert done.code == 0
    care, power = json.loads((tmp_path / "told.json").read_text())
    assert (care["value"], power["value"]) == (CARE, POWER)
    assert power["ladders"] == 10 and power["registers"] == {"answer": 5, "post": 5}
    assert power["splits"] == Counter(ladder.split for ladder in LADDERS[10:])
    own = [r for r in RECORDS if r.window.startswith(POWER)]
    assert power["windows"] == {
        kind: sum(r.kind == kind for r in own) for kind in ("ladder", "cross", "repeat")
    }
    assert power["mean_words"] == 3.0
    line = done.out.splitlines()[1]
    assert line.startswith(f"{POWER}: 10 ladders; answer 5 post 5; ")
    assert f"ladder 10 repeat {power['windows']['repeat']}; 3 words a text" in line
    bare = write_folder(tmp_path / "bare", ladders_of(n=2))
    assert run("vidb", "stats", bare).out.startswith(f"{POWER}: 2 ladders")


def test_show_spans_the_scale(run, folder, tmp_path):
    done = run("vidb", "show", "power", folder, "-n", 5, "--json", tmp_path / "told.json")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "told.json").read_text())
    frame = Vidb(build(LADDERS, RECORDS)).of("power").frame
    intensities = [row["intensity"] for row in rows]
    assert intensities == sorted(intensities, reverse=True)
    assert intensities[0] == pytest.approx(frame["intensity"].max())
    assert intensities[-1] == pytest.approx(frame["intensity"].min())
    lines = done.out.splitlines()
    assert len(lines) == 5
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(f"{row['intensity']:+5.1f} ±{row['stderr']:.1f}  ")
        assert line.endswith(f"[{row['context']}] {row['text']}" if row["context"] else row["text"])


@pytest.mark.parametrize(("n", "shown"), [(1, 1), (50, 50), (400, 50)])
def test_show_repeats_no_text(run, folder, n, shown):
    lines = run("vidb", "show", "power", folder, "-n", n).out.splitlines()
    assert len(set(lines)) == len(lines) == shown


def test_show_and_export_of_one_value_mind_no_other(run, folder, tmp_path):
    unranked = ladders_of("svt/hedonism", 2)
    more = write_folder(tmp_path / "more", [*LADDERS, *unranked], RECORDS)
    assert run("vidb", "show", "power", more).code == 0
    out = tmp_path / "power.csv"
    assert run("vidb", "export", "power", more, "--out", out).code == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 51
    assert run("vidb", "show", "hedonism", more).refused("svt/hedonism: no rankings")


def test_the_starter_is_meant_where_no_folder_is_given(run, tmp_path):
    done = run("vidb", "show", "power", "-n", 3)
    assert done.code == 0 and len(done.out.splitlines()) == 3
    assert re.search(r"^svt/power: \d+ ladders", run("vidb", "stats", "--value", "power").out)


def test_export_writes_the_papers_table(run, folder, tmp_path):
    out = tmp_path / "new" / "power.csv"
    done = run("vidb", "export", "power", folder, "--out", out)
    assert (done.code, done.out) == (0, f"{out}\n")
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frame = Vidb(build(LADDERS, RECORDS)).of("power").frame
    assert {row["text"]: float(row["final_rating"]) for row in rows} == pytest.approx(
        dict(zip(frame["text"], frame["intensity"], strict=True)), abs=5e-5
    )


MFRC = (
    "ID\ttext\tEquality\tCare\tNon-Moral\tAuthority\tThin Morality\tLoyalty\t"
    "Proportionality\tPurity\n"
    "1\tThey nursed him.\t0\t3\t0\t0\t0\t0\t0\t0\n"
    "2\tIt rained.\t0\t0\t3\t0\t0\t0\t0\t0\n"
)


def test_import_reads_a_corpus_and_tells_what_it_leaves_out(run, tmp_path):
    source, out, told = (tmp_path / name for name in ("mfrc.tsv", "mfrc.csv", "told.json"))
    source.write_text(MFRC, encoding="utf-8")
    done = run("vidb", "import", "mfrc", source, "--out", out, "--json", told)
    assert done.code == 0, done.err
    with out.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["text"], row["value"]) == ("They nursed him.", CARE)
    result = json.loads(told.read_text())
    assert result["rows"] == 1 and sum(result["left_out"].values()) == 1
    assert done.out.startswith("1 rows of 1 values, 1 left out (")


def spoil(path, content=b'{"id": \n'):
    path.write_bytes(path.read_bytes() + content)


def test_bad_folders_are_refused_and_nothing_is_written(run, folder, tmp_path, judge):
    plan = tmp_path / "plan.jsonl"
    write_plan(PLANNED, plan)
    spoil(folder / "ladders" / "svt-power.jsonl")
    before, out = everything(tmp_path), tmp_path / "new" / "out"
    for verb in (
        ["build", folder, "--out", out],
        ["windows", folder, "--out", out],
        ["rank", folder, plan, "--out", out],
        ["check", folder, "--json", out],
        ["stats", folder, "--json", out],
        ["show", "power", folder, "--json", out],
        ["export", "power", folder, "--out", out],
    ):
        done = run("vidb", *verb)
        assert done.code == 2 and "Traceback" not in done.err, verb
        last = done.err.splitlines()[-1]
        assert last.startswith("valueflow: ") and "svt-power.jsonl:11: not JSON" in last, verb
        assert everything(tmp_path) == before and not out.parent.exists(), verb


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (["build", "none", "--out", "out"], ["none", "no ladders"]),
        (["build", "bare", "--out", "out"], ["no rankings"]),
        (["build", "vidb", "--out", "plan.jsonl/out"], ["no folder"]),
        (["windows", "none", "--out", "out"], ["no ladders"]),
        (
            ["windows", "vidb", "--value", "hedonism", "--out", "out"],
            ["no ladders of svt/hedonism"],
        ),
        (["windows", "vidb", "--value", "powr", "--out", "out"], ["svt/power"]),
        (["windows", "vidb", "--kind", "random", "--size", "11", "--out", "out"], ["11 ladders"]),
        (["windows", "bare", "--kind", "adaptive", "--out", "out"], ["no rankings"]),
        (["windows", "vidb", "--out", "plan.jsonl/out"], ["no folder"]),
        (["rank", "vidb", "none.jsonl", "--out", "out"], ["none.jsonl", "cannot be read"]),
        (["rank", "vidb", "bad.jsonl", "--out", "out"], ["bad.jsonl:1", "not JSON"]),
        (["rank", "vidb", "plan.jsonl", "--out", "out", "--judge", "hive"], ["hives"]),
        (["rank", "vidb", "plan.jsonl", "--out", "plan.jsonl/out"], ["no folder"]),
        (["check", "none"], ["no ladders"]),
        (["check", "bare"], ["no rankings"]),
        (["stats", "vidb", "--value", "powr"], ["svt/power"]),
        (["show", "powr", "vidb"], ["svt/power"]),
        (["show", "hedonism", "vidb"], ["no ladders of svt/hedonism"]),
        (["export", "powr", "--out", "out"], ["svt/power"]),
        (["export", "power", "vidb", "--out", "plan.jsonl/out"], ["no folder"]),
        (["import", "mfcr", "plan.jsonl", "--out", "out"], ["mfrc"]),
        (["import", "mfrc", "none.tsv", "--out", "out"], ["none.tsv"]),
        (["import", "mfrc", "bad.jsonl", "--out", "out"], ["bad.jsonl:1"]),
    ],
)
def test_bad_input_is_one_line_with_code_2(run, folder, tmp_path, monkeypatch, judge, verb, words):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "bare", ladders_of(n=6))
    write_plan(PLANNED, tmp_path / "plan.jsonl")
    (tmp_path / "bad.jsonl").write_text("window 1\n")
    before = everything(tmp_path)
    assert run("vidb", *verb).refused(*words)
    assert everything(tmp_path) == before


def test_a_plan_for_other_ladders_is_refused(run, folder, tmp_path, judge):
    write_plan(PLANNED, tmp_path / "plan.jsonl")
    bare = write_folder(tmp_path / "bare", ladders_of(n=6))
    out = tmp_path / "out.jsonl"
    done = run("vidb", "rank", bare, tmp_path / "plan.jsonl", "--out", out)
    assert done.code == 2 and "no ladder has text" in done.err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["windows", "x"],
        ["windows", "x", "--out", "out", "--kind", "best"],
        ["windows", "x", "--out", "out", "--size", "1"],
        ["windows", "x", "--out", "out", "-n", "0"],
        ["windows", "x", "--out", "out", "--seed", "-1"],
        ["show", "power", "-n", "0"],
        ["rank", "x"],
        ["merge"],
    ],
)
def test_wrong_options_have_code_2(run, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    done = run("vidb", *options)
    assert done.code == 2 and "Usage: " in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_a_corpus_that_there_is(run):
    shown = run("vidb", "import", "--help").out
    assert re.search(r"Example: valueflow vidb import (\S+)", shown)[1] in IMPORTERS
