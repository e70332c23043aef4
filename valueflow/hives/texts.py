"""What the value space is trained on: texts, what is known of them, and where they are from."""

import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from valueflow.errors import InvalidInput
from valueflow.hives.labels import Labels, labels_for
from valueflow.hives.lessons import RUNG_INTENSITIES, Lesson
from valueflow.hives.questions import QuestionPair, as_read, rows_as_read
from valueflow.theories.anchors import Anchor
from valueflow.vidb.schema import N_RUNGS, Split
from valueflow.vidb.store import Vidb

if TYPE_CHECKING:
    import pandas as pd

UNIT = N_RUNGS
"""Texts that a batch takes together: a ladder, or as many texts of one value that stand alone."""

EXTREME = 8.0
"""Intensity of a corpus text with grade 1: that of a typical extreme rung."""

STANCE = 6.0
"""Intensity of a plain answer for or against a value: between those of the outer rungs."""

_MIDDLE = (N_RUNGS + 1) // 2


@dataclass(frozen=True, eq=False)
class TrainingTexts:
    """n texts of one or more sources.

    Attributes:
        texts: shape (n,).
        labels: value, direction, intensity of each.
        scenes: id of the ladder or question pair of each text; None for texts that stand alone.
        concepts: group of each text's cross-theory concept and side, negative for none.
        touches: values that a text is known to touch, of all those of `asked` and nothing more;
            its label, the first of them with direction 0, says nothing. Empty for other texts.
        asked: values that were asked for where a text has `touches`, else empty.
        sources: a line per source, with its licence and number of texts.
    """

    texts: tuple[str, ...]
    labels: Labels
    scenes: tuple[str | None, ...]
    concepts: Int[np.ndarray, " n"]
    touches: tuple[tuple[str, ...], ...]
    asked: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def instances(self) -> Int[np.ndarray, " n"]:
        """Group of texts that express one personal value: one side of one scene; -1 for none."""
        directions = self.labels.directions.tolist()
        groups: dict[tuple[str, int], int] = {}
        return np.array(
            [
                groups.setdefault((scene, d), len(groups)) if scene and d else -1
                for scene, d in zip(self.scenes, directions, strict=True)
            ],
            dtype=np.int64,
        )


def join(parts: Iterable[TrainingTexts]) -> TrainingTexts:
    """All parts, one after the other; concepts of different parts stay apart, equal scenes join.

    Raises InvalidInput without any part.
    """
    parts, concepts, shift = list(parts), [], 0
    if not parts:
        raise InvalidInput("expected one or more sources of training texts, got none")
    for part in parts:
        concepts.append(np.where(part.concepts >= 0, part.concepts + shift, -1))
        shift = max(shift, int(concepts[-1].max(initial=-1)) + 1)
    return TrainingTexts(
        tuple(text for part in parts for text in part.texts),
        labels_for(
            [value for part in parts for value in part.labels.values],
            [int(d) for part in parts for d in part.labels.directions],
            [float(i) for part in parts for i in part.labels.intensities],
        ),
        tuple(scene for part in parts for scene in part.scenes),
        np.concatenate(concepts),
        tuple(touch for part in parts for touch in part.touches),
        tuple(asked for part in parts for asked in part.asked),
        tuple(source for part in parts for source in part.sources),
    )


def vidb_texts(vidb: Vidb, split: Split) -> TrainingTexts:
    """The ladders of one split; directions are those of the rungs, the middle one's is 0.

    Of the ladders that answer a question, a half by the hash of their ids is read with it.
    """
    frame = vidb.frame.loc[vidb.frame["split"] == split].sort_values(["ladder", "rung"])
    directions = np.sign(frame["rung"].to_numpy() - _MIDDLE)
    labels = labels_for(
        frame["value"].tolist(), directions.tolist(), frame["intensity"].astype(float).tolist()
    )
    source = f"VIDB starter {vidb.fingerprint()}, split {split}: {len(frame)} texts, CC BY 4.0"
    rows = zip(frame["text"], frame["context"], frame["ladder"], strict=True)
    texts = [_maybe_asked(text, context, ladder) for text, context, ladder in rows]
    return _texts(texts, labels, frame["ladder"].tolist(), source)


def lesson_texts(lessons: Sequence[Lesson]) -> TrainingTexts:
    """The rungs of lessons, with the mean intensity of such rungs; questions as in VIDB's texts."""
    rows = [(x, rung) for x in lessons for rung in range(N_RUNGS)]
    labels = labels_for(
        [x.value for x, _ in rows],
        [int(np.sign(rung + 1 - _MIDDLE)) for _, rung in rows],
        [RUNG_INTENSITIES[rung] for _, rung in rows],
    )
    texts = [_maybe_asked(x.rungs[rung], x.context, x.id) for x, rung in rows]
    return _texts(texts, labels, [x.id for x, _ in rows], f"lessons: {len(rows)} texts, CC BY 4.0")


