"""What encoders make of many texts, stored as they go: a student of its own, and its teacher."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.hives.build import axes_of, load_trained, projection_of
from valueflow.hives.distil import Taught
from valueflow.hives.encoder import trained_folder
from valueflow.hives.store import EmbeddingStore
from valueflow.models import fingerprint
from valueflow.models.sources import home

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHUNK = 1024
"""Texts whose embeddings are stored at a time."""


def without_hidden(model: "SentenceTransformer") -> "SentenceTransformer":
    """The encoder and its axes alone; changed in place."""
    if projection_of(model) is not None:
        del model[-1]
    return model


@contextmanager
def coarse(model: "SentenceTransformer", precision: str) -> Iterator[None]:
    """Weights that are not trained in bfloat16 for the time being, if the precision is "bf16"."""
    exact = {p: p.data for p in model.parameters() if not p.requires_grad}
    try:
        if precision == "bf16":
            for parameter in exact:
                parameter.data = parameter.data.bfloat16()
        yield
    finally:
        for parameter, data in exact.items():
            parameter.data = data


def embeddings_of(
    model: "SentenceTransformer", texts: Sequence[str], precision: str
) -> Float[Tensor, "texts width"]:
    """Embeddings by a model that is `coarse` already; what it has read before is not read again."""
    known = fingerprint(model[0].auto_model, model.tokenizer).model
    store = EmbeddingStore(
        home() / "embeddings" / f"{known}-{model.max_seq_length}-{precision}.safetensors"
    )
    unread = dict.fromkeys(texts).keys() - store.known(texts).keys()
    new = sorted(unread, key=lambda text: (-len(text), text))
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(new), CHUNK):  # what a killed run has read stays
            part = new[start : start + CHUNK]
            rows = model.eval().encode(part, show_progress_bar=False)
            store.add(dict(zip(part, rows, strict=True)))
    found = store.known(texts)
    return torch.tensor(np.stack([found[text] for text in texts]))


def ask_teacher(
    name: str, texts: Sequence[str], values: Sequence[str], *, precision: str
) -> Taught:
    """What a shipped space or a trained one's folder makes of texts, without its hidden layer.

    Raises:
        InvalidInput: its values are not `values`.
        ArtifactError, UnknownName: no such space.
    """
    with trained_folder(name) as folder:
        teacher = without_hidden(load_trained(folder, merge=False))
    axes = axes_of(teacher)
    if list(axes.values) != list(values):
        raise InvalidInput(f"{name}: a teacher of other values than the student's")
    with coarse(teacher, precision), torch.no_grad():
        embeddings = embeddings_of(teacher, texts, precision)
        scores = axes({"sentence_embedding": embeddings})["value_scores"]
    return Taught(tuple(texts), torch.nn.functional.normalize(embeddings, dim=1), scores)
