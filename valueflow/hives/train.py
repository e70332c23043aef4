"""Training a value space: sentence-transformers' trainer, our batches and losses.

Stage 1 learns the trees, within one theory a batch; stage 2 ties personal values and theories
together. In both the axes of the values learn how strongly texts support or oppose them. With a
hidden layer the adapter of the encoder is tuned first, and the stages train that layer.
"""

import logging
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.hives.batches import MixedBatches, with_pairs
from valueflow.hives.build import (
    axes_of,
    build,
    load_trained,
    put_space,
    remembered_space,
    without_space,
)
from valueflow.hives.graded import graded_contrast, spread, touch_contrast
from valueflow.hives.losses import grouped_info_nce, hierarchical_contrastive
from valueflow.hives.recipe import Recipe
from valueflow.hives.store import EmbeddingStore
from valueflow.hives.texts import TrainingTexts
from valueflow.hives.units import UnitBatches, unit_batches
from valueflow.models import fingerprint
from valueflow.models.sources import home

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

INSTANCE_WEIGHT, ANCHOR_WEIGHT, PAIR_TEMPERATURE = 0.5, 1.0, 0.07
"""Of stage 2, as in the paper."""

LENGTH_GROUPS = 2
WARMUP = 0.05

logger = logging.getLogger(__name__)


