"""Value profiles as JSON: written plainly, read with every field checked."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from valueflow.errors import InvalidInput
from valueflow.hives.profile import Evidence, Status, ValueProfile, ValueScore
from valueflow.theories import get_value

KIND, SCHEMA_VERSION = "value-profile", 1


def dump(profile: ValueProfile) -> str:
    """One JSON object; NaN is written as null."""
    fields = {name: getattr(profile, name) for name in ("n_texts", "k", "min_similarity")}
    scores = [
        {name: None if _is_nan(x) else x for name, x in asdict(score).items()}
        for score in profile.scores.values()
    ]
    document = {"kind": KIND, "schema_version": SCHEMA_VERSION, **fields}
    document |= {"vidb": profile.vidb, "encoder": profile.encoder, "scores": scores}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def parse(text: str) -> ValueProfile:
    """See `ValueProfile.from_json`."""
    try:
        document = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"a profile is JSON, this is not: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise InvalidInput(f"expected an object of kind {KIND!r}; write it with to_json")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InvalidInput(
            f"profile: schema {document.get('schema_version')!r}, expected {SCHEMA_VERSION}"
        )
    n_texts = _whole(document, "n_texts", "profile", 1)
    rows = document.get("scores")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInput("profile: 'scores' must be a list of objects")
    scores = [_score(row, n_texts) for row in rows]
    by_value = {score.value: score for score in scores}
    if not scores or len(by_value) < len(scores):
        raise InvalidInput("profile: 'scores' must hold each value once, and one or more")
    return ValueProfile(
        scores=by_value,
        n_texts=n_texts,
        k=_whole(document, "k", "profile", 1),
        min_similarity=_number(document, "min_similarity", "profile", -math.inf, math.inf),
        vidb=_text(document, "vidb", "profile"),
        encoder=_text(document, "encoder", "profile"),
    )


def _score(row: Mapping[str, Any], n_texts: int) -> ValueScore:
    value = _text(row, "value", "profile score")
    if get_value(value).id != value:
        raise InvalidInput(f"profile: {value!r} is no id; write {get_value(value).id!r}")
    n = _whole(row, "n_texts", value, 0)
    if n > n_texts:
        raise InvalidInput(f"{value}: {n} texts of a profile made from {n_texts}")
    status: Status = "ok" if n > 1 else ("single" if n else "silent")
    if row.get("status") != status:
        raise InvalidInput(f"{value}: status {row.get('status')!r}, with {n} texts it is {status}")
    evidence = row.get("evidence")
    if not isinstance(evidence, list) or not all(isinstance(e, dict) for e in evidence):
        raise InvalidInput(f"{value}: 'evidence' must be a list of objects")
    return ValueScore(
        value=value,
        intensity=_number(row, "intensity", value, -10.0, 10.0) if n else _null(row, "intensity"),
        stderr=_number(row, "stderr", value, 0.0, math.inf) if n > 1 else _null(row, "stderr"),
        n_texts=n,
        share=_number(row, "share", value, 0.0, 1.0),
        status=status,
        evidence=tuple(_evidence(each, value) for each in evidence),
    )


def _evidence(row: Mapping[str, Any], value: str) -> Evidence:
    return Evidence(
        _text(row, "text", value),
        _number(row, "weight", value, 0.0, 1.0),
        _number(row, "intensity", value, -10.0, 10.0),
    )


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    found = row.get(name)
    if not isinstance(found, str) or not found.strip():
        raise InvalidInput(f"{where}: {name!r} must be text, got {found!r:.80}")
    return found


def _whole(row: Mapping[str, Any], name: str, where: str, least: int) -> int:
    found = row.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or found < least:
        raise InvalidInput(
            f"{where}: {name!r} must be a whole number >= {least}, got {found!r:.40}"
        )
    return found


def _number(row: Mapping[str, Any], name: str, where: str, low: float, high: float) -> float:
    found = row.get(name)
    # A hair beyond the ends: sums of shares are rounded.
    if (
        not isinstance(found, (int, float))
        or isinstance(found, bool)
        or not low - 1e-9 <= found <= high + 1e-9
    ):
        raise InvalidInput(f"{where}: {name!r} must be in [{low:g}, {high:g}], got {found!r:.80}")
    return float(found)


def _null(row: Mapping[str, Any], name: str) -> float:
    if name not in row or row[name] is not None:
        raise InvalidInput(f"{row['value']}: {name!r} must be null, got {row.get(name)!r:.80}")
    return math.nan


def _is_nan(x: object) -> bool:
    return isinstance(x, float) and math.isnan(x)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
