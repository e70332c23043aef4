import json

import numpy as np
import pytest

GRADED = {
    "power": {
        "2": [{"text": "I decide, all of it.", "intensity": 8.0}],
        "-2": [{"text": "You decide, not I.", "intensity": -8.0}],
        "1": [{"text": "I would rather lead.", "intensity": 4.0}],
    }
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "graded.json"
    path.write_text(json.dumps(GRADED), encoding="utf-8")
    return path


@pytest.mark.parametrize(("sign", "share"), [(1.0, 1.0), (-1.0, 0.0)])
def test_agreement_with_grades_follows_the_judge(run, tmp_path, file, scripted, sign, share):
    grades = {r["text"]: r["intensity"] for rows in GRADED["power"].values() for r in rows}
    scripted(lambda text: sign * grades[text])
    done = run("vidb", "agreement", file, "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    rows = {row["value"]: row for row in json.loads((tmp_path / "r.json").read_text())}
    assert list(rows) == ["svt/power", "svt", "all"]
    for row in rows.values():
        assert (row["texts"], row["pairs"], row["unranked"]) == (3, 3, 0)
        assert row["share"] == pytest.approx(share)
    assert f"{share:.1%}" in done.out


def test_a_blind_judge_is_a_coin_toss_and_says_so(run, tmp_path, file, monkeypatch):
    from valueflow.judges.scripted import ScriptedJudge

    rng = np.random.default_rng(0)
    blind = ScriptedJudge(lambda item: float(rng.normal()), seed=0)
    monkeypatch.setattr("valueflow.judges.base.get_judge", lambda name: blind)
    done = run("vidb", "agreement", file, "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    row = json.loads((tmp_path / "r.json").read_text())[0]
    assert row["unranked"] == 3 and row["share"] == 0.5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", ["graded.json", "not JSON"]),
        (b'{"powr": []}', ["graded.json", "power"]),
        (b'{"openness-to-change": [{"text": "x", "intensity": 1}]}', ["value of the database"]),
    ],
)
def test_bad_files_are_refused(run, tmp_path, scripted, content, words):
    scripted(lambda text: 0.0)
    path = tmp_path / "graded.json"
    path.write_bytes(content)
    out = tmp_path / "r.json"
    assert run("vidb", "agreement", path, "--json", out).refused(*words)
    assert not out.exists()
    assert run("vidb", "agreement", path, "--judge", "hive").refused("hives")
