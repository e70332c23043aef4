"""Social Chemistry 101: judgements of everyday actions and the moral foundations behind them."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.vidb.importers.base import Direction, Importer, LeftOut, Row
from valueflow.vidb.importers.reading import (
    delimited,
    find_file,
    known_label,
    label_in,
    text_in,
)

FOUNDATIONS = {
    name: f"mft/{name}"
    for name in (
        "care-harm",
        "fairness-cheating",
        "loyalty-betrayal",
        "authority-subversion",
        "sanctity-degradation",
    )
}

# -2 very bad, -1 bad, 0 expected or OK, 1 good, 2 very good.
_LEVELS: dict[str, tuple[Direction, float]] = {
    "-2": (-1, -1.0),
    "-1": (-1, -0.5),
    "0": (0, 0.0),
    "1": (1, 0.5),
    "2": (1, 1.0),
}
# Data frames write a column with gaps as decimals.
JUDGEMENTS = _LEVELS | {f"{level}.0": meaning for level, meaning in _LEVELS.items()}
COLUMNS = ("action", "situation", "rot-moral-foundations", "action-moral-judgment")


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the file, one for each foundation of a record."""
    records = delimited(find_file(path, "*.csv"), COLUMNS)
    for number, (where, cells) in enumerate(records, start=1):
        text, context = text_in(where, cells, "action"), text_in(where, cells, "situation")
        judgement = label_in(where, cells, "action-moral-judgment", JUDGEMENTS)
        direction, grade = JUDGEMENTS[judgement]
        named = cells["rot-moral-foundations"]
        if not named:
            yield LeftOut("no moral foundation is named")
            continue
        for name in dict.fromkeys(named.split("|")):
            foundation = known_label(where, "rot-moral-foundations", name, FOUNDATIONS)
            yield Row(str(number), text, context, FOUNDATIONS[foundation], direction, grade)


IMPORTER = Importer(
    name="social_chem_subset",
    title="Social Chemistry 101",
    licence="CC BY-SA 4.0",
    files="a comma-separated file (or its folder) with columns " + ", ".join(COLUMNS),
    mapping=(
        "text = the action, context = the situation; one row per moral foundation of the rule of "
        "thumb. grade = moral judgement of the action / 2: an action judged good supports the "
        "foundation that the rule appeals to, one judged bad opposes it, one that is merely "
        "expected or OK does neither. The rule itself is not used: it may forbid what it names. "
        "Left out: rules without a foundation. The corpus has no ids: id = number of the record."
    ),
    read=read,
)