def question_texts(pairs: Sequence[QuestionPair]) -> TrainingTexts:
    """Answers read with their questions; the two of a pair make a scene of their own."""
    rows = [(pair, item, side) for pair in pairs
            for item, side in ((pair.supports, 1), (pair.opposes, -1))]  # fmt: skip
    labels = labels_for(
        [pair.value for pair, _, _ in rows],
        [side for _, _, side in rows],
        [side * STANCE for _, _, side in rows],
    )
    texts = [as_read(item.text, item.context) for _, item, _ in rows]
    source = f"question pairs: {len(rows)} texts, CC BY 4.0"
    return _texts(texts, labels, [pair.id for pair, _, _ in rows], source)


def anchor_texts(anchors: Sequence[Anchor]) -> TrainingTexts:
    """Texts of cross-theory concepts; those of a side go in turn to the values that it joins."""
    texts, values, directions, concepts = [], [], [], []
    for number, anchor in enumerate(anchors):
        for side, (sign, own) in enumerate(((1, anchor.supports), (-1, anchor.opposes))):
            for place, text in enumerate(own):
                value, direction = anchor.values[place % len(anchor.values)]
                texts.append(text)
                values.append(value)
                directions.append(sign * direction)
                concepts.append(2 * number + side)
    labels = labels_for(values, directions)
    found = _texts(texts, labels, [None] * len(texts), f"concept anchors: {len(texts)} texts, MIT")
    return replace(found, concepts=np.array(concepts, dtype=np.int64))


def corpus_texts(
    rows: "pd.DataFrame", *, per_value: int, without: Collection[str] = (), seed: int
) -> TrainingTexts:
    """Texts of an imported corpus (`valueflow.vidb.importers`), drawn by chance.

    Rows with a direction: at most `per_value` texts of each value and direction; a grade g becomes
    the intensity 8 g, a direction alone half of 8. Rows that only touch their value: texts, each
    with what it answers and with all the values it touches, until each value has `per_value` or
    no more. Texts that are in
    `without`, but for case and white space, stay out: what is to be measured must not be learned.

    Raises InvalidInput if nothing is left.
    """
    held_out = {plain(text) for text in without}
    rows = rows.loc[[plain(text) not in held_out for text in rows["text"]]]
    if rows.empty:
        raise InvalidInput("the corpus gave no row that may be learned; see its `left_out`")
    shuffled = rows.iloc[np.random.default_rng(seed).permutation(len(rows))]
    directed = shuffled[shuffled["direction"].notna()]
    directed = directed.groupby(["value", "direction"], sort=False).head(per_value)
    touching = shuffled[shuffled["direction"].isna()]
    parts = []
    if len(directed):
        parts.append(_directed(directed))
    if len(touching):
        parts.append(_touching(touching, per_value))
    found = join(parts)
    source = f"{rows['source'].iloc[0]}: {len(found)} texts, {rows['licence'].iloc[0]}"
    return replace(found, sources=(source,))


def _maybe_asked(text: str, context: Any, scene: str) -> str:
    return as_read(text, context) if zlib.crc32(scene.encode()) % 2 else text


def plain(text: str) -> str:
    """What two copies of a text have in common: not case, not white space."""
    return " ".join(text.lower().split())


def _directed(rows: "pd.DataFrame") -> TrainingTexts:
    direction, grade = rows["direction"].astype(float), rows["grade"].astype(float)
    intensity = (grade * EXTREME).fillna(direction * EXTREME / 2)
    labels = labels_for(rows["value"].tolist(), direction.astype(int).tolist(), intensity.tolist())
    return _texts(rows["text"].tolist(), labels, [None] * len(rows), "")


def _touching(rows: "pd.DataFrame", per_value: int) -> TrainingTexts:
    by_text = rows["value"].groupby(rows_as_read(rows), sort=False)
    values = {text: tuple(dict.fromkeys(own)) for text, own in by_text}
    asked = tuple(sorted(set(rows["value"])))
    counts: Counter[str] = Counter()
    chosen = []
    for text, own in values.items():
        if any(counts[value] < per_value for value in own):
            chosen.append(text)
            counts.update(own)
    labels = labels_for([values[text][0] for text in chosen], [0] * len(chosen))
    found = _texts(chosen, labels, [None] * len(chosen), "")
    return replace(
        found, touches=tuple(values[text] for text in chosen), asked=(asked,) * len(chosen)
    )


def _texts(
    texts: list[str], labels: Labels, scenes: Sequence[str | None], source: str
) -> TrainingTexts:
    nothing, empty = np.full(len(texts), -1), ((),) * len(texts)
    return TrainingTexts(tuple(texts), labels, tuple(scenes), nothing, empty, empty, (source,))