class SpaceLoss(torch.nn.Module):
    """The sum of all losses of a batch, as sentence-transformers' trainer calls it.

    Args:
        model: encoder with axes.
        texts: what the batches are drawn from; the "label" of a row is its index there.
        recipe: weights and options.
        pairs: of instances and of anchors at the end of each batch; 0 in stage 1.
        targets: scores of a teacher for all texts, to be learned too.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        texts: TrainingTexts,
        recipe: Recipe,
        *,
        pairs: int = 0,
        targets: Float[Tensor, "texts values"] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.texts = texts
        self.recipe = recipe
        self.pairs = pairs
        self.targets = targets
        self.values = axes_of(model).values

    def forward(
        self, features: Iterable[Mapping[str, Any]], labels: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses by name, each with its weight; the trainer adds and logs them."""
        embeddings, scores = self._embed(next(iter(features)))
        rows = labels.flatten().tolist()
        tree = len(rows) - 4 * self.pairs
        losses = self._tree(embeddings[:tree], scores[:tree], rows[:tree])
        if self.pairs:
            losses |= self._pairs(embeddings[tree:], rows[tree:])
        if self.targets is not None:
            wanted = self.targets[rows].to(scores.device)
            losses["teacher"] = self.recipe.teacher_weight * (scores - wanted).pow(2).mean()
        return losses

    def _embed(self, features: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Rows of like length together, so that little of what is computed is padding."""
        if "attention_mask" not in features:
            found = self.model(dict(features))
            return found["sentence_embedding"].float(), found["value_scores"]
        lengths = features["attention_mask"].sum(dim=1)
        order = lengths.argsort()
        embeddings, scores = [], []
        for rows in order.chunk(LENGTH_GROUPS):
            longest = int(lengths[rows].max())
            part = {k: _cut(v, rows, longest, len(lengths)) for k, v in features.items()}
            found = self.model(part)
            embeddings.append(found["sentence_embedding"].float())
            scores.append(found["value_scores"])
        back = order.argsort()
        return torch.cat(embeddings)[back], torch.cat(scores)[back]

    def _tree(self, embeddings: Tensor, scores: Tensor, rows: list[int]) -> dict[str, Tensor]:
        recipe = self.recipe
        if self.texts.asked[rows[0]]:
            touched = [[v in self.texts.touches[row] for v in self.values] for row in rows]
            asked = torch.tensor([v in self.texts.asked[rows[0]] for v in self.values])
            touch = touch_contrast(scores, torch.tensor(touched).to(scores.device), asked)
            return {"touch": recipe.touch_weight * touch}
        labels = self.texts.labels.take(rows)
        hierarchical = hierarchical_contrastive(
            embeddings,
            labels,
            temperature=recipe.temperature,
            direction_margin=recipe.direction_margin,
            floor=recipe.floor,
            directed=recipe.directed,
        )
        graded = graded_contrast(
            scores,
            self.values,
            labels,
            [self.texts.scenes[row] for row in rows],
            neutral_weight=recipe.neutral_weight,
        )
        return {
            "hierarchical": recipe.tree_weight * hierarchical,
            "graded": recipe.graded_weight * graded,
            "spread": recipe.spread_weight * spread(embeddings, labels),
        }

    def _pairs(self, embeddings: Tensor, rows: list[int]) -> dict[str, Tensor]:
        half = 2 * self.pairs
        parts = (
            ("instances", INSTANCE_WEIGHT, self.texts.instances, slice(0, half)),
            ("anchors", ANCHOR_WEIGHT, self.texts.concepts, slice(half, None)),
        )
        return {
            name: weight
            * grouped_info_nce(
                embeddings[part],
                torch.tensor(groups[rows[part]], device=embeddings.device),
                temperature=PAIR_TEMPERATURE,
            )
            for name, weight, groups, part in parts
        }


def train(
    recipe: Recipe,
    texts: TrainingTexts,
    folder: str | Path,
    *,
    resume: bool = False,
    checkpoint_every: int = 100,
) -> "SentenceTransformer":
    """Train a value space; the same recipe and texts give the same weights on the same machine.

    Args:
        recipe: see there.
        texts: what it learns from.
        folder: for checkpoints and logs, one subfolder a phase.
        resume: go on from the last checkpoint in `folder`; without one, start. If not, all that is
            in it is removed.
        checkpoint_every: steps.

    Raises:
        InvalidInput: a recipe or texts that do not fit the base or each other.
    """
    folder = Path(folder)
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)  # a later resume must not find an earlier run's
    model = _start(recipe)
    targets = _teacher_scores(recipe, texts, axes_of(model).values)

    def run(trained: "SentenceTransformer", phase: Phase) -> None:
        batches = _batches(recipe, texts, phase)
        loss = SpaceLoss(trained, texts, recipe, pairs=phase.pairs, targets=targets)
        with _generators_kept():
            _run(loss, batches, recipe, phase, folder / phase.name, resume, checkpoint_every)

    stages = [phase for phase in _stages(recipe) if phase.epochs]
    with _coarse(model, recipe.precision):
        if recipe.hidden is None:
            for phase in stages:
                run(model, phase)
            return model.eval()
        if recipe.start is None and recipe.tune_epochs:
            run(model, Phase("tune", 1, recipe.tune_epochs, recipe.tune_rate, recipe.axes_rate,
                             recipe.tune_units))  # fmt: skip
        embeddings = _embeddings(model, texts, recipe.precision)
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
        stage: whose losses and batches: 1 or 2.
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
        return without_space(load_trained(recipe.start, merge=False))
    return build(
        recipe.base,
        rank=recipe.lora_rank,
        upper_blocks=recipe.upper_blocks,
        max_tokens=recipe.max_tokens,
        seed=recipe.seed,
    )


@contextmanager
def _coarse(model: "SentenceTransformer", precision: str) -> Iterator[None]:
    """Weights that are not trained in bfloat16 for the time being, if the recipe says so."""
    exact = {p: p.data for p in model.parameters() if not p.requires_grad}
    try:
        if precision == "bf16":
            for parameter in exact:
                parameter.data = parameter.data.bfloat16()
        yield
    finally:
        for parameter, data in exact.items():
            parameter.data = data


def _embeddings(
    model: "SentenceTransformer", texts: TrainingTexts, precision: str
) -> Float[Tensor, "texts width"]:
    known = fingerprint(model[0].auto_model, model.tokenizer).model
    store = EmbeddingStore(home() / "embeddings" / f"{known}-{precision}.safetensors")
    new = [text for text in dict.fromkeys(texts.texts) if text not in store.known([text])]
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        rows = model.eval().encode(new, show_progress_bar=True) if new else []
    store.add(dict(zip(new, rows, strict=True)))
    found = store.known(texts.texts)
    return torch.tensor(np.stack([found[text] for text in texts.texts]))


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
    loss: SpaceLoss,
    batches: UnitBatches | MixedBatches,
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
        bf16=recipe.precision == "bf16" and "Remembered" not in type(loss.model[0]).__name__,
        use_cpu=loss.model.device.type == "cpu",
        seed=recipe.seed,
        logging_steps=25,
        save_steps=checkpoint_every,
        save_total_limit=1,
        report_to="none",
        dataloader_pin_memory=False,
    )
    dataset = Dataset.from_dict(
        {"text": list(loss.texts.texts), "label": list(range(len(loss.texts)))}
    )

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


def _teacher_scores(
    recipe: Recipe, texts: TrainingTexts, values: list[str]
) -> Float[Tensor, "texts values"] | None:
    from valueflow.hives.encoder import load_value_encoder

    if recipe.teacher is None:
        return None
    teacher = load_value_encoder(recipe.teacher)
    if teacher.values != tuple(values):
        raise InvalidInput(f"{recipe.teacher}: a teacher of other values than the student's")
    teacher.store = None  # coarse embeddings must not pass for exact ones later
    with torch.autocast(
        teacher.encoder.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"
    ):
        return torch.from_numpy(teacher.scores(texts.texts))


def _cut(value: Any, rows: Tensor, longest: int, n: int) -> Any:
    """The rows of a feature, without columns that are padding in all of them."""
    if not isinstance(value, torch.Tensor) or value.shape[:1] != (n,):
        return value
    return value[rows][:, :longest] if value.dim() > 1 else value[rows]
