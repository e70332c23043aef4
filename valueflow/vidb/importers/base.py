"""What an importer is, what it yields, and how that becomes a table."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

Direction = Literal[-1, 0, 1]

IMPORT_COLUMNS = (
    "id", "text", "context", "value", "direction", "grade", "annotators", "agreeing",
    "source", "licence",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What a corpus says about one text and one value.

    Attributes:
        id: the text's id in the corpus, or the number of its record where the corpus has no ids.
        text: never empty, as published but for white space at its ends.
        context: the question or premise that the text answers, or None.
        value: full id of a value, `"svt/power"`.
        direction: +1 supports the value, -1 opposes it, 0 neither; None where the corpus says only
            that the value is touched.
        grade: in [-1, 1], where the corpus has degrees; its sign is `direction`.
        annotators: people who were asked, None where the corpus does not say.
        agreeing: those of them who gave this label.
    """

    id: str
    text: str
    context: str | None
    value: str
    direction: Direction | None = None
    grade: float | None = None
    annotators: int | None = None
    agreeing: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """A record, or a label of one, that gives no row, and why."""

    reason: str


@dataclass(frozen=True)
class Importer:
    """How one corpus is read.

    Attributes:
        name: what `import_corpus` is asked for.
        title: the corpus as it is cited; the `source` of its rows.
        licence: of the corpus as published; the `licence` of its rows.
        files: the path that is expected, in words.
        mapping: how its labels become value, direction and grade, and which labels do not.
        read: yields rows and what is left out; raises InvalidInput naming file and line.
    """

    name: str
    title: str
    licence: str
    files: str
    mapping: str
    read: Callable[[Path], Iterator[Row | LeftOut]]


def to_frame(importer: Importer, path: Path) -> "pd.DataFrame":
    """The rows of the corpus at `path`, one per (context, text, value), in the file's order.

    Columns are `IMPORT_COLUMNS`, missing cells None. `attrs["left_out"]` counts by reason what gave
    no row. Of rows that repeat a text and value with the same direction and grade the first stays;
    if they contradict each other all of them go.

    Raises:
        InvalidInput: what the importer's `read` refuses.
    """
    import pandas as pd

    left_out: Counter[str] = Counter()
    rows = _without_repeats(_counted(importer.read(path), left_out), left_out)
    frame = pd.DataFrame(
        [(*vars(row).values(), importer.title, importer.licence) for row in rows],
        columns=list(IMPORT_COLUMNS),
        # Any narrower type would turn None into NaN, which is truthy and no text.
        dtype=object,
    )
    frame.attrs["left_out"] = dict(left_out.most_common())
    return frame


def _counted(found: Iterable[Row | LeftOut], left_out: Counter[str]) -> Iterator[Row]:
    for item in found:
        if isinstance(item, LeftOut):
            left_out[item.reason] += 1
        else:
            yield item


def _without_repeats(rows: Iterable[Row], left_out: Counter[str]) -> list[Row]:
    groups: dict[tuple[str | None, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.context, row.text, row.value), []).append(row)
    kept = []
    for group in groups.values():
        if len({(row.direction, row.grade) for row in group}) > 1:
            left_out["the same text and value with contradictory labels"] += len(group)
            continue
        kept.append(group[0])
        if len(group) > 1:
            left_out["the same text and value again"] += len(group) - 1
    return kept
