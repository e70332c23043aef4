"""From a theory file (YAML) to a `Theory`, refusing files that do not describe one.

Inside a file ids are short (`power`, not `svt/power`), and only `id`, `name` and `definition` are
required of a node; a steered one also needs `supports` and `opposes`.
"""

import re
from typing import Any

import yaml

from valueflow.errors import InvalidInput
from valueflow.theories.base import Theory, Value, value_keys

_REQUIRED = {"id", "name", "definition"}
_OPTIONAL = ("supports", "opposes", "article")
_NODE_KEYS = {*_REQUIRED, *_OPTIONAL, "aliases", "parents", "steered"}
_FILE_KEYS = {"id", "name", "source", "circle", "values"}


def parse_theory(text: str, *, file: str) -> Theory:
    """The theory that the YAML document `text` describes; `file` is its name in messages.

    Raises InvalidInput, naming file and node, for: YAML that cannot be read; a missing, empty or
    unknown key; an id that is no kebab-case word or occurs twice; a name or alias that stands for
    two nodes; a parent that does not exist; a cycle of parents; a steered node without `supports`
    or `opposes`; a circle that is not made of all steered values.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file}: expected YAML, got {' '.join(str(error).split())}") from error
    document = _checked_mapping(document, _FILE_KEYS, {"id", "name", "source", "values"}, file)
    theory_id = _text(document["id"], "id", file)
    nodes = document["values"]
    if not isinstance(nodes, list) or not nodes:
        raise InvalidInput(f"{file}: expected 'values' to be a list of nodes, got {nodes!r}")
    values = tuple(_parse_value(node, theory_id, file) for node in nodes)
    _check_ids(values, file)
    _check_names(values, file)
    _check_parents(values, file)
    return Theory(
        id=theory_id,
        name=_text(document["name"], "name", file),
        source=_text(document["source"], "source", file),
        values=values,
        circle=_parse_circle(document.get("circle"), values, theory_id, file),
    )


def _parse_value(node: Any, theory_id: str, file: str) -> Value:
    label = node.get("id", node.get("name", "?")) if isinstance(node, dict) else "?"
    where = f"{file}: node {label!r}"
    node = _checked_mapping(node, _NODE_KEYS, _REQUIRED, where)
    short, steered = _text(node["id"], "id", where), node.get("steered", False)
    optional = {key: _text(node[key], key, where) if key in node else None for key in _OPTIONAL}
    parents = _texts(node.get("parents", []), "parents", where)
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", short):
        raise InvalidInput(f"{where}: expected a kebab-case id such as 'fair-trial', got {short!r}")
    if not isinstance(steered, bool):
        raise InvalidInput(f"{where}: expected 'steered' to be true or false, got {steered!r}")
    if steered and not (optional["supports"] and optional["opposes"]):
        raise InvalidInput(f"{where}: a steered value needs both 'supports' and 'opposes'")
    return Value(
        id=f"{theory_id}/{short}",
        theory=theory_id,
        name=_text(node["name"], "name", where),
        definition=_text(node["definition"], "definition", where),
        aliases=_texts(node.get("aliases", []), "aliases", where),
        parents=tuple(f"{theory_id}/{parent}" for parent in parents),
        steered=steered,
        **optional,
    )


def _parse_circle(
    circle: Any, values: tuple[Value, ...], theory_id: str, file: str
) -> tuple[str, ...] | None:
    if circle is None:
        return None
    ids = tuple(f"{theory_id}/{short}" for short in _texts(circle, "circle", file))
    steered = {value.id for value in values if value.steered}
    if len(ids) != len(set(ids)) or set(ids) != steered:
        wrong = sorted(set(ids) ^ steered) or sorted({node for node in ids if ids.count(node) > 1})
        raise InvalidInput(
            f"{file}: expected 'circle' to hold every steered value once; "
            f"missing, repeated or not steered: {', '.join(wrong)}"
        )
    return ids


def _check_ids(values: tuple[Value, ...], file: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value.id in seen:
            raise InvalidInput(f"{file}: node {value.id!r} occurs twice; give one another id")
        seen.add(value.id)


def _check_names(values: tuple[Value, ...], file: str) -> None:
    owner: dict[str, str] = {}
    for value in values:
        for key in sorted(value_keys(value)):
            if owner.setdefault(key, value.id) != value.id:
                raise InvalidInput(
                    f"{file}: node {value.id!r}: {key!r} already stands for {owner[key]!r}; "
                    "a name or alias must mean one node of the theory"
                )


def _check_parents(values: tuple[Value, ...], file: str) -> None:
    waiting = {value.id: set(value.parents) for value in values}
    for value in values:
        for parent in value.parents:
            if parent not in waiting:
                raise InvalidInput(f"{file}: node {value.id!r} has an unknown parent {parent!r}")
        if len(set(value.parents)) < len(value.parents):
            raise InvalidInput(f"{file}: node {value.id!r} names a parent twice")
    while waiting:
        placed = {node for node, parents in waiting.items() if not parents & waiting.keys()}
        if not placed:
            raise InvalidInput(f"{file}: cycle of parents; on it or below it: {', '.join(waiting)}")
        waiting = {node: parents for node, parents in waiting.items() if node not in placed}


def _checked_mapping(found: Any, known: set[str], required: set[str], where: str) -> dict:
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: expected a mapping with {sorted(required)}, got {found!r}")
    if missing := sorted(required - found.keys()):
        raise InvalidInput(f"{where}: missing {', '.join(missing)}")
    if unknown := sorted(str(key) for key in found.keys() - known):
        raise InvalidInput(
            f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    return found


def _text(found: Any, key: str, where: str) -> str:
    if not isinstance(found, str) or not found.strip():
        raise InvalidInput(f"{where}: expected {key!r} to be text that is not empty, got {found!r}")
    return found.strip()


def _texts(found: Any, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise InvalidInput(f"{where}: expected {key!r} to be a list, got {found!r}")
    return tuple(_text(item, key, where) for item in found)
