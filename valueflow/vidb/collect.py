"""Having a judge rank planned windows: nothing that was ranked is lost or asked for twice."""

import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from valueflow.errors import InvalidInput
from valueflow.judges.base import Judge, Unranked
from valueflow.theories import get_value
from valueflow.typing import Item
from valueflow.vidb.planning import PlannedWindow
from valueflow.vidb.schema import Ladder, RankingRecord, read_rankings

Progress = Callable[[int, int], None]

_START = b'{"window": '


@dataclass(frozen=True)
class Collected:
    """What became of a plan.

    Attributes:
        ranked: windows ranked by this call.
        known: windows that the file had already.
        unranked: (window id, reason) of those the judge could not order; asked again next time.
    """

    ranked: int
    known: int
    unranked: tuple[tuple[str, str], ...]


def collect(
    planned: Sequence[PlannedWindow],
    ladders: Sequence[Ladder],
    judge: Judge,
    path: str | Path,
    *,
    ranker: str | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> Collected:
    """Rank what is not yet in the file, and append each batch to it as soon as it is ranked.

    Killed at any moment, the file holds every batch that was finished; a line cut off in the middle
    is dropped by the next call, which goes on where this one stopped. Two calls on one file wait
    for each other.

    Args:
        planned: windows of one or several values.
        ladders: hold the texts.
        judge: ranks them.
        path: JSON lines of `RankingRecord`, made if it is not there.
        ranker: who is named as having ranked; None for the judge's name and fingerprint.
        batch: windows per call of the judge.
        progress: called with windows done and all.

    Raises:
        InvalidInput: before anything is ranked: a window there twice, with a text that no ladder
            has, with texts of two values, or whose id is that of another window in the file; a file
            that holds other lines than rankings. Later: a verdict that is no permutation.
        UnknownName: texts of a value that no theory has.
    """
    if batch < 1:
        raise InvalidInput(f"a batch is 1 window or more, got {batch}")
    path = Path(path)
    items = {
        ladder.text_id(rung): Item(text, ladder.context)
        for ladder in ladders
        for rung, text in enumerate(ladder.rungs, start=1)
    }
    _check(planned, items)
    name = ranker or f"{judge.name}-{judge.fingerprint()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        todo = _todo(planned, _intact(path), path)
        unranked: list[tuple[str, str]] = []
        done = 0
        for part in _batches(todo, batch):
            records, failed = _rank(part, items, judge, name)
            _append(path, records)
            unranked += failed
            done += len(part)
            if progress is not None:
                progress(done, len(todo))
    return Collected(len(todo) - len(unranked), len(planned) - len(todo), tuple(unranked))


def _check(planned: Sequence[PlannedWindow], items: Collection[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for window in planned:
        missing = [text_id for text_id in window.shown if text_id not in items]
        if missing:
            raise InvalidInput(f"window {window.window}: no ladder has text {missing[0]!r}")
        values = {_value(text_id) for text_id in window.shown}
        if len(values) > 1:
            raise InvalidInput(
                f"window {window.window} shows texts of {' and '.join(sorted(values))}; "
                "a judge is asked about one value"
            )
        get_value(values.pop())
        if (window.window, window.kind) in seen:
            raise InvalidInput(f"window {window.window} is planned twice as {window.kind!r}")
        seen.add((window.window, window.kind))


def _todo(
    planned: Sequence[PlannedWindow], records: Sequence[RankingRecord], path: Path
) -> list[PlannedWindow]:
    known = {(r.window, r.kind): set(r.shown) for r in records}
    for p in planned:
        if known.get((p.window, p.kind), set(p.shown)) != set(p.shown):
            raise InvalidInput(
                f"window {p.window} shows other texts than in {path}; "
                "plan anew from a folder that holds those rankings"
            )
    return [p for p in planned if (p.window, p.kind) not in known]


def _batches(todo: Sequence[PlannedWindow], size: int) -> list[list[PlannedWindow]]:
    """Windows of one value at a time: a judge is asked about one value."""
    by_value: dict[str, list[PlannedWindow]] = {}
    for window in todo:
        by_value.setdefault(_value(window.shown[0]), []).append(window)
    return [own[i : i + size] for own in by_value.values() for i in range(0, len(own), size)]


def _value(text_id: str) -> str:
    return "/".join(text_id.split("/")[:2])


def _rank(
    part: Sequence[PlannedWindow], items: dict[str, Item], judge: Judge, ranker: str
) -> tuple[list[RankingRecord], list[tuple[str, str]]]:
    windows = [tuple(items[text_id] for text_id in p.shown) for p in part]
    verdicts = judge.rank(get_value(_value(part[0].shown[0])), windows)
    if len(verdicts) != len(windows):
        raise InvalidInput(
            f"judge {judge.name!r} gave {len(verdicts)} verdicts for {len(windows)} windows"
        )
    records, failed = [], []
    for window, verdict in zip(part, verdicts, strict=True):
        if isinstance(verdict, Unranked):
            failed.append((window.window, verdict.reason))
            continue
        if sorted(verdict) != list(range(len(window.shown))):
            raise InvalidInput(
                f"judge {judge.name!r} gave {verdict} for window {window.window} of "
                f"{len(window.shown)} texts; expected a permutation of their positions"
            )
        order = tuple(window.shown[i] for i in verdict)
        records.append(RankingRecord(window.window, window.kind, ranker, window.shown, order))
    return records, failed


def _intact(path: Path) -> list[RankingRecord]:
    """The records there; the rest of a line that was being written when its writer died goes."""
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    last = content[end:]
    # Only what begins as `_append` writes: a file given by mistake must not lose its last line.
    ours = last.startswith(_START) or _START.startswith(last)
    if last and ours and not _is_json(last):
        with path.open("r+b") as file:
            file.truncate(end)
        last = b""
    records = read_rankings(path)
    if last:
        with path.open("ab") as file:
            file.write(b"\n")
    return records


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _append(path: Path, records: Sequence[RankingRecord]) -> None:
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())
