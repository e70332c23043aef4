"""Where the built database lives, and the handful of questions that are asked of it."""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from valueflow.artifacts import write_file
from valueflow.errors import InvalidInput
from valueflow.registry import unknown_name
from valueflow.theories import get_value
from valueflow.vidb.build import COLUMNS, build, none_for_missing
from valueflow.vidb.schema import SPLITS, Ladder, RankingRecord, read_ladders, read_rankings

if TYPE_CHECKING:
    import pandas as pd

STARTER = resources.files("valueflow") / "vidb" / "starter"


@dataclass(frozen=True)
class Vidb:
    """Graded texts; a table with the columns of `valueflow.vidb.build.COLUMNS`.

    Attributes:
        frame: one row per text. Treated as immutable: every method returns a new object.
    """

    frame: "pd.DataFrame"

    @property
    def values(self) -> tuple[str, ...]:
        """Ids of the values it holds."""
        return tuple(sorted(self.frame["value"].unique()))

    def of(self, value: str, *splits: str) -> "Vidb":
        """The texts of one value, of the given splits (all when none is given).

        Raises:
            UnknownName: no such value, no such split, or the database has no texts of it.
        """
        value_id = get_value(value).id
        if value_id not in self.values:
            raise unknown_name("value of the database", value_id, self.values)
        for split in splits:
            if split not in SPLITS:
                raise unknown_name("split", split, SPLITS)
        mask = self.frame["value"] == value_id
        if splits:
            mask &= self.frame["split"].isin(splits)
        return Vidb(self.frame.loc[mask].reset_index(drop=True))

    def fingerprint(self) -> str:
        """Hash of ids, texts, contexts and intensities, independent of the row order."""
        digest = hashlib.sha256()
        for row in sorted(_hashed_rows(self.frame)):
            digest.update(row.encode())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.frame)


def _hashed_rows(frame: "pd.DataFrame") -> Iterable[str]:
    columns = zip(frame["id"], frame["text"], frame["context"], frame["intensity"], strict=True)
    for text_id, text, context, intensity in columns:
        yield f"{text_id}\x1f{text}\x1f{context or ''}\x1f{intensity:.4f}\x1e"


@functools.cache
def load_starter() -> Vidb:
    """The database that is shipped, as built from its ladders and rankings."""
    with resources.as_file(STARTER / "vidb.parquet") as path:
        return load_vidb(path)


def load_vidb(path: str | Path) -> Vidb:
    """A database from a parquet file written by `save`.

    Raises:
        InvalidInput: no such file, not parquet, or columns missing.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: cannot be read as parquet: {error}") from None
    missing = [c for c in COLUMNS if c not in frame.columns]
    if missing:
        raise InvalidInput(f"{path}: columns missing: {', '.join(missing)}")
    return Vidb(none_for_missing(frame))


def save(vidb: Vidb, path: str | Path) -> None:
    """Write parquet; a crash half-way leaves what was there before."""
    write_file(Path(path), vidb.frame.to_parquet(index=False))


def read_folder(
    folder: str | Path | None = None, value: str | None = None, *, rankings: bool = True
) -> tuple[list[Ladder], list[RankingRecord]]:
    """Ladders and ranking records of a folder with `ladders/*.jsonl` and `rankings/*.jsonl`.

    Args:
        folder: None for the starter's.
        value: only this value's; None for all.
        rankings: whether to read those too; else the list is empty.

    Raises:
        InvalidInput: no ladders (of the value), or what `read_ladders`, `read_rankings` refuse.
    """
    if folder is None:
        with resources.as_file(STARTER) as starter:
            return read_folder(starter, value, rankings=rankings)
    folder = Path(folder)
    wanted = None if value is None else get_value(value).id
    ladders = [
        ladder
        for path in sorted((folder / "ladders").glob("*.jsonl"))
        for ladder in read_ladders(path)
        if wanted in (None, ladder.value)
    ]
    if not ladders:
        raise InvalidInput(
            f"{folder}: no ladders{f' of {wanted}' if wanted else ''} in ladders/*.jsonl"
        )
    records = [
        record
        for path in (sorted((folder / "rankings").glob("*.jsonl")) if rankings else ())
        for record in read_rankings(path)
        if wanted is None or record.shown[0].startswith(f"{wanted}/")
    ]
    return ladders, records


def build_folder(folder: str | Path) -> Vidb:
    """Build from a folder with `ladders/*.jsonl` and `rankings/*.jsonl`, as the starter's.

    Raises:
        InvalidInput: what `read_folder` and `build` refuse.
    """
    return Vidb(build(*read_folder(folder)))
