"""Judges that are language models, named on the command line."""

import csv
import os

import pytest
from chat_server import planted, serve

from valueflow.vidb import load_starter


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VALUEFLOW_HOME", str(tmp_path / "home"))
    return monkeypatch


def knows_the_database(**more):
    frame = load_starter().of("power").frame
    rows = zip(frame["text"], frame["context"], frame["intensity"], strict=True)
    known = {f"Question: {q.strip()}\nAnswer: {t}" if q else t: i for t, q, i in rows}
    return planted(known | more)


def test_a_server_judges_and_a_second_run_asks_it_nothing(run, tmp_path, environment):
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text("response\nMine!\n", encoding="utf-8")
    command = [
        "evaluate",
        file,
        "--value",
        "power",
        "--out",
        out,
        "--judge",
        "openai:some/model:7b",
    ]
    command += ["--mode", "paper", "--windows", "6"]
    with serve(knows_the_database(**{"Mine!": 4.0})) as server:
        environment.setenv("OPENAI_BASE_URL", server.url)
        done = run(*command)
        assert done.code == 0, done.err
        (row,) = csv.DictReader(out.open(encoding="utf-8"))
        assert row["power_status"] == "ok" and 0 < float(row["power_score"]) < 8
        assert {request["model"] for request in server.requests} == {"some/model:7b"}
        assert len(server.requests) == 6
        assert run(*command).code == 0
        assert len(server.requests) == 6


def test_a_budget_on_the_command_line_is_kept(run, tmp_path, environment):
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text("response\nMine!\n", encoding="utf-8")
    command = ["evaluate", file, "--value", "power", "--out", out, "--judge", "openai:m"]
    command += ["--mode", "paper", "--windows", "6", "--judge-option", "budget_tokens=1"]
    with serve(knows_the_database(**{"Mine!": 4.0})) as server:
        command += ["--judge-option", f"base_url={server.url}", "--judge-option", "concurrency=1"]
        environment.setenv("OPENAI_API_KEY", "none")
        assert run(*command).code == 0
        assert len(server.requests) == 1  # what was under way when the budget was spent
    refused = run(*command, "--judge-option", "budget_token=1")
    assert refused.code != 0 and "did you mean budget_tokens" in refused.err


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ("hives:model", ["openai:MODEL"]),
        ("openai:", ["openai:MODEL"]),
        ("opena:gpt", ["did you mean openai"]),
        ("nobody", ["known: hives, hives-small, local, openai, prototype"]),
    ],
)
def test_judges_that_are_none_are_refused_before_any_work(run, tmp_path, environment, judge, words):
    file = tmp_path / "in.csv"
    file.write_text("response\nMine!\n", encoding="utf-8")
    command = ["evaluate", file, "--value", "power", "--out", tmp_path / "o.csv", "--judge", judge]
    assert run(*command).refused(*words)


def test_a_key_that_is_missing_is_said(run, tmp_path, environment):
    file = tmp_path / "in.csv"
    file.write_text("response\nMine!\n", encoding="utf-8")
    command = ["evaluate", file, "--value", "power", "--out", tmp_path / "o.csv"]
    done = run(*command, "--judge", "openai:gpt-4o-mini")
    assert done.code == 2 and "OPENAI_API_KEY" in done.err.splitlines()[-1]
