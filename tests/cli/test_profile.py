"""The verb on small files, with an encoder and a database that are planted."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from valueflow.hives.encoder import ValueEncoder
from valueflow.hives.profile import ValueProfile
from valueflow.study.profile_plot import profile_figure
from valueflow.vidb import Vidb

VALUES = ("mft/care-harm", "svt/face", "svt/power", "svt/security")
GRADES = np.linspace(-9.0, 9.0, 19)
LOUD = "svt/power 8 a\nsvt/power 6 b\n\nsvt/security -5 c\n  svt/security -7 d  \nnoon\n"
MEEK = [{"text": t} for t in ("svt/power -6 a", "svt/power -8 b", "svt/face 3 c", "svt/face 5 d")]


class PlantedEncoder(ValueEncoder):
    """`value grade ...` at the value's axis, tilted by the grade; all else off to one side."""

    def __init__(self, name):
        super().__init__(None, name=name or "hives")

    def embed(self, texts):
        rows = np.zeros((len(texts), 2 * len(VALUES) + 2))
        for row, text in zip(rows, texts, strict=True):
            value, _, rest = text.partition(" ")
            if value in VALUES:
                place = 2 * VALUES.index(value)
                row[place : place + 2] = 1, float(rest.split()[0]) / 5
                row[-2] = 0.4
            else:
                row[-1] = 1
        return rows


@pytest.fixture
def loads(monkeypatch):
    """Names that encoders were asked for by."""
    rows = [
        (f"{v}/post-{i + 1:02}/1", v, f"{v} {g}", None, g)
        for v in VALUES
        for i, g in enumerate(GRADES)
    ]
    vidb = Vidb(pd.DataFrame(rows, columns=["id", "value", "text", "context", "intensity"]))
    asked = []

    def load(name=None):
        asked.append(name)
        return PlantedEncoder(name)

    monkeypatch.setattr("valueflow.vidb.load_starter", lambda: vidb)
    monkeypatch.setattr("valueflow.hives.encoder.load_value_encoder", load)
    monkeypatch.setattr("valueflow.hives.encoder.load_frozen_encoder", load)
    return asked


@pytest.fixture
def loud(tmp_path):
    path = tmp_path / "loud.txt"
    path.write_text(LOUD, encoding="utf-8")
    return path


@pytest.fixture
def meek(tmp_path):
    path = tmp_path / "meek.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in MEEK), encoding="utf-8")
    return path


def test_a_profile_is_printed_and_written(run, tmp_path, loads, loud):
    out = tmp_path / "profile.json"
    done = run("profile", loud, "--k", 3, "--json", out)
    assert done.code == 0, done.err
    assert loads == ["hives"]
    power, security = [line for line in done.out.splitlines() if "svt/" in line and "±" in line]
    assert "svt/power" in power and "+7.0 ± " in power and "svt/power 8 a" in power
    assert "svt/security" in security and "-6.0 ± " in security
    assert "5 texts; silent: mft/care-harm, svt/face" in done.out
    assert "3 neighbours a text, with a cosine above 0." in done.out
    found = ValueProfile.from_json(out.read_text(encoding="utf-8"))
    assert found["power"].intensity == pytest.approx(7, abs=0.1)
    assert (found["power"].n_texts, found.n_texts, found.k, found.encoder) == (2, 5, 3, "hives")
    assert 0 < found.min_similarity < 0.5
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["files"] == ["loud.txt"]
    assert document["against"] is document["differences"] is None


def test_two_profiles_are_compared(run, tmp_path, loads, loud, meek):
    out = tmp_path / "both.json"
    done = run("profile", loud, "--against", meek, "-k", 3, "--json", out)
    assert done.code == 0, done.err
    (row,) = [line for line in done.out.splitlines() if "svt/" in line and "±" in line]
    assert "svt/power" in row and "+7.0" in row and "-7.0" in row and "+14.0 ± " in row
    assert "loud.txt: 5 texts; silent: mft/care-harm, svt/face" in done.out
    assert "meek.jsonl: 4 texts; silent: mft/care-harm, svt/security" in done.out
    document = json.loads(out.read_text(encoding="utf-8"))
    first, second = document, document["against"]
    power = {row["value"]: row for row in document["differences"]}["svt/power"]
    errors = [
        next(s["stderr"] for s in p["scores"] if s["value"] == "svt/power") for p in (first, second)
    ]
    assert power["difference"] == pytest.approx(14, abs=0.2)
    assert power["stderr"] == pytest.approx(math.hypot(*errors))
    assert errors[0] > 0
    assert "independent" not in done.err


def test_texts_in_both_files_are_counted(run, tmp_path, loads, loud):
    other = tmp_path / "other.csv"
    other.write_text('id,text\n1,"svt/power 8 a"\n2,svt/power 1 z\n3,noon\n', encoding="utf-8")
    done = run("profile", loud, "--against", other, "-k", 3)
    assert done.code == 0, done.err
    assert "2 texts are in both files" in done.err


def test_the_three_kinds_of_file_tell_the_same(run, tmp_path, loads, meek):
    lines, table = tmp_path / "meek.txt", tmp_path / "meek.CSV"
    lines.write_text("\n".join(row["text"] for row in MEEK), encoding="utf-8-sig")
    pd.DataFrame(MEEK).to_csv(table)
    shown = [run("profile", file, "-k", 3).out for file in (meek, lines, table)]
    assert shown[0] == shown[1] == shown[2]
    assert "+4.0" in shown[0]


