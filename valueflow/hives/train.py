"""Training a value space: sentence-transformers' trainer, our batches and losses.

Stage 1 learns the trees, within one theory a batch; stage 2 ties personal values and theories
together. In both the axes of the values learn how strongly texts support or oppose them. With a
hidden layer the adapter of the encoder is tuned first, and the stages train that layer.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from valueflow.errors import InvalidInput
from valueflow.hives.batches import MixedBatches, with_pairs
from valueflow.hives.build import (
    axes_of,
    build,
    load_trained,
    put_space,
    remembered_space,
)
from valueflow.hives.distil import DistilLoss, LengthBatches, Taught, parts_of, start_axes
from valueflow.hives.objective import SpaceLoss
from valueflow.hives.projection import Remembered
from valueflow.hives.reading import ask_teacher, coarse, embeddings_of, without_hidden
from valueflow.hives.recipe import Recipe
from valueflow.hives.texts import TrainingTexts
from valueflow.hives.units import UnitBatches, unit_batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Batches = UnitBatches | MixedBatches | LengthBatches

WARMUP = 0.05
PHASES = ("distil", "tune", "stage-1", "stage-2")

TUNE_WEIGHTS = {"tree_weight": 1.0, "spread_weight": 0.0}
"""Those of the recipe are for the hidden layer: an adapter so spread orders ladders less well."""


def train(
    recipe: Recipe,
    texts: TrainingTexts,
    folder: str | Path,
    *,
    unlabelled: Sequence[str] = (),
    resume: bool = False,
    checkpoint_every: int = 100,
) -> "SentenceTransformer":
    """Train a value space; the same recipe and texts give the same weights on the same machine.

    Args:
        recipe: see there.
        texts: what it learns from.
        folder: for checkpoints and logs, one subfolder a phase.
        unlabelled: more texts to distil from; the teacher alone says what is in them.
        resume: go on from the last checkpoint in `folder`; without one, start. If not, the
            checkpoints in it are removed.
        checkpoint_every: steps.

    Raises:
        InvalidInput: a recipe or texts that do not fit the base or each other, or unlabelled texts
            for a recipe that distils nothing.
    """
    folder = Path(folder)
    if unlabelled and not recipe.distil_epochs:
        raise InvalidInput("unlabelled texts are for distillation: set distil_epochs")
    if not resume:
        for name in PHASES:  # a later resume must not find an earlier run's
            shutil.rmtree(folder / name, ignore_errors=True)
    model = _start(recipe)
    taught = _taught(recipe, texts, model, unlabelled)

    def run(trained: "SentenceTransformer", phase: Phase) -> None:
        weights = recipe if phase.name != "tune" else replace(recipe, **TUNE_WEIGHTS)
        targets = None if taught is None else taught.scores[: len(texts)]
        loss = SpaceLoss(trained, texts, weights, pairs=phase.pairs, targets=targets)
        learn(loss, _batches(recipe, texts, phase), phase)

    def learn(loss: SpaceLoss | DistilLoss, batches: Batches, phase: Phase) -> None:
        with _generators_kept():
            _run(loss, batches, recipe, phase, folder / phase.name, resume, checkpoint_every)

    stages = [phase for phase in _stages(recipe) if phase.epochs]
    if taught is not None and recipe.distil_epochs:
        start_axes(model, taught, seed=recipe.seed)
    with coarse(model, recipe.precision):
        if taught is not None and recipe.distil_epochs:
            batches = LengthBatches(taught.texts, seed=recipe.seed)
            phase = Phase("distil", 0, recipe.distil_epochs, recipe.tune_rate, recipe.axes_rate, 0)
            learn(DistilLoss(model, taught), batches, phase)
        if recipe.hidden is None:
            for phase in stages:
                run(model, phase)
            return model.eval()
        if recipe.start is None and recipe.tune_epochs:
            run(model, Phase("tune", 1, recipe.tune_epochs, recipe.tune_rate, recipe.axes_rate,
                             recipe.tune_units))  # fmt: skip
        embeddings = embeddings_of(model, texts.texts, recipe.precision)
    space = remembered_space(
        texts.texts, embeddings, hidden=recipe.hidden, width=recipe.width,
        dropout=recipe.dropout, seed=recipe.seed,
    )  # fmt: skip
    for phase in stages:
        run(space, phase)
    return put_space(model, space).eval()


@dataclass(frozen=True)
class Phase:
    """One run of the trainer.

    Attributes:
        name: of its folder of checkpoints.
        stage: whose losses and batches: 1 or 2; 0 for distillation.
        epochs, rate, axes_rate, units: as the recipe says.
        pairs: of instances and of anchors at the end of each batch.
    """

    name: str
    stage: int
    epochs: float
    rate: float
    axes_rate: float
    units: int
    pairs: int = 0


def _stages(recipe: Recipe) -> list[Phase]:
    first, second = recipe.learning_rates
    slower = recipe.axes_rate * (second / first if first else 1.0)
    return [
        Phase("stage-1", 1, recipe.epochs[0], first, recipe.axes_rate, recipe.units[0]),
        Phase("stage-2", 2, recipe.epochs[1], second, slower, recipe.units[1], recipe.pairs),
    ]


def _start(recipe: Recipe) -> "SentenceTransformer":
    if recipe.start is not None:
        return without_hidden(load_trained(recipe.start, merge=False))
    return build(
        recipe.base,
        rank=recipe.lora_rank,
        upper_blocks=recipe.upper_blocks,
        max_tokens=recipe.max_tokens,
        seed=recipe.seed,
    )


def _taught(
    recipe: Recipe,
    texts: TrainingTexts,
    student: "SentenceTransformer",
    unlabelled: Sequence[str],
) -> Taught | None:
    """What the teacher makes of the texts and, to distil, of parts of them and of more."""
    if recipe.teacher is None:
        return None
    parts = parts_of(texts.texts, seed=recipe.seed) if recipe.distil_epochs else []
    asked = [*texts.texts, *parts, *unlabelled]
    return ask_teacher(recipe.teacher, asked, axes_of(student).values, precision=recipe.precision)


def _batches(recipe: Recipe, texts: TrainingTexts, phase: Phase) -> UnitBatches | MixedBatches:
    rng = np.random.default_rng([recipe.seed, phase.stage])
    tree = unit_batches(texts, n_units=phase.units, rng=rng)
    if not phase.pairs:
        return tree
    return with_pairs(
        tree,
        texts.labels,
        texts.instances.tolist(),
        texts.concepts.tolist(),
        pairs=phase.pairs,
        rng=rng,
    )


def _run(
    loss: SpaceLoss | DistilLoss,
    batches: Batches,
    recipe: Recipe,
    phase: Phase,
    folder: Path,
    resume: bool,
    checkpoint_every: int,
) -> None:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    steps = max(1, round(phase.epochs * len(batches)))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batches.batch_size,
        learning_rate=phase.rate,
        learning_rate_mapping={r"\.axes$": phase.axes_rate},
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(WARMUP * steps)),
        bf16=recipe.precision == "bf16" and not isinstance(loss.model[0], Remembered),
        use_cpu=loss.model.device.type == "cpu",
        seed=recipe.seed,
        logging_steps=25,
        save_steps=checkpoint_every,
        save_total_limit=1,
        report_to="none",
        dataloader_pin_memory=False,
    )
    texts = loss.taught.texts if isinstance(loss, DistilLoss) else loss.texts.texts
    dataset = Dataset.from_dict({"text": list(texts), "label": list(range(len(texts)))})

    class Trainer(SentenceTransformerTrainer):
        def get_batch_sampler(self, *_: Any, **__: Any) -> Any:
            return batches

    trainer = Trainer(model=loss.model, args=arguments, train_dataset=dataset, loss=loss)
    step, last = _last_checkpoint(folder) if resume else (0, "")
    if step < steps:
        trainer.train(resume_from_checkpoint=last or None)
    else:
        trainer._load_from_checkpoint(last)  # finished; the trainer would add a step to part epochs


def _last_checkpoint(folder: Path) -> tuple[int, str]:
    """Its step and place; the state is written last, without it a checkpoint is not whole."""
    whole = (file.parent for file in folder.glob("checkpoint-*/trainer_state.json"))
    found = {int(place.name.rpartition("-")[2]): str(place) for place in whole}
    return max(found.items(), default=(0, ""))


@contextmanager
def _generators_kept() -> Iterator[None]:
    """The trainer seeds the generators of the whole process; they come back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
