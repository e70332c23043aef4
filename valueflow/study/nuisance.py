"""Directions that a value's vector should not be: warm tone, length, and its siblings.

Each is derived as a value's vector is, from answers that differ in nothing else, so that it can be
projected out of it, or steered along as a rival explanation of what the vector does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from valueflow.errors import InvalidInput
from valueflow.models.chat import Template
from valueflow.models.loading import LoadedModel
from valueflow.steering.activations import answer_activations, typical_norms
from valueflow.steering.contrasts import Contrast, GradedTexts
from valueflow.steering.directions import labels, mean_difference
from valueflow.steering.vector import SteeringVector
from valueflow.study.specificity import siblings_of
from valueflow.study.tone import TonePair, load_tone_pairs

CONTROLS = {
    "plain": "vectors as they are",
    "siblings": "vectors without their siblings",
    "positivity": "vectors without tone and what they share",
    "length": "vectors without length",
    "all": "vectors without siblings, tone, what they share and length",
}
"""What `controlled` can take out of vectors, and what is left in words."""

LONG, SHORT = "answer", "brief"
POLE = 5.0
"""Intensity that stands for "has it" (minus it for "has not") where nothing is graded."""


def tone_vector(
    loaded: LoadedModel,
    layers: Sequence[int],
    *,
    prompts: Sequence[str],
    pairs: Sequence[TonePair] | None = None,
    template: Template = "auto",
) -> SteeringVector:
    """Good minus bad tone: the shipped pairs of sentences, on which no value depends.

    Args:
        loaded: the model.
        layers: where.
        prompts: whose content tokens give the norms.
        pairs: None for those shipped.
        template: the format of prompts (`valueflow.models.chat.format_prompts`).
    """
    rows = []
    for i, pair in enumerate(load_tone_pairs() if pairs is None else pairs):
        for text, pole in ((pair.positive, POLE), (pair.negative, -POLE)):
            rows.append(Contrast(f"tone/{i}/{pole:+.0f}", f"tone/{i}", pair.question, text, pole))
    return _contrast_vector(loaded, "nuisance/tone", rows, layers, prompts, template)


def length_vector(
    loaded: LoadedModel,
    vidb: GradedTexts,
    layers: Sequence[int],
    *,
    prompts: Sequence[str],
    values: Sequence[str],
    split: str = "steer",
    per_cell: int = 2,
    template: Template = "auto",
) -> SteeringVector:
    """Long minus short answers of the same value on the same rung of its ladders.

    Args:
        loaded: the model.
        vidb: graded answers in the registers "answer" (about 55 words) and "brief" (about 23).
        layers: where.
        prompts: whose content tokens give the norms.
        values: taken together, each as much as the others.
        split: the part of the database to learn from.
        per_cell: texts of each length per value and rung.
        template: as in `tone_vector`.

    Raises:
        InvalidInput: no value and rung has answers of both lengths.
    """
    rows = []
    for value in values:
        frame = vidb.of(value, split).frame
        for rung, own in frame.groupby("rung"):
            long, short = (own[own["register"] == name][:per_cell] for name in (LONG, SHORT))
            if len(long) and len(short):
                cell = f"{value}/{rung}"
                rows += [_row(row, cell, POLE) for row in long.itertuples()]
                rows += [_row(row, cell, -POLE) for row in short.itertuples()]
    if not rows:
        raise InvalidInput(f"the split {split!r} has no value and rung with long and short answers")
    return _contrast_vector(loaded, "nuisance/length", rows, layers, prompts, template)


def pooled_vector(vectors: Sequence[SteeringVector]) -> SteeringVector:
    """What the vectors of all values share: supporting minus opposing, averaged over values.

    Raises:
        InvalidInput: fewer than two vectors, layers or models that differ, or a zero mean.
    """
    if len(vectors) < 2:
        raise InvalidInput(f"a shared direction needs two or more vectors, got {len(vectors)}")
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total.renormalised()


def nuisances(
    loaded: LoadedModel,
    vidb: GradedTexts,
    vectors: Mapping[str, SteeringVector],
    *,
    prompts: Sequence[str],
    template: Template = "auto",
) -> dict[str, list[SteeringVector]]:
    """What `controlled` takes as `positivity` and `length`, at the vectors' layers.

    Positivity is tone and, with two or more vectors, what the vectors share.

    Args:
        loaded: the model.
        vidb: graded answers.
        vectors: by value id.
        prompts: whose content tokens give the norms.
        template: the format of prompts that the vectors were derived with.

    Raises:
        InvalidInput: no vectors, or vectors of different layers.
    """
    if not vectors or len({vector.layers for vector in vectors.values()}) > 1:
        raise InvalidInput("expected vectors at the same layers; derive them with the same --layer")
    own = list(vectors.values())
    layers = own[0].layers
    warm = [tone_vector(loaded, layers, prompts=prompts, template=template)]
    if len(own) > 1:
        warm.append(pooled_vector(own))
    long = length_vector(
        loaded, vidb, layers, prompts=prompts, values=list(vectors), template=template
    )
    return {"positivity": warm, "length": [long]}


def controlled(
    vectors: Mapping[str, SteeringVector],
    control: str,
    *,
    positivity: Sequence[SteeringVector] = (),
    length: Sequence[SteeringVector] = (),
) -> dict[str, SteeringVector]:
    """Every vector without what a control takes out of it, at length 1.

    Args:
        vectors: by value id; siblings are looked for among them.
        control: "plain" (nothing), "siblings", "positivity", "length", or "all" three.
        positivity: directions of warmth, such as `tone_vector` and `pooled_vector`.
        length: directions of length.

    Raises:
        InvalidInput: another control, or one without its directions; vectors of different layers.
    """
    if control not in CONTROLS:
        raise InvalidInput(f"control {control!r}: expected one of {', '.join(CONTROLS)}")
    for name, given in (("positivity", positivity), ("length", length)):
        if control in (name, "all") and not given:
            raise InvalidInput(f"control {control!r} needs {name} directions, got none")
    found = {}
    for value, vector in vectors.items():
        others: list[SteeringVector] = []
        if control in ("siblings", "all"):
            others += [vectors[other] for other in siblings_of(value, list(vectors))]
        if control in ("positivity", "all"):
            others += positivity
        if control in ("length", "all"):
            others += length
        found[value] = vector.project_out(others).renormalised() if others else vector
    return found


def _row(row: object, cell: str, pole: float) -> Contrast:
    question, text = getattr(row, "context", None), str(getattr(row, "text", ""))
    if not isinstance(question, str) or not question.strip():
        raise InvalidInput(f"text {getattr(row, 'id', '?')}: an answer without a question")
    return Contrast(str(getattr(row, "id", "")), cell, question, text, pole)


def _contrast_vector(
    loaded: LoadedModel,
    name: str,
    rows: Sequence[Contrast],
    layers: Sequence[int],
    prompts: Sequence[str],
    template: Template,
) -> SteeringVector:
    read = answer_activations(loaded, rows, layers, template=template)
    poles, groups = labels(rows)
    directions = {layer: mean_difference(read.by_layer[layer], poles, groups) for layer in layers}
    provenance = {
        "operation": "contrast",
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "texts": len(rows),
        "norms": "prompts",
        "template": template,
    }
    norms = typical_norms(loaded, prompts, layers, template=template)
    return SteeringVector(name, directions, norms, provenance)
