"""Ranks windows with a server, and is meant to be killed.

Its arguments are the server's URL, the cache, the number of windows, concurrency and model.
"""

import sys

from valueflow.judges.cache import AnswerCache
from valueflow.judges.chat_client import Settings
from valueflow.judges.openai_compatible import OpenAIJudge
from valueflow.theories import get_value
from valueflow.typing import Item


def windows(n):
    return [(Item(f"text {i}"), Item(f"other {i}")) for i in range(n)]


def judge(url, cache, *, concurrency, model="planted"):
    settings = Settings(max_tokens=8, structured=False)
    return OpenAIJudge(
        model,
        base_url=url,
        cache=AnswerCache(cache),
        settings=settings,
        concurrency=concurrency,
        timeout=600,
    )


if __name__ == "__main__":
    url, cache, n, concurrency, model = sys.argv[1:]
    asked = judge(url, cache, concurrency=int(concurrency), model=model)
    asked.rank(get_value("power"), windows(int(n)))
