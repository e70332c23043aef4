"""One command's worth of training: texts from their sources, the stages, the card, the files."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from valueflow.hives.build import card_of, save_encoder
from valueflow.hives.lessons import load_lessons
from valueflow.hives.questions import load_questions
from valueflow.hives.recipe import Recipe
from valueflow.hives.texts import (
    TrainingTexts,
    anchor_texts,
    corpus_texts,
    join,
    lesson_texts,
    plain,
    question_texts,
    vidb_texts,
)
from valueflow.hives.train import train
from valueflow.theories.anchors import load_anchors
from valueflow.vidb.importers import import_corpus
from valueflow.vidb.store import Vidb, load_starter

WORK = "checkpoints"


def training_texts(
    recipe: Recipe, vidb: Vidb | None = None, *, without: Collection[str] = ()
) -> TrainingTexts:
    """What the recipe names: VIDB's judge split, lessons, question pairs, concept anchors, corpora.

    Texts of corpora that are in `without` are left out. Raises what `import_corpus` raises.
    """
    parts = [
        vidb_texts(load_starter() if vidb is None else vidb, "judge"),
        anchor_texts(load_anchors()),
    ]
    if recipe.lessons:
        parts.append(lesson_texts(load_lessons()))
    if recipe.questions:
        parts.append(question_texts(load_questions("train")))
    for name, path in sorted(recipe.corpora.items()):
        rows = import_corpus(name, path)
        parts.append(
            corpus_texts(rows, per_value=recipe.per_value, without=without, seed=recipe.seed)
        )
    return join(parts)


def train_and_save(
    recipe: Recipe,
    folder: str | Path,
    *,
    vidb: Vidb | None = None,
    without: Collection[str] = (),
    unlabelled: Sequence[str] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """Train, and write adapter, axes and card to `folder`; checkpoints are beside them until then.

    Args:
        recipe: what to do.
        folder: of the artifact; new or empty, or of an earlier run of the same.
        vidb: the graded texts; None for the starter.
        without: texts that corpora must not teach, say those of a test set; they are left out of
            `unlabelled` too.
        unlabelled: more texts to distil from, see `valueflow.hives.train.train`.
        resume: go on from the checkpoints of a run that was cut off.

    Returns:
        The card without metrics: recipe (corpora, start and teacher without their paths), data with
        licences, texts per value. `valueflow hives eval` measures.

    Raises:
        ArtifactError: the folder holds something else.
        InvalidInput: a recipe, database or corpora that cannot be used.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        card_of(folder)  # refused now, not after the work
    texts = training_texts(recipe, vidb, without=without)
    held_out = {plain(text) for text in without}
    more = [text for text in dict.fromkeys(unlabelled) if plain(text) not in held_out]
    work = folder.with_name(f"{folder.name}.{WORK}")
    model = train(recipe, texts, work, unlabelled=more, resume=resume)
    start, teacher = (name and Path(name).name for name in (recipe.start, recipe.teacher))
    settings = recipe.as_dict()
    settings |= {"corpora": sorted(recipe.corpora), "start": start, "teacher": teacher}
    counts = dict(sorted(Counter(texts.labels.values).items()))
    card: dict[str, Any] = {"recipe": settings, "data": list(texts.sources), "texts": counts}
    if more:
        digest = hashlib.sha256("\n".join(more).encode(errors="surrogatepass")).hexdigest()[:16]
        card["data"].append(f"unlabelled: {len(more)} texts, {digest}")
    if recipe.start is not None:
        card["start"] = card_of(recipe.start)
    save_encoder(model, folder, base=recipe.base, card=card)
    shutil.rmtree(work, ignore_errors=True)
    return card
