"""Lines, records and cells of a corpus's files; what is not as documented is refused by name.

Files are read in binary, one bounded line at a time, so that a damaged or hostile file costs no
more memory than one line. Every error names `file:line` and how to mend it; lines count from 1.
"""

import csv
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from valueflow.errors import InvalidInput
from valueflow.registry import near_misses

LINE_LIMIT = 10_000_000
"""Bytes of the longest line that is read."""

# As spreadsheets and data frames write a text that is not there.
_MISSING = ("nan", "<na>", "#n/a", "#na")


def find_file(path: Path, pattern: str) -> Path:
    """`path` itself if it is a file, else the one file in the folder whose name fits `pattern`.

    Raises:
        InvalidInput: no such path; no file, or several, that fit.
    """
    if path.is_file():
        return path
    found = find_files(path, pattern)
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise InvalidInput(f"{path}: expected one {pattern}, found {names}; name the file to read")
    return found[0]


def find_files(path: Path, *patterns: str) -> list[Path]:
    """The files in the folder `path` whose names fit one of `patterns`, sorted by name.

    Raises:
        InvalidInput: no such folder, or nothing in it fits.
    """
    wanted = " or ".join(patterns)
    if not path.is_dir():
        state = "is no file or folder" if path.exists() else "does not exist"
        raise InvalidInput(f"{path}: {state}; give a folder with {wanted}, as published")
    found = sorted({file for p in patterns for file in path.glob(p) if file.is_file()})
    if not found:
        raise InvalidInput(f"{path}: no file {wanted} in it; give the folder of the corpus")
    return found


def lines(path: Path, *, limit: int = LINE_LIMIT) -> Iterator[str]:
    """Lines of a UTF-8 file with their ends, a byte order mark dropped.

    Only a line feed ends a line: `str.splitlines` would also cut at the U+2028 of a text.

    Raises:
        InvalidInput: cannot be opened, a line over `limit` bytes, bytes that are not UTF-8.
    """
    try:
        with path.open("rb") as file:
            number = 1
            while raw := file.readline(limit + 1):
                yield _decoded(f"{path}:{number}", raw, limit, first=number == 1)
                number += 1
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None


def _decoded(where: str, raw: bytes, limit: int, *, first: bool) -> str:
    if len(raw) > limit:
        raise InvalidInput(
            f"{where}: line longer than {limit // 10**6} MB; the file is damaged or of another "
            "format, get it again"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: not UTF-8 at byte {error.start} of the line; save it as UTF-8"
        ) from None
    return text.removeprefix("\ufeff") if first else text


def records(
    path: Path, *, delimiter: str = ",", quoted: bool = True
) -> Iterator[tuple[str, list[str]]]:
    """(file:line, cells) of each record that is not blank; the line is the record's first.

    Args:
        path: the file.
        delimiter: between cells.
        quoted: whether `"` encloses cells; else it is a character like any other.

    Raises:
        InvalidInput: what `lines` refuses; a quote that is never closed, a cell of more than
            `csv.field_size_limit()` characters, a stray carriage return.
    """
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines(path), delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidInput(
                f"{where}: cannot be split into cells ({error}); is a quote not closed?"
            ) from None
        if cells:
            yield where, cells


def delimited(
    path: Path, columns: Sequence[str], *, delimiter: str = ",", quoted: bool = True
) -> Iterator[tuple[str, dict[str, str]]]:
    """(file:line, the cells of `columns`) of each record below the header.

    Raises:
        InvalidInput: what `records` refuses; no header, a column missing or there twice, no record
            below the header, a record with more or fewer cells than the header.
    """
    found = records(path, delimiter=delimiter, quoted=quoted)
    where, header = next(found, (f"{path}:1", []))
    for column in columns:
        if header.count(column) != 1:
            _refuse_column(where, column, header)
    places = {column: header.index(column) for column in columns}
    empty = True
    for where, cells in found:
        empty = False
        if len(cells) != len(header):
            raise InvalidInput(
                f"{where}: expected {len(header)} cells as in the header, got {len(cells)}; "
                "mend or remove the record"
            )
        yield where, {column: cells[place] for column, place in places.items()}
    if empty:
        raise InvalidInput(f"{path}:2: no record below the header; the file is cut off")


def _refuse_column(where: str, column: str, header: list[str]) -> NoReturn:
    if column in header:
        raise InvalidInput(f"{where}: column {column!r} is there twice; rename or remove one")
    # Comparing with each of a million cells would take minutes.
    close = near_misses(column, header[:200])
    hint = f"did you mean {' or '.join(close)}?" if close else "is this the file as published?"
    has = ", ".join(header[:12])[:200] or "nothing"
    raise InvalidInput(f"{where}: column {column!r} is missing, the header has {has}; {hint}")


def json_lines(
    path: Path, *, limit: int = LINE_LIMIT, may_be_empty: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, object) of each line that is not blank.

    Raises:
        InvalidInput: what `lines` refuses; a line that is no JSON object, NaN or Infinity in it; no
            object at all, unless the file may be empty.
    """
    empty = not may_be_empty
    for number, line in enumerate(lines(path, limit=limit), start=1):
        if not line.strip():
            continue
        where, empty = f"{path}:{number}", False
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{where}: not JSON ({error}); mend or remove the line") from None
        if not isinstance(row, dict):
            raise InvalidInput(f"{where}: expected a JSON object, got {type(row).__name__}")
        yield where, row
    if empty:
        raise InvalidInput(f"{path}:1: the file is empty; get it again")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON knows")


def text_in(where: str, row: dict[str, Any], key: str) -> str:
    """The text in `row[key]` without white space at its ends; refuses none, empty and NaN."""
    found = row.get(key)
    if not isinstance(found, str) or not found.strip() or found.strip().lower() in _MISSING:
        raise InvalidInput(
            f"{where}: {key!r} must be text that is not empty, got {found!r:.80}; "
            "mend or remove the record"
        )
    return found.strip()


def label_in(where: str, row: dict[str, Any], key: str, known: Collection[str]) -> str:
    """The label in `row[key]`; one that the corpus does not document is refused."""
    return known_label(where, key, row.get(key), known)


def known_label(where: str, key: str, found: object, known: Collection[str]) -> str:
    """`found` itself if it is one of `known`, else an error with near misses."""
    if isinstance(found, str) and found in known:
        return found
    close = near_misses(found, known) if isinstance(found, str) and len(found) < 200 else []
    some = ", ".join(repr(label) for label in (close or sorted(known)[:24]))
    raise InvalidInput(f"{where}: {key!r} is {found!r:.80}, expected {some}; mend the label")


def seen_once(what: str) -> Callable[[str, str], str]:
    """A function (file:line, id) -> id that refuses an id it was given before."""
    first: dict[str, str] = {}

    def check(where: str, identifier: str) -> str:
        if identifier in first:
            raise InvalidInput(
                f"{where}: {what} {identifier!r} is in {first[identifier]} already; remove one"
            )
        first[identifier] = where
        return identifier

    return check
