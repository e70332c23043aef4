"""The importers by name."""

from pathlib import Path
from typing import TYPE_CHECKING

from valueflow.registry import Registry
from valueflow.vidb.importers import (
    ethics,
    fulcra,
    mfrc,
    moral_stories,
    moralchoice,
    persona,
    social_chem,
    valuebench,
    valueeval,
    valuelens,
)
from valueflow.vidb.importers.base import Importer, to_frame

if TYPE_CHECKING:
    import pandas as pd

IMPORTERS: Registry[Importer] = Registry("corpus")
for _module in (
    valueeval,
    mfrc,
    social_chem,
    moral_stories,
    ethics,
    moralchoice,
    valuebench,
    valuelens,
    fulcra,
    persona,
):
    IMPORTERS.add(_module.IMPORTER.name, _module.IMPORTER)


def import_corpus(name: str, path: str | Path) -> "pd.DataFrame":
    """What a public corpus says about texts and values, from a copy of your own.

    One row per (context, text, value), in the order of the files. Nothing is written. Columns are
    `IMPORT_COLUMNS`: `id` names the text within the corpus, (id, value) is unique; `context` is the
    question or premise, or None; `direction` is +1 (supports), -1 (opposes), 0 (neither) or None
    (the corpus says only that the value is touched); `grade` in [-1, 1] where the corpus has
    degrees; `annotators` and `agreeing` where it counts people; `source`, `licence` of the corpus.
    `frame.attrs["left_out"]` is {reason: records or labels that gave no row}.

    Args:
        name: one of `IMPORTERS`; `IMPORTERS[name].mapping` tells how its labels are read.
        path: `IMPORTERS[name].files` tells which file or folder.

    Raises:
        UnknownName: no such corpus; lists near misses.
        InvalidInput: names file and line and how to mend it: a file or column that is missing, text
            that is not UTF-8, an empty text or NaN, a label outside the documented set, an id that
            is there twice, a line of more than 10 MB.
    """
    return to_frame(IMPORTERS[name], Path(path))
