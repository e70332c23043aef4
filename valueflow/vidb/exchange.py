"""Graded texts from elsewhere and for elsewhere: the table of the VALUEFLOW paper.

That table is a CSV per value with the columns `text` and `final_rating`, the rating an intensity on
[-10, 10] (arXiv 2602.03160; the hub data set `snu-aidas/vidb-filtered`).
"""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from valueflow.errors import InvalidInput, UnknownName
from valueflow.theories import get_value
from valueflow.vidb.build import COLUMNS
from valueflow.vidb.importers.reading import delimited
from valueflow.vidb.schema import split_of
from valueflow.vidb.store import Vidb

HUB_DATASET = "snu-aidas/vidb-filtered"
TEXT, RATING = "text", "final_rating"
REGISTER = "text"
"""Register of texts that come without one; pass `registers=None` to use them as anchors."""


def export_csv(vidb: Vidb, value: str) -> str:
    """The value's texts as the paper's CSV, the strongest support first."""
    frame = vidb.of(value).frame.sort_values(["intensity", "id"], ascending=[False, True])
    stream = io.StringIO(newline="")
    # Texts in quotes always: not every version quotes one for a carriage return alone.
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([TEXT, RATING])
    writer.writerows(zip(frame["text"], frame["intensity"].round(4), strict=True))
    return stream.getvalue()


def import_csv(
    path: str | Path, value: str, *, source: str | None = None, licence: str = "unknown"
) -> Vidb:
    """A database of one value from the paper's CSV.

    Each text is a ladder of its own with rung 0, so that splits (by row number) work as in any
    other database; stderr is NaN, as the table has none.

    Args:
        path: CSV with `text` and `final_rating`; other columns are ignored.
        value: id or name of the value.
        source: where it is from; None for the file's name.
        licence: of the texts.

    Raises:
        InvalidInput: names file, line and mend: what `reading.delimited` refuses (not UTF-8, a
            column missing, cells too many or too few, a quote not closed, no rows), an empty or
            repeated text, a rating that is no number in [-10, 10].
    """
    import pandas as pd

    path, value_id = Path(path), get_value(value).id
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for where, row in delimited(path, (TEXT, RATING)):
        text, rating = _checked(where, row)
        if text in seen:
            raise InvalidInput(f"{where}: the text of {seen[text]} again; remove one of them")
        seen[text] = where
        ladder = f"{value_id}/{REGISTER}-{len(rows) + 1:02d}"
        rows.append({"id": f"{ladder}/0", "ladder": ladder, "text": text, "intensity": rating})
    frame = pd.DataFrame(rows).assign(
        value=value_id,
        rung=0,
        register=REGISTER,
        scenario="",
        context=None,
        stderr=np.nan,
        comparisons=0,
        source=source or path.name,
        licence=licence,
    )
    frame["split"] = [split_of(ladder) for ladder in frame["ladder"]]
    return Vidb(frame.loc[:, list(COLUMNS)])


def load_hub(value: str, *, dataset: str = HUB_DATASET) -> Vidb:
    """A value of the paper's own database, read from the hub.

    Raises:
        InvalidInput: the hub cannot be reached, or the data set has no file of the value; lists
            those it has.
    """
    from huggingface_hub import hf_hub_download, list_repo_files

    value_id = get_value(value).id
    try:
        files = [f for f in list_repo_files(dataset, repo_type="dataset") if f.endswith(".csv")]
        own = [f for f in files if _value_of(f) == value_id]
        path = hf_hub_download(dataset, own[0], repo_type="dataset") if own else None
    except Exception as error:  # with each HTTP library of the hub the errors have another base
        raise InvalidInput(
            f"{dataset} cannot be read from the hub ({type(error).__name__}); with a copy of its "
            "CSV use `import_csv`"
        ) from None
    if path is None:
        raise InvalidInput(
            f"{dataset} has no file of {value_id}; it has {', '.join(files) or 'no CSV'}"
        )
    return import_csv(path, value_id, source=dataset, licence="see the data set's card")


def _value_of(name: str) -> str | None:
    """The value that a file is named after; None if it is no value's."""
    stem = Path(name).stem.replace("_", " ").replace("-", " ")
    for candidate in (stem, stem.replace(" ", "/", 1)):
        try:
            return get_value(candidate).id
        except (UnknownName, InvalidInput):
            continue
    return None


def _checked(where: str, row: dict[str, str]) -> tuple[str, float]:
    text = row[TEXT]
    if not text.strip():
        raise InvalidInput(f"{where}: the text is empty; write it or remove the line")
    try:
        rating = float(row[RATING])
    except ValueError:
        rating = math.nan
    if not -10.0 <= rating <= 10.0:
        raise InvalidInput(
            f"{where}: {RATING} must be a number in [-10, 10], got {row[RATING]!r:.60}; "
            "mend it or remove the line"
        )
    return text, rating
