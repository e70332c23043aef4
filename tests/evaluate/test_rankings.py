import json
import math

import numpy as np
import pytest

from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact
from valueflow.evaluate import (
    AnchorEvaluator,
    Panel,
    evaluator_of_saved,
    load_rankings,
    save_rankings,
    vidb_evaluator,
)
from valueflow.evaluate.rankings import RecordedJudge
from valueflow.judges import ScriptedJudge, Unranked
from valueflow.typing import Item
from valueflow.vidb import Vidb, load_starter


@pytest.fixture(scope="module")
def vidb():
    return load_starter()


def known(vidb):
    of = vidb.of("power").frame
    return dict(zip(of["text"], of["intensity"].astype(float), strict=True))


def texts(vidb, n=12):
    of = vidb.of("power", "judge").frame.iloc[: 3 * n : 3]
    return [Item(text, context) for text, context in zip(of["text"], of["context"], strict=True)]


def ranked(vidb, *, mode="calibrated", failure_rate=0.1, **settings):
    judge = ScriptedJudge(known(vidb), sharpness=0.7, failure_rate=failure_rate, seed=1)
    evaluator = vidb_evaluator(vidb, "power", judge, mode=mode, seed=2, n_windows=4, **settings)
    return evaluator, evaluator.rank(texts(vidb))


def same(first, second):
    return [repr(score) for score in first] == [repr(score) for score in second]


@pytest.mark.parametrize("settings", [{}, {"mode": "paper"}, {"window_size": 4}])
def test_saved_rankings_give_the_same_numbers_without_the_judge(vidb, tmp_path, settings):
    evaluator, found = ranked(vidb, **settings)
    expected = evaluator.score_ranked(found)
    save_rankings(evaluator.saved(found), tmp_path / "r.json")
    saved = load_rankings(tmp_path / "r.json")
    assert saved.scored == found
    again = evaluator_of_saved(vidb, saved)
    assert same(again.score_ranked(saved.scored), expected)
    assert again.fingerprint() == evaluator.fingerprint()


def test_score_is_rank_and_then_score_ranked(vidb):
    runs = [ranked(vidb) for _ in range(2)]
    assert same(
        runs[0][0].score_ranked(runs[0][1]),
        # The same state of the judge: a ranking before, from the same seed.
        ranked_and_scored(vidb),
    )


def ranked_and_scored(vidb):
    judge = ScriptedJudge(known(vidb), sharpness=0.7, failure_rate=0.1, seed=1)
    evaluator = vidb_evaluator(vidb, "power", judge, seed=2, n_windows=4)
    return evaluator.score(texts(vidb))


def test_calibrated_rankings_can_be_scored_as_the_paper_does_but_not_the_reverse(vidb):
    evaluator, found = ranked(vidb)
    paper = evaluator_of_saved(vidb, evaluator.saved(found), mode="paper").score_ranked(found)
    evaluator.mode = "paper"
    assert same(paper, evaluator.score_ranked(found))
    other, found = ranked(vidb, mode="paper")
    assert other.saved(found).graded is None
    with pytest.raises(InvalidInput, match="hold no graded texts"):
        evaluator_of_saved(vidb, other.saved(found), mode="calibrated")


def test_windows_hold_the_text_and_unranked_ones_their_reason(vidb, tmp_path):
    evaluator, found = ranked(vidb, failure_rate=0.4)
    shown = [window for own in found.windows for window in own]
    assert len(shown) == 48 and all(len(own) == 4 for own in found.windows)
    assert all(window.window.count(len(evaluator.panel)) == 1 for window in shown)
    failed = [window for window in shown if isinstance(window.verdict, Unranked)]
    assert found.unranked == {"scripted failure": len(failed)} and 8 < len(failed) < 32
    assert sum(map(len, found.rankings)) == 48 - len(failed)
    save_rankings(evaluator.saved(found), tmp_path / "r.json")
    plain = json.loads((tmp_path / "r.json").read_text())
    kept = [window for text in plain["scored"]["texts"] for window in text["windows"]]
    assert sum("unranked" in window for window in kept) == len(failed)
    assert {w["unranked"]["reason"] for w in kept if "unranked" in w} == {"scripted failure"}
    assert all(sorted(w["order"]) == list(range(6)) for w in kept if "order" in w)


