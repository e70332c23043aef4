import json
import multiprocessing
import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
from planted_vidb import CARE, POWER, ladders_of, write_lines

from valueflow.errors import InvalidInput, UnknownName
from valueflow.judges.base import Unranked
from valueflow.judges.scripted import ScriptedJudge
from valueflow.typing import Item
from valueflow.vidb.collect import Collected, collect
from valueflow.vidb.planning import PlannedWindow, connected_windows
from valueflow.vidb.schema import RankingRecord, read_rankings

LADDERS = ladders_of(n=6)
PLANNED = connected_windows(LADDERS, per_text=2, rng=np.random.default_rng(0))
N = len(PLANNED)


def rung_of(item):
    return float(item.text.rpartition(" ")[2])


class CountingJudge:
    """Ranks as `ScriptedJudge` without noise, and remembers what it was asked.

    `fails` maps the number of a window, counted over all calls, to what is done instead.
    """

    name = "counting"

    def __init__(self, fails=None):
        self.asked, self.calls, self.fails = [], [], fails or {}
        self.inner = ScriptedJudge(rung_of, seed=0)

    def fingerprint(self):
        return "f00d"

    def rank(self, value, windows):
        self.calls.append((value.id, len(windows)))
        verdicts = self.inner.rank(value, windows)
        for i, window in enumerate(windows):
            instead = self.fails.get(len(self.asked))
            self.asked.append(window)
            if isinstance(instead, BaseException):
                raise instead
            if instead is not None:
                verdicts[i] = instead
        return verdicts


def test_windows_are_shown_as_planned_and_recorded_as_ranked(tmp_path):
    path, judge = tmp_path / "new" / "a.jsonl", CountingJudge()
    assert collect(PLANNED, LADDERS, judge, path) == Collected(N, 0, ())
    records = read_rankings(path)
    assert [(r.window, r.kind, r.shown) for r in records] == [
        (p.window, p.kind, p.shown) for p in PLANNED
    ]
    assert {r.ranker for r in records} == {"counting-f00d"}
    text = {
        ladder.text_id(rung): Item(ladder.rungs[rung - 1], ladder.context)
        for ladder in LADDERS
        for rung in range(1, 6)
    }
    assert judge.asked == [tuple(text[i] for i in p.shown) for p in PLANNED]
    assert {item.context for window in judge.asked for item in window} > {None, "question 1?"}
    for record in records:
        rungs = [rung_of(text[i]) for i in record.order]
        assert rungs == sorted(rungs, reverse=True)


def test_a_second_call_asks_for_what_is_new_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    collect(PLANNED[:7], LADDERS, CountingJudge(), path, ranker="first")
    before, judge = path.read_bytes(), CountingJudge()
    assert collect(PLANNED, LADDERS, judge, path, ranker="second") == Collected(N - 7, 7, ())
    assert len(judge.asked) == N - 7
    assert path.read_bytes().startswith(before)
    assert [r.ranker for r in read_rankings(path)] == ["first"] * 7 + ["second"] * (N - 7)
    idle = CountingJudge()
    assert collect(PLANNED, LADDERS, idle, path) == Collected(0, N, ())
    assert idle.calls == [] and len(read_rankings(path)) == N


def test_a_window_shown_again_is_not_the_window(tmp_path):
    path = tmp_path / "a.jsonl"
    once = PLANNED[0]
    again = replace(once, kind="repeat", shown=once.shown[::-1])
    collect([once], LADDERS, CountingJudge(), path)
    assert collect([once, again], LADDERS, CountingJudge(), path).ranked == 1
    assert [r.kind for r in read_rankings(path)] == [once.kind, "repeat"]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("k", [0, 1, 7])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_judge_that_dies_loses_its_batch_at_most(tmp_path, k, batch, error):
    path = tmp_path / "a.jsonl"
    with pytest.raises(type(error)):
        collect(PLANNED, LADDERS, CountingJudge({k: error}), path, batch=batch)
    kept = k // batch * batch
    assert (len(read_rankings(path)) if path.exists() else 0) == kept
    judge = CountingJudge()
    assert collect(PLANNED, LADDERS, judge, path, batch=batch) == Collected(N - kept, kept, ())
    assert len(judge.asked) == N - kept
    whole = tmp_path / "whole.jsonl"
    collect(PLANNED, LADDERS, CountingJudge(), whole)
    assert path.read_bytes() == whole.read_bytes()


def test_batches_are_written_before_the_next_is_asked(tmp_path):
    path, seen = tmp_path / "a.jsonl", []

    def progress(done, total):
        seen.append((done, total, len(read_rankings(path))))

    judge = CountingJudge()
    collect(PLANNED[:10], LADDERS, judge, path, batch=4, progress=progress)
    assert seen == [(4, 10, 4), (8, 10, 8), (10, 10, 10)]
    assert judge.calls == [(POWER, 4), (POWER, 4), (POWER, 2)]


