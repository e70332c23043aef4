"""ValueLens synthetic data: short texts written and graded by language models."""

import re
from collections.abc import Iterator
from pathlib import Path

from valueflow.errors import InvalidInput
from valueflow.theories import steered_values
from valueflow.vidb.importers.base import Direction, Importer, LeftOut, Row
from valueflow.vidb.importers.reading import find_file, known_label, lines, text_in

VALUES = {value.name: value.id for value in steered_values("svt")}
GRADES: dict[str, tuple[Direction, float]] = {
    "strong_support": (1, 1.0),
    "mild_support": (1, 0.5),
    "neutral": (0, 0.0),
    "mild_resistance": (-1, -0.5),
    "strong_resistance": (-1, -1.0),
}
# In the file, but not among the five documented grades.
UNGRADED = "reframing"
HEADER = ("model", "text", "values", "intensity")


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the Schwartz file, one for each value of a text."""
    for number, (where, cells) in enumerate(_records(find_file(path, "schwartz*.csv")), start=1):
        text = text_in(where, cells, "text")
        values, grades = (_listed(where, cells, key) for key in ("values", "intensity"))
        if not values and grades == ["no_values"]:
            yield LeftOut("the text has no value")
            continue
        if not values or len(values) != len(grades):
            raise InvalidInput(
                f"{where}: expected one intensity per value, got {len(values)} values and "
                f"{len(grades)} intensities; mend the record"
            )
        for name, grade in zip(values, grades, strict=True):
            value = VALUES[known_label(where, "values", name.lower(), VALUES)]
            if known_label(where, "intensity", grade, (*GRADES, UNGRADED)) == UNGRADED:
                yield LeftOut(f"{UNGRADED!r} is no grade")
            else:
                yield Row(str(number), text, None, value, *GRADES[grade])


def _records(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines below the header, which itself follows a title and a description."""
    below = False
    for number, line in enumerate(lines(path), start=1):
        cells = line.rstrip("\r\n").split("###")
        if not below:
            below = tuple(cells) == HEADER
        elif line.strip():
            if len(cells) != len(HEADER):
                raise InvalidInput(
                    f"{path}:{number}: expected {len(HEADER)} cells divided by '###', "
                    f"got {len(cells)}; mend or remove the line"
                )
            yield f"{path}:{number}", dict(zip(HEADER, cells, strict=True))
    if not below:
        raise InvalidInput(f"{path}:1: no header {'###'.join(HEADER)}; is this the file?")


def _listed(where: str, cells: dict[str, str], key: str) -> list[str]:
    # Some lines carry the backslashes of an escaped Markdown text.
    found = re.fullmatch(r"\[(.*)\]", cells[key].replace("\\", "").strip())
    if found is None:
        raise InvalidInput(f"{where}: {key!r} must be a list in brackets, got {cells[key]!r:.80}")
    return [item.strip() for item in found[1].split(",") if item.strip()]


IMPORTER = Importer(
    name="valuelens_synth",
    title="ValueLens synthetic dataset (Schwartz, 1992)",
    licence="MIT",
    files="schwartz*.csv (or its folder): model###text###[values]###[grades]",
    mapping=(
        "The ten Schwartz values under their names; the n-th grade belongs to the n-th value. "
        "strong_support 1, mild_support 0.5, neutral 0, mild_resistance -0.5, strong_resistance "
        "-1; direction is the sign. Texts and labels are by language models: use them as such. "
        "Left out: texts with no_values, one grade outside the five. The file after Rokeach (1973) "
        "names other values and is refused. The corpus has no ids: id = number of the record."
    ),
    read=read,
)
