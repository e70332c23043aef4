"""Moral Foundations Reddit Corpus, in the form with one column of annotator counts per label."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.vidb.importers.base import Importer, LeftOut, Row
from valueflow.vidb.importers.reading import delimited, find_file, label_in, seen_once, text_in

# Atari et al. (2023) split fairness into two foundations; ours, like Haidt's (2012), is one.
FOUNDATIONS = {
    "Care": "mft/care-harm",
    "Equality": "mft/fairness-cheating",
    "Proportionality": "mft/fairness-cheating",
    "Loyalty": "mft/loyalty-betrayal",
    "Authority": "mft/authority-subversion",
    "Purity": "mft/sanctity-degradation",
}
# "Thin Morality" is a moral judgement without a foundation.
WITHOUT_VALUE = ("Thin Morality", "Non-Moral")
# At least three annotators read a text; a count of two digits is none of people.
COUNTS = tuple("0123456789")


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the tab-separated file, one for each foundation that an annotator chose."""
    once = seen_once("ID")
    labels = (*FOUNDATIONS, *WITHOUT_VALUE)
    file = find_file(path, "mfrc*.tsv")
    for where, cells in delimited(file, ("ID", "text", *labels), delimiter="\t"):
        identifier = once(where, text_in(where, cells, "ID"))
        text = text_in(where, cells, "text")
        chosen = {label: int(label_in(where, cells, label, COUNTS)) for label in labels}
        agreeing: dict[str, int] = {}
        for label, value in FOUNDATIONS.items():
            # One annotator may choose both halves of fairness: the larger count is sure.
            agreeing[value] = max(agreeing.get(value, 0), chosen[label])
        if not any(agreeing.values()):
            yield LeftOut("no annotator chose a foundation")
        for value, count in agreeing.items():
            if count:
                yield Row(identifier, text, None, value, agreeing=count)


IMPORTER = Importer(
    name="mfrc",
    title="Moral Foundations Reddit Corpus",
    licence="CC BY 4.0",
    files="mfrc*.tsv (or its folder): ID, text and one column of counts per label",
    mapping=(
        "Each foundation that at least one trained annotator chose gives a row, agreeing = how "
        "many did; filter by it. Equality and Proportionality are both mft/fairness-cheating, with "
        "the larger count. The file does not say how many annotators a text had. The labels do not "
        "tell virtue from vice: no direction, no grade. Left out: texts with Thin Morality or "
        "Non-Moral alone. Liberty was not annotated."
    ),
    read=read,
)