def test_a_judge_is_asked_about_one_value_at_a_time(tmp_path):
    ladders = [*ladders_of(POWER, 5), *ladders_of(CARE, 5)]
    planned = connected_windows(ladders, per_text=1, rng=np.random.default_rng(0))
    mixed = [planned[i] for i in np.random.default_rng(1).permutation(len(planned))]
    judge = CountingJudge()
    collect(mixed, ladders, judge, tmp_path / "a.jsonl", batch=4)
    for value, stem in ((POWER, "svt/power "), (CARE, "mft/care-harm ")):
        counts = [n for asked, n in judge.calls if asked == value]
        assert sum(counts) == len(planned) / 2 and max(counts) == 4
        texts = [
            item.text
            for (asked, n), start in zip(
                judge.calls, np.cumsum([0] + [n for _, n in judge.calls]), strict=False
            )
            for window in judge.asked[start : start + n]
            for item in window
            if asked == value
        ]
        assert texts and all(text.startswith(stem) for text in texts)


def cut_file(tmp_path, planned=PLANNED[:3]):
    """Rankings as a file, and where the last line begins."""
    whole = tmp_path / "whole.jsonl"
    collect(planned, LADDERS, CountingJudge(), whole)
    content = whole.read_bytes()
    return content, content.rstrip(b"\n").rfind(b"\n") + 1


def test_a_last_line_cut_at_any_byte_is_ranked_again(tmp_path):
    planned = [replace(p, shown=p.shown[:2]) for p in PLANNED[:2]]
    content, start = cut_file(tmp_path, planned)
    path = tmp_path / "a.jsonl"
    for end in range(start, len(content) + 1):
        path.write_bytes(content[:end])
        judge = CountingJudge()
        found = collect(planned, LADDERS, judge, path)
        # Only the line feed was lost in the last but one case; nothing is asked again for that.
        lost = end < len(content) - 1
        assert found == Collected(int(lost), 2 - lost, ()), end
        assert len(judge.asked) == lost
        assert path.read_bytes() == content, end


def test_a_first_line_cut_short_is_ranked_again(tmp_path):
    content, _ = cut_file(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_bytes(content[:20])
    assert collect(PLANNED[:3], LADDERS, CountingJudge(), path).ranked == 3
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b"my notes\nof today",
        b'{"id": "svt/power/post-01", "rungs": ["a',
        b"[1, 2]",
        b'{"window": "w1"}',
        b'{"window": "w1"}\n{"window": ',
        b"\xff\xfe",
    ],
)
def test_other_files_are_refused_and_their_whole_lines_kept(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    judge = CountingJudge()
    with pytest.raises(InvalidInput, match="notes.txt:1: "):
        collect(PLANNED, LADDERS, judge, path)
    assert judge.calls == []
    assert path.read_bytes() == content.removesuffix(b'{"window": ')


def test_a_damaged_line_in_the_middle_is_named_and_kept(tmp_path):
    content, start = cut_file(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_bytes(content[: start - 9] + b"\n" + content[start:])
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="a.jsonl:2: not JSON"):
        collect(PLANNED, LADDERS, CountingJudge(), path)
    assert path.read_bytes() == before


def test_unranked_windows_are_told_and_asked_again(tmp_path):
    path = tmp_path / "a.jsonl"
    judge = CountingJudge({2: Unranked("no list in the answer", "hm"), 5: Unranked("too long")})
    found = collect(PLANNED, LADDERS, judge, path, batch=4)
    lost = (PLANNED[2].window, PLANNED[5].window)
    reasons = ("no list in the answer", "too long")
    assert found == Collected(N - 2, 0, tuple(zip(lost, reasons, strict=True)))
    assert len(read_rankings(path)) == N - 2
    again = CountingJudge()
    assert collect(PLANNED, LADDERS, again, path) == Collected(2, N - 2, ())
    assert len(again.asked) == 2
    assert {r.window for r in read_rankings(path)[-2:]} == set(lost)


@pytest.mark.parametrize(
    "verdict", [(0, 1, 2, 3), (0, 1, 2, 3, 3), (1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5), ()]
)
def test_a_verdict_that_is_no_permutation_is_refused(tmp_path, verdict):
    path = tmp_path / "a.jsonl"
    with pytest.raises(InvalidInput) as caught:
        collect(PLANNED, LADDERS, CountingJudge({6: verdict}), path, batch=3)
    assert "'counting'" in str(caught.value) and PLANNED[6].window in str(caught.value)
    assert "permutation" in str(caught.value)
    assert len(read_rankings(path)) == 6


def test_a_judge_that_forgets_windows_is_refused(tmp_path):
    judge = CountingJudge()
    judge.rank = lambda value, windows: [(0, 1, 2, 3, 4)] * (len(windows) - 1)
    with pytest.raises(InvalidInput, match=f"'counting' gave {N - 1} verdicts for {N} windows"):
        collect(PLANNED, LADDERS, judge, tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ("svt/power/post-99/1", "window w1: no ladder has text 'svt/power/post-99/1'"),
        ("svt/power/post-01/6", "window w1: no ladder has text 'svt/power/post-01/6'"),
        ("mft/care-harm/post-01/1", "texts of mft/care-harm and svt/power"),
        (None, "is planned twice as 'ladder'"),
    ],
)
def test_bad_plans_are_refused_before_anything_is_ranked(tmp_path, second, complaint):
    bad = PlannedWindow("w1", "cross", ("svt/power/post-01/1", second)) if second else PLANNED[0]
    path, judge = tmp_path / "new" / "a.jsonl", CountingJudge()
    ladders = [*LADDERS, *ladders_of(CARE, 1)]
    with pytest.raises(InvalidInput, match=complaint):
        collect([*PLANNED, bad], ladders, judge, path)
    assert judge.calls == [] and list(tmp_path.iterdir()) == []


