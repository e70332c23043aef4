"""What language models answered, on disk: a repeated question costs nothing.

SQLite in WAL mode, so that several processes may use one file; an answer is in it before anything
is done with it, so that a run that is killed loses none.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valueflow.errors import ArtifactError

_SCHEMA = 1
_WAIT_S = 60.0
_CHUNK = 500
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT,
    prompt_tokens INTEGER, answer_tokens INTEGER, served TEXT
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Answer:
    """What a model said, and what it cost.

    Attributes:
        text: the answer.
        finish: why it ended, as the server says ("stop", "length"); None where unknown.
        prompt_tokens: of the question; None where unknown.
        answer_tokens: of the answer; None where unknown.
        served: the exact model that answered, as the server names it; None where unknown.
    """

    text: str
    finish: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    served: str | None = None


def answer_key(**parts: Any) -> str:
    """Hash of everything that decides an answer: model, prompt with its texts in order, settings.

    Raises:
        TypeError: a part that is no plain JSON.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


class AnswerCache:
    """Answers by key, in one file.

    Usable from several threads and processes at once, after a fork too.

    Args:
        path: an SQLite file, made when the first answer is looked for.

    Raises (all methods):
        ArtifactError: the file is none of these, damaged, of another schema, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._opened: list[tuple[int, sqlite3.Connection]] = []

    def __repr__(self) -> str:
        return f"AnswerCache({str(self.path)!r})"

    def __len__(self) -> int:
        with self._connection() as connection:
            return connection.execute("SELECT count(*) FROM answers").fetchone()[0]

    def get(self, key: str) -> Answer | None:
        """The answer to a question that was asked before, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers that are there, by key."""
        wanted = sorted(set(keys))
        found: dict[str, Answer] = {}
        with self._connection() as connection:
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                rows = connection.execute(
                    "SELECT key, text, finish, prompt_tokens, answer_tokens, served FROM answers "
                    f"WHERE key IN ({','.join('?' * len(part))})",
                    part,
                )
                found |= {key: Answer(*rest) for key, *rest in rows}
        return found

    def put(self, key: str, model: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns. The first answer to a question stays."""
        self.put_many(model, [(key, answer)])

    def put_many(self, model: str, answers: Iterable[tuple[str, Answer]]) -> None:
        """Keep answers of one model, all or none."""
        rows = [
            (key, model, a.text, a.finish, a.prompt_tokens, a.answer_tokens, a.served)
            for key, a in answers
        ]
        with self._connection() as connection:
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?,?,?,?,?,?,?)", rows)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One transaction of this process's connection, by one thread at a time."""
        with self._lock:
            try:
                # A connection must not be used across a fork, nor closed on the other side of it.
                if not self._opened or self._opened[-1][0] != os.getpid():
                    self._opened.append((os.getpid(), self._open()))
                with self._opened[-1][1] as connection:
                    yield connection
            except (sqlite3.Error, OSError) as error:
                raise ArtifactError(
                    f"{self.path}: the cache of answers cannot be used ({error}); move it away, "
                    "or set VALUEFLOW_HOME to another folder"
                ) from None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_WAIT_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema not in (0, _SCHEMA):
                raise ArtifactError(
                    f"{self.path}: answers of schema {schema}, this version reads {_SCHEMA}; "
                    "move the file away"
                )
            with connection:
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version={_SCHEMA}")
        except BaseException:
            connection.close()
            raise
        return connection


def default_cache() -> AnswerCache:
    """The cache below the package's cache folder (VALUEFLOW_HOME)."""
    from valueflow.models.sources import home

    return AnswerCache(home() / "answers" / "answers.sqlite")
