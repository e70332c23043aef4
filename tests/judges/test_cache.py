import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from valueflow.errors import ArtifactError
from valueflow.judges.cache import Answer, AnswerCache, answer_key, default_cache

FULL = Answer("2 > 1", "stop", 100, 5, "model-2026")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "answers.sqlite"


def test_answers_come_back_as_they_were(path):
    cache = AnswerCache(path)
    assert cache.get("a") is None and len(cache) == 0
    odd = Answer("quote ' \" \x00 \u2028 😀\n")
    cache.put("a", "m", FULL)
    cache.put_many("m", [("b", odd), ("c", Answer(""))])
    again = AnswerCache(path)
    assert again.get_many(["c", "b", "a", "none", "a"]) == {"a": FULL, "b": odd, "c": Answer("")}
    assert len(again) == 3


def test_the_first_answer_stays(path):
    cache = AnswerCache(path)
    cache.put("a", "m", FULL)
    cache.put("a", "m", Answer("another"))
    assert cache.get("a") == FULL


def test_thousands_of_keys_in_one_question(path):
    cache = AnswerCache(path)
    cache.put_many("m", [(str(i), Answer(str(i))) for i in range(2500)])
    assert len(cache.get_many(map(str, range(5000)))) == 2500


def test_every_part_of_a_question_and_their_order_make_the_key():
    base = {"model": "m", "prompt": "a b", "settings": {"seed": 0}}
    keys = [
        answer_key(**base | change)
        for change in (
            {},
            {"model": "n"},
            {"prompt": "b a"},
            {"settings": {"seed": 1}},
            {"x": None},
        )
    ]
    assert len(set(keys)) == 5
    assert answer_key(**dict(reversed(base.items()))) == keys[0]


def test_threads_share_a_cache(path):
    cache = AnswerCache(path)

    def fill(start):
        for i in range(start, start + 25):
            cache.put(str(i), "m", Answer(str(i)))
            assert cache.get(str(i)) == Answer(str(i))

    threads = [threading.Thread(target=fill, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 100


def _fill(path, start, n):
    cache = AnswerCache(path)
    for i in range(start, start + n):
        cache.put(str(i), "m", Answer(str(i)))


def test_processes_share_a_file(path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(path, 100 * n, 30)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(AnswerCache(path)) == 90


def test_a_fork_does_not_spoil_the_parents_connection(path):
    cache = AnswerCache(path)
    cache.put("a", "m", FULL)

    def child():
        cache.put("b", "m", FULL)

    worker = multiprocessing.get_context("fork").Process(target=child)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    cache.put("c", "m", FULL)
    assert set(cache.get_many("abc")) == set("abc")


WRITER = """
import sys
from valueflow.judges.cache import Answer, AnswerCache
cache = AnswerCache(sys.argv[1])
for i in range(100000):
    cache.put(str(i), "m", Answer("x" * 500))
    print(i, flush=True)
"""


def test_what_was_put_survives_a_kill(path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(40):
            process.stdout.readline()
        time.sleep(0.011)
    finally:
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read().split()
        process.wait()
    last = int(told[-1]) if told else 39
    assert len(AnswerCache(path).get_many(map(str, range(last + 1)))) == last + 1


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough" * 99, b"SQLite format 3\0x"]
)
def test_another_file_is_refused_and_left_alone(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"answers.sqlite.*VALUEFLOW_HOME"):
        AnswerCache(path).get("a")
    assert path.read_bytes() == content


def test_another_schema_and_an_impossible_place_are_refused(path):
    AnswerCache(path).put("a", "m", FULL)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=7")
    connection.close()
    with pytest.raises(ArtifactError, match="schema 7"):
        AnswerCache(path).get("a")
    with pytest.raises(ArtifactError, match="cannot be used"):
        AnswerCache(path / "below.sqlite").get("a")


def test_the_default_place_is_below_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VALUEFLOW_HOME", str(tmp_path))
    default_cache().put("a", "m", FULL)
    assert AnswerCache(tmp_path / "answers" / "answers.sqlite").get("a") == FULL