def test_values_that_no_theory_has_are_refused_before_anything_is_ranked(tmp_path):
    ladders = [*LADDERS, *ladders_of("svt/liberty", 1)]
    strange = PlannedWindow("w1", "cross", ("svt/liberty/post-01/1", "svt/liberty/post-01/2"))
    judge = CountingJudge()
    with pytest.raises(UnknownName, match="liberty"):
        collect([*PLANNED, strange], ladders, judge, tmp_path / "a.jsonl")
    assert judge.calls == [] and list(tmp_path.iterdir()) == []


def test_a_plan_made_without_the_files_rankings_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    collect(PLANNED, LADDERS, CountingJudge(), path)
    before, judge = path.read_bytes(), CountingJudge()
    other = connected_windows(LADDERS, per_text=2, rng=np.random.default_rng(1))
    with pytest.raises(InvalidInput, match="shows other texts than in .*plan anew"):
        collect(other, LADDERS, judge, path)
    assert judge.calls == [] and path.read_bytes() == before
    # The same texts in another order are the same window.
    turned = [replace(p, shown=p.shown[::-1]) for p in PLANNED]
    assert collect(turned, LADDERS, judge, path).known == N


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_is_a_window_or_more(tmp_path, batch):
    with pytest.raises(InvalidInput, match=f"1 window or more, got {batch}"):
        collect(PLANNED, LADDERS, CountingJudge(), tmp_path / "a.jsonl", batch=batch)


def test_nothing_planned_writes_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    assert collect([], LADDERS, CountingJudge(), path) == Collected(0, 0, ())
    assert not path.exists()


def _rank_slowly(path, started, n):
    class Slow(CountingJudge):
        def rank(self, value, windows):
            time.sleep(0.01)
            return super().rank(value, windows)

    started.wait(20)
    collect(PLANNED[:n], LADDERS, Slow(), path, batch=1, ranker=f"up to {n}")


def test_two_processes_on_one_file_ask_once_and_do_not_mix_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    context = multiprocessing.get_context("fork")
    started = context.Event()
    halves = [context.Process(target=_rank_slowly, args=(path, started, n)) for n in (N, N - 3, N)]
    for process in halves:
        process.start()
    started.set()
    for process in halves:
        process.join(30)
    assert [process.exitcode for process in halves] == [0, 0, 0]
    records = read_rankings(path)
    assert sorted((r.window, r.kind) for r in records) == sorted(
        (p.window, p.kind) for p in PLANNED
    )
    # One after the other: at most one change of hands for each that had something to do.
    rankers = [r.ranker for r in records]
    assert sum(a != b for a, b in zip(rankers, rankers[1:], strict=False)) <= 1


def test_a_call_waits_for_the_one_before_it(tmp_path):
    path = tmp_path / "a.jsonl"
    asked, go_on = threading.Event(), threading.Event()

    class Waiting(CountingJudge):
        def rank(self, value, windows):
            asked.set()
            assert go_on.wait(20)
            return super().rank(value, windows)

    first, second = Waiting(), CountingJudge()
    threads = [
        threading.Thread(target=collect, args=(PLANNED, LADDERS, judge, path))
        for judge in (first, second)
    ]
    threads[0].start()
    assert asked.wait(20)
    threads[1].start()
    time.sleep(0.2)
    assert second.calls == []
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert len(first.asked) == N and second.calls == []


def test_rankings_written_by_hand_are_known(tmp_path):
    first = PLANNED[0]
    record = RankingRecord(first.window, first.kind, "me", first.shown, first.shown)
    path = write_lines(tmp_path / "a.jsonl", [asdict(record)])
    path.write_text("\ufeff" + json.dumps(asdict(record), separators=(",", ":")) + "\r\n\r\n")
    assert collect(PLANNED, LADDERS, CountingJudge(), path) == Collected(N - 1, 1, ())
    assert read_rankings(path)[0] == record
