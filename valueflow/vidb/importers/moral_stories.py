"""Moral Stories: actions that keep or break a norm. The norms name no value: no row comes of it."""

from collections.abc import Iterator
from pathlib import Path

from valueflow.errors import InvalidInput
from valueflow.vidb.importers.base import Importer, LeftOut, Row
from valueflow.vidb.importers.reading import find_file, json_lines, label_in, seen_once, text_in

ACTIONS = {"1": "moral_action", "0": "immoral_action"}


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Checks every record of the JSON lines file and leaves it out."""
    once = seen_once("ID")
    for where, row in json_lines(find_file(path, "*.jsonl")):
        once(where, text_in(where, row, "ID"))
        text_in(where, row, "norm")
        action = ACTIONS[label_in(where, row, "label", ACTIONS)]
        if action not in row:
            other = sorted(key for key in row if key.endswith("action"))
            raise InvalidInput(
                f"{where}: label {row['label']!r} goes with {action!r}, the record has "
                f"{', '.join(other) or 'no action'}; mend the label"
            )
        text_in(where, row, action)
        yield LeftOut("the norm names no value")


IMPORTER = Importer(
    name="moral_stories",
    title="Moral Stories",
    licence="MIT",
    files="a JSON lines file (or its folder): ID, norm, moral_action or immoral_action, label",
    mapping=(
        "None. A record says that an action keeps (1) or breaks (0) a norm written by a crowd "
        "worker; which value the norm serves is not labelled, and keeping a norm is not yet "
        "conformity (the norm may be to help a stranger). Every record is checked, counted and "
        "left out. Somebody has to label the norms first."
    ),
    read=read,
)
