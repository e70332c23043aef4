"""The judge against `transformers serve` with a small real model, on the loopback."""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import killed_client
import pytest
from chat_server import Reply, serve
from killed_client import judge as judge_at
from killed_client import windows

from valueflow.judges import Unranked
from valueflow.judges.cache import AnswerCache
from valueflow.judges.chat_client import Settings
from valueflow.judges.openai_compatible import OpenAIJudge
from valueflow.judges.parsing import parse_ranking
from valueflow.models import home, is_fetched
from valueflow.theories import get_value
from valueflow.typing import Item

MODEL = "smollm2-135m-instruct"
POWER = get_value("power")
# Seconds on an idle machine; a busy one may starve the server for minutes.
STARTS_WITHIN_S, WAITS_S = 600, 600

pytestmark = pytest.mark.weights


def die_with_parent():
    """The server must not outlive the tests, however they end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """The server's address without "/v1", and the model's name there."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    if not is_fetched(MODEL):
        pytest.skip(f"{MODEL} is not in the cache")
    model = str(home() / "models" / MODEL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, preexec_fn=die_with_parent
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}", model
    finally:
        process.kill()
        process.wait()


def wait_for(url, process, log):
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"no server after {STARTS_WITHIN_S} s: {log.read_text()}")


@pytest.fixture
def counted(upstream, monkeypatch):
    """A proxy before the server that counts what is asked."""
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    address, _ = upstream

    def forward(request, number):
        asked = urllib.request.Request(
            f"{address}/v1/chat/completions",
            json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=WAITS_S) as reply:
                return Reply(reply.read(), reply.status)
        except urllib.error.HTTPError as error:
            return Reply(error.read(), error.code)

    with serve(forward) as proxy:
        yield proxy


@pytest.fixture
def model(upstream):
    return upstream[1]


def test_answers_of_a_real_server_are_read_kept_and_not_asked_for_again(counted, model, tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    window = (Item("I will rule them all."), Item("No.", "Should one man rule?"))

    options = {"settings": Settings(max_tokens=16), "timeout": WAITS_S}

    def judge():
        return OpenAIJudge(model, base_url=counted.url, cache=cache, **options)

    first = judge()
    verdicts = first.rank(POWER, [window, window[::-1]])
    ratings = first.rate(POWER, [window[0]])
    # This server takes a schema and pays no heed to it.
    assert all("response_format" in request for request in counted.requests)
    for verdict in verdicts:
        if isinstance(verdict, Unranked):
            assert verdict.raw and isinstance(parse_ranking(verdict.raw, 2), Unranked)
        else:
            assert sorted(verdict) == [0, 1]
    assert isinstance(ratings[0], Unranked) or -10 <= ratings[0] <= 10
    assert len(cache) == len(counted.requests) == 3
    assert 300 < first.usage.prompt_tokens < 1500 and 3 <= first.usage.answer_tokens <= 48
    again = judge()
    assert again.rank(POWER, [window, window[::-1]]) == verdicts
    assert again.rate(POWER, [window[0]]) == ratings
    assert len(counted.requests) == 3 and again.usage.asked == 0


def test_nonsense_of_a_real_model_is_unranked(counted, model):
    settings = Settings(max_tokens=3)  # Too few for any ranking.
    judge = OpenAIJudge(model, base_url=counted.url, settings=settings, timeout=WAITS_S)
    (verdict,) = judge.rank(POWER, windows(1))
    assert isinstance(verdict, Unranked) and "cut off" in verdict.reason and verdict.raw


def test_another_model_than_the_servers_is_unranked(counted):
    judge = OpenAIJudge("another", base_url=counted.url, max_retries=0, timeout=WAITS_S)
    (verdict,) = judge.rank(POWER, windows(1))
    assert isinstance(verdict, Unranked) and "400" in verdict.reason and "pinned" in verdict.raw


@pytest.mark.slow  # `test_openai_compatible.py` kills a client of the planted server as well
def test_killed_at_a_random_moment_every_answered_window_is_used_again(counted, model, tmp_path):
    n, at_once = 5, 2
    path, rng = tmp_path / "answers.sqlite", random.Random(1)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    wanted = rng.randint(2, 3)
    command = [sys.executable, killed_client.__file__, counted.url, str(path), str(n)]
    process = subprocess.Popen([*command, str(at_once), model], env=environment)
    try:
        while len(counted.requests) < wanted and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    asked = len(counted.requests)
    known = len(AnswerCache(path))
    assert asked - at_once <= known < n
    judge = judge_at(counted.url, path, concurrency=at_once, model=model)
    judge.rank(POWER, windows(n))
    assert judge.usage.cached == known
    assert len(counted.requests) == asked + n - known <= n + at_once
    judge.rank(POWER, windows(n))
    assert len(counted.requests) == asked + n - known
