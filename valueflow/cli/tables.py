"""Tables of texts: CSV and JSONL in, CSV and JSONL out, told apart by the file's ending."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from valueflow.cli.common import read_text
from valueflow.errors import InvalidInput

ENDINGS = (".csv", ".jsonl")

Row = dict[str, Any]


def check_ending(path: Path) -> str:
    """The ending, `.csv` or `.jsonl`; raises InvalidInput for any other."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InvalidInput(f"{path}: expected a name that ends in .csv or .jsonl")
    return ending


def parse_table(
    path: Path, *, required: str, texts: Sequence[str], reserved: Sequence[str]
) -> list[Row]:
    """The rows of a file.

    Args:
        path: CSV with a header, or JSONL.
        required: a column that must be there, in every row.
        texts: columns that hold text where they are there at all (in JSONL: or null).
        reserved: columns that must not be there, as they are about to be written.

    Raises:
        InvalidInput: no such file, not such a table; names the line, or the columns it has.
    """
    ending, text = check_ending(path), read_text(path)
    numbered = _parse_csv(path, text) if ending == ".csv" else _parse_jsonl(path, text)
    if not numbered:
        raise InvalidInput(f"{path}: expected rows, found none")
    for line, row in numbered:
        if required not in row:
            raise InvalidInput(
                f"{path}, line {line}: no column {required!r}; the columns are {', '.join(row)}"
            )
        for name in texts:
            if not isinstance(row.get(name, ""), str if name == required else str | None):
                raise InvalidInput(f"{path}, line {line}: expected {name!r} to be text")
        taken = [name for name in reserved if name in row]
        if taken:
            raise InvalidInput(f"{path}: has a column {taken[0]!r} already; rename or remove it")
    return [row for _, row in numbered]


def render_table(rows: Sequence[Row], path: Path) -> str:
    """Rows as the text of a file of that name; None is an empty field, in JSONL null."""
    if check_ending(path) == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parse_csv(path: Path, text: str) -> list[tuple[int, Row]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, Row]] = []
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise InvalidInput(f"{path}: a column occurs twice: {', '.join(header)}")
        for fields in reader:
            if fields and len(fields) != len(header):
                raise InvalidInput(
                    f"{path}, line {reader.line_num}: expected {len(header)} fields "
                    f"({', '.join(header)}), got {len(fields)}; put texts with commas in quotes"
                )
            if fields:
                rows.append((reader.line_num, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise InvalidInput(f"{path}, line {reader.line_num}: not CSV: {error}") from None
    return rows


def _parse_jsonl(path: Path, text: str) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    # Not splitlines: JSON strings may hold U+2028 and the like as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InvalidInput(f"{path}, line {number}: expected an object with 'response'")
        rows.append((number, row))
    return rows
