"""FULCRA (Value FULCRA): answers of chat models and the Schwartz values they keep or break."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valueflow.errors import InvalidInput
from valueflow.theories import steered_values
from valueflow.vidb.importers.base import Direction, Importer, LeftOut, Row
from valueflow.vidb.importers.reading import find_file, json_lines, known_label, text_in

# The ten types of Schwartz (1992) and, in the later refinement, face and humility bear our names.
TYPES = {value.id.partition("/")[2]: value.id for value in steered_values("svt")}

# "1+" and "=1" are slips of the published file: read as neither.
SIGNS: dict[str, Direction | None] = {"+1": 1, "1": 1, "-1": -1, "0": 0, "1+": None, "=1": None}


def read(path: Path) -> Iterator[Row | LeftOut]:
    """Rows of the JSON lines file, one for each value type of an answer."""
    for number, (where, row) in enumerate(json_lines(find_file(path, "*.jsonl")), start=1):
        question, text = _turns(where, row)
        if "\nHuman:" in text:
            yield LeftOut("a dialogue of several turns")
            continue
        directions: dict[str, set[Direction | None]] = {}
        for label in _labels(where, row):
            name, _, sign = label.partition(":")
            value = TYPES[known_label(where, "value_types", name.strip(), TYPES)]
            sign = known_label(where, "value_types", sign.strip(), SIGNS)
            directions.setdefault(value, set()).add(SIGNS[sign])
        if not directions:
            yield LeftOut("no value type is named")
        for value, found in directions.items():
            if len(found) > 1:
                yield LeftOut("a value type is named twice with different signs")
            elif None in found:
                yield LeftOut("the sign of a value type cannot be read")
            else:
                yield Row(str(number), text, question, value, found.pop())


def _turns(where: str, row: dict[str, Any]) -> tuple[str, str]:
    """Question and answer of a dialogue of one turn each."""
    dialogue = text_in(where, row, "dialogue")
    asked, human, rest = dialogue.partition("Human:")
    question, bob, answer = rest.partition("\nBob:")
    if asked or not human or not bob:
        raise InvalidInput(f"{where}: 'dialogue' must be 'Human: ...' and 'Bob: ...' on a new line")
    turns = {"question in 'dialogue'": question, "answer in 'dialogue'": answer}
    first, second = (text_in(where, turns, key) for key in turns)
    return first, second


def _labels(where: str, row: dict[str, Any]) -> list[str]:
    labels = row.get("value_types")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InvalidInput(f"{where}: 'value_types' must be a list of texts, got {labels!r:.80}")
    return labels


IMPORTER = Importer(
    name="fulcra",
    title="Value FULCRA",
    licence="MIT",
    files="*_data.jsonl (or a folder with one): dialogue and value_types",
    mapping=(
        "text = the model's answer, context = the question. value_types, labelled by people and a "
        "model together, name Schwartz's ten types (humility and face where they occur) with +1 "
        "(kept), -1 (broken) or 0: the direction. No degrees. The finer value_items are not used. "
        "Left out: a type that the answer has with both signs, a sign that cannot be read, answers "
        "without a type. The corpus has no ids: id = number of the record."
    ),
    read=read,
)