def test_texts_about_nothing_are_silent_and_not_zero(run, tmp_path, loads):
    path = tmp_path / "weather.txt"
    path.write_text("rain\nsun\n")
    done = run("profile", path, "-k", 3, "--plot", tmp_path / "a" / "weather.png")
    assert done.code == 0, done.err
    assert f"2 texts; silent: {', '.join(VALUES)}" in done.out
    assert "+0" not in done.out and "0%" not in done.out and "nan" not in done.out
    assert (tmp_path / "a" / "weather.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["$x{$.txt", "_hidden.txt"])
def test_two_are_drawn_whatever_the_files_are_called(run, tmp_path, loads, meek, monkeypatch, name):
    drawn = []

    def figure(profiles):
        drawn.append(profile_figure(profiles))
        return drawn[0]

    monkeypatch.setattr("valueflow.study.profile_plot.profile_figure", figure)
    path = tmp_path / name
    path.write_text(LOUD)
    done = run("profile", path, "--against", meek, "-k", 3, "--plot", tmp_path / "x.png")
    assert done.code == 0, done.err
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    named = [text.get_text().replace("\\$", "$") for text in drawn[0].legends[0].get_texts()]
    assert len(named) == 2
    assert f"{name} (5 texts)" in named[0] and named[1] == "meek.jsonl (4 texts)"


def test_only_the_top_rows_are_printed_but_all_are_written(run, tmp_path, loads, loud):
    done = run("profile", loud, "-k", 3, "--top", 1, "--json", tmp_path / "p.json")
    assert "svt/power" in done.out and "svt/security" not in done.out
    assert "1 more left out by --top" in done.out
    assert len(json.loads((tmp_path / "p.json").read_text())["scores"]) == len(VALUES)


def test_one_text_alone_has_no_error_and_says_so(run, tmp_path, loads):
    path = tmp_path / "one.txt"
    path.write_text("svt/face 4 a\n")
    (row,) = [r for r in run("profile", path, "-k", 3).out.splitlines() if "svt/face 4 a" in r]
    assert "+4.0 (one text)" in row and "±" not in row


def test_hostile_texts_reach_neither_markup_nor_terminal(run, tmp_path, loads):
    path = tmp_path / "hostile.jsonl"
    texts = ["svt/power 9 [red]x[/] [/nonsense] \x1b]0;own\x07 \x9b2J \u202eevil " + "y" * 500]
    texts.append("svt/power 1 a\nb")
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    done = run("profile", path, "-k", 3)
    assert done.code == 0, done.err
    (row,) = [r for r in done.out.splitlines() if "svt/power " in r]
    assert "[red]x[/] [/nonsense]" in row and "…" in row
    assert not set("\x1b\x07\x9b\u202e") & set(done.out)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", ["a.txt", "one text a line, found none"]),
        ("a.txt", b" \n\t\n", ["found none"]),
        ("a.txt", b"fine\n\xff\xfe", ["a.txt:2", "UTF-8"]),
        ("a.jsonl", b"", ["a.jsonl", "empty"]),
        ("a.jsonl", b"{", ["a.jsonl:1", "not JSON"]),
        ("a.jsonl", b'{"text": "x"}\n["x"]', ["a.jsonl:2", "JSON object"]),
        ("a.jsonl", b'{"texts": "x"}', ["a.jsonl:1", "'text' must be text"]),
        ("a.jsonl", b'{"text": 5}', ["'text' must be text", "5"]),
        ("a.csv", b"id,texts\n1,x\n", ["a.csv:1", "'text' is missing", "did you mean texts"]),
        ("a.csv", b"id,text\n1,x\n2,\n", ["a.csv:3", "'text' must be text"]),
        ("a.csv", b'text\n"never closed\n', ["quote not closed"]),
    ],
)
def test_bad_files_are_refused_before_an_encoder_is_loaded(
    run, tmp_path, loads, loud, name, content, words
):
    path = tmp_path / name
    path.write_bytes(content)
    out = tmp_path / "p.json"
    assert run("profile", path, "--json", out).refused(*words)
    assert run("profile", loud, "--against", path, "--json", out).refused(*words)
    assert loads == []
    assert not out.exists()


def test_what_cannot_be_done_is_refused_before_an_encoder_is_loaded(run, tmp_path, loads, loud):
    assert run("profile", tmp_path / "none.txt").refused("none.txt", "cannot be read")
    assert run("profile", tmp_path).refused("cannot be read")
    assert run("profile", loud, "--encoder", "hive").refused("encoder 'hive'", "did you mean hives")
    assert run("profile", loud, "--against", loud).refused("is the file itself")
    assert run("profile", loud, "--plot", tmp_path / "x.jpg").refused("ends in .png")
    assert run("profile", loud, "--plot", loud / "x.png").refused("is no folder")
    assert run("profile", loud, "-k", 77).refused("--k 77", "76 texts")
    assert loads == []
    for option in (["-k", "0"], ["--top", "0"], ["--seed", "-1"]):
        assert run("profile", loud, *option).code == 2


@pytest.mark.parametrize("name", ["hives", "all-minilm-l6-v2", "owner/encoder"])
def test_other_encoders_are_named_in_the_profile(run, loads, loud, name):
    done = run("profile", loud, "-k", 3, "--encoder", name)
    assert done.code == 0, done.err
    assert loads == [name]
    assert f"encoder {name}," in done.out