def test_a_judge_of_saved_rankings_ranks_nothing_more(vidb):
    evaluator, found = ranked(vidb)
    again = evaluator_of_saved(vidb, evaluator.saved(found))
    assert isinstance(again.judge, RecordedJudge)
    assert again.judge.fingerprint() == evaluator.judge.fingerprint()
    with pytest.raises(StaleArtifact, match="hold no judge"):
        again.score(texts(vidb))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_database_that_changed_is_refused(vidb, split):
    evaluator, found = ranked(vidb)
    frame = vidb.frame.copy()
    rows = (frame["value"] == "svt/power") & (frame["split"] == split)
    row = frame.index[rows & (frame["register"] == "answer")][0]
    frame.loc[row, "text"] += " Really."
    with pytest.raises(StaleArtifact, match="rank"):
        evaluator_of_saved(Vidb(frame), evaluator.saved(found))


def test_a_grade_that_changed_is_refused_for_anchors(vidb):
    evaluator, found = ranked(vidb)
    moved = Panel(evaluator.panel.value, evaluator.panel.items, evaluator.panel.intensities + 0.5)
    with pytest.raises(StaleArtifact, match="other anchors of svt/power"):
        evaluator.among(moved, seed=0).score_ranked(found)


def test_the_same_anchors_in_another_order_are_refused(vidb):
    # The panel's fingerprint does not see the order, but indices mean it.
    evaluator, found = ranked(vidb)
    turned = evaluator.panel.take(range(len(evaluator.panel) - 1, -1, -1))
    assert turned.fingerprint() == evaluator.panel.fingerprint()
    with pytest.raises(StaleArtifact):
        evaluator.among(turned, seed=0).score_ranked(found)


def test_other_texts_are_refused_by_place(vidb):
    _, found = ranked(vidb)
    items = texts(vidb)
    found.check_items(items)
    for changed in ([*items[:3], Item("Another."), *items[4:]], [*items[:3], *items[4:], items[3]]):
        with pytest.raises(StaleArtifact, match="text 4 "):
            found.check_items(changed)
    with pytest.raises(StaleArtifact, match="text 1 .*question"):
        found.check_items([Item(items[0].text, "Another question?"), *items[1:]])
    with pytest.raises(StaleArtifact, match="12 texts were ranked, 11"):
        found.check_items(items[1:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c | {"schema": "else"},
        lambda c: {k: v for k, v in c.items() if k != "scored"},
        lambda c: c | {"scored": []},
        lambda c: _with_order(c, [0, 0, 1, 2, 3, 4]),
        lambda c: _with_order(c, [0, 1, 2]),
        lambda c: _with_order(c, "012345x"),
    ],
)
def test_a_damaged_file_is_refused(vidb, tmp_path, damage):
    evaluator, found = ranked(vidb, mode="paper", failure_rate=0.0)
    path = tmp_path / "r.json"
    save_rankings(evaluator.saved(found), path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match="r.json"):
        load_rankings(path)


def _with_order(content, order):
    content["scored"]["texts"][0]["windows"][0]["order"] = order
    return content


def test_no_file_and_no_json_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"none.json: cannot be read"):
        load_rankings(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"schema": "valueflow-rank')
    with pytest.raises(ArtifactError, match=r"half.json: no saved rankings"):
        load_rankings(tmp_path / "half.json")


def test_another_repeat_shows_the_same_anchors_in_other_orders(vidb):
    evaluator, first = ranked(vidb, mode="paper")
    second = evaluator.rank(texts(vidb), repeat=1)
    pairs = [
        (a.window, b.window)
        for own, other in zip(first.windows, second.windows, strict=True)
        for a, b in zip(own, other, strict=True)
    ]
    assert all(sorted(a) == sorted(b) for a, b in pairs)
    assert np.mean([a == b for a, b in pairs]) < 0.1
    assert evaluator.rank(texts(vidb), repeat=1).windows[0][0].window == pairs[0][1]


def test_an_evaluator_among_fewer_anchors_keeps_its_scale(vidb):
    evaluator, _ = ranked(vidb)
    fewer = evaluator.among(evaluator.panel.take(range(50)), seed=5)
    assert isinstance(fewer, AnchorEvaluator) and fewer.scale_ is evaluator.scale_
    assert len(fewer.panel) == 50 and fewer.seed == 5 and fewer.n_windows == 4
    scores = fewer.score(texts(vidb))
    assert not any(math.isnan(s.central) for s in scores)
