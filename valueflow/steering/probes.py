"""Linear probes: how far an activation speaks for a value, and how well that is known.

A probe reads and does not steer: its weights lean away from axes that vary for other reasons
(`valueflow.steering.estimators`). It is learned on one part of the database and measured on ladders
it has not seen, beside placebos that were learned from shuffled labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import valueflow
from valueflow.errors import InvalidInput
from valueflow.models.chat import Template
from valueflow.models.loading import LoadedModel
from valueflow.steering.activations import Activations, Captures, Progress, answer_activations
from valueflow.steering.contrasts import POLE, Contrast, GradedTexts, contrasts, shuffled
from valueflow.steering.directions import ESTIMATORS, labels, middle_layers
from valueflow.steering.graded import Estimator, two_poled
from valueflow.steering.separation import AUC, auc
from valueflow.theories import get_value

FOLDS = 5
N_LAYERS = 4
SPLITS = ("steer", "validation", "test")


@dataclass(frozen=True, eq=False)
class Readout:
    """What one layer says of a value: `scale * (direction . x) + offset`, in log-odds.

    Attributes:
        direction: unit weights; every number is one that fp16 holds.
        scale: log-odds of support per unit along the direction, above 0.
        offset: log-odds of support at the origin.
        validation: AUC on the ladders that layers are chosen on.
        test: AUC on ladders that nothing was chosen on.
        placebos: test AUC of probes learned from labels shuffled within ladders.
    """

    direction: Float[Tensor, " hidden"]
    scale: float
    offset: float
    validation: AUC
    test: AUC
    placebos: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Reads a value off the residual stream.

    Attributes:
        value: id of the value.
        readouts: per layer (0 = output of block 0).
        provenance: plain JSON; "model" names the model it is for.

    Raises:
        InvalidInput: no layer, or directions of different sizes.
    """

    value: str
    readouts: Mapping[int, Readout]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        sizes = {len(readout.direction) for readout in self.readouts.values()}
        if len(sizes) != 1:
            raise InvalidInput(
                f"expected one layer or more with directions of one size, got sizes {sorted(sizes)}"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it can read, ascending."""
        return tuple(sorted(self.readouts))

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream it is for."""
        return len(self.readouts[self.layers[0]].direction)

    @property
    def best_layer(self) -> int:
        """The layer of the highest AUC on the validation split; in a tie the earliest."""
        return max(self.layers, key=lambda layer: self.readouts[layer].validation.estimate)

    def read(
        self, activations: Activations, *, layer: int | None = None
    ) -> Float[Tensor, " texts"]:
        """Log-odds that each text supports the value rather than opposing it.

        Args:
            activations: as `answer_activations` gives them, of the model the probe is for.
            layer: which layer to read; None for `best_layer`.

        Raises:
            InvalidInput: the layer was not read, or the probe has none for it.
        """
        layer = self.best_layer if layer is None else layer
        if layer not in activations.by_layer:
            raise InvalidInput(
                f"activations have no layer {layer}, only {sorted(activations.by_layer)}; read it "
                "as well"
            )
        return self.score(activations.by_layer[layer], layer=layer)

    def score(self, hidden: Float[Tensor, "*rows hidden"], *, layer: int) -> Float[Tensor, "*rows"]:
        """Log-odds for residual streams of any arrangement (texts, or tokens of texts), fp32.

        The probe was learned from means over an answer's tokens; single tokens scatter more.

        Raises:
            InvalidInput: no such layer, or another hidden size.
        """
        if layer not in self.readouts:
            raise InvalidInput(f"the probe reads layers {list(self.layers)}, not {layer}")
        if hidden.shape[-1] != self.hidden_size:
            raise InvalidInput(
                f"expected activations of size {self.hidden_size}, got {hidden.shape[-1]}"
            )
        readout = self.readouts[layer]
        along = hidden.float() @ readout.direction.to(hidden.device)
        return readout.scale * along + readout.offset


def train_probes(
    loaded: LoadedModel,
    vidb: GradedTexts,
    values: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    estimator: str = "logistic",
    placebos: int = 5,
    seed: int,
    batch_size: int = 16,
    template: Template = "auto",
    backend: Captures | None = None,
    progress: Progress | None = None,
) -> dict[str, LinearProbe]:
    """A probe per value: learned on the steer split, measured on validation and test.

    Args:
        loaded: the model to read.
        vidb: graded texts with all three splits of each value.
        values: ids or unambiguous names.
        layers: layers to read; None for four, even steps through the middle half of the model.
        estimator: a name in `ESTIMATORS`; one whose directions are weights reads best.
        placebos: how many shuffles are measured beside it.
        seed: of the shuffles and of the bootstrap.
        batch_size: texts per forward pass.
        template: the format of the conversation.
        backend: what runs the model; None for transformers with hooks.
        progress: called with the number of texts done and of all.

    Raises:
        UnknownName: no such value or estimator.
        InvalidInput: no values, a split without texts, or too few ladders with both poles.
    """
    estimate = ESTIMATORS[estimator]
    ids = list(dict.fromkeys(get_value(value).id for value in values))
    if not ids:
        raise InvalidInput("expected one value or more to train probes for, got none")
    layers = _spread(loaded.n_layers) if layers is None else sorted(set(layers))
    graded = {(v, s): contrasts(vidb, v, split=s) for v in ids for s in SPLITS}
    flat = [contrast for part in graded.values() for contrast in part]
    options: dict[str, Any] = {"batch_size": batch_size, "template": template, "backend": backend}
    read = answer_activations(loaded, flat, layers, progress=progress, **options)
    rows = dict(zip(graded, _spans([len(part) for part in graded.values()]), strict=True))
    provenance = {
        "operation": "probe",
        "library_version": valueflow.__version__,
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "template": template,
        "vidb": vidb.fingerprint(),
        "estimator": estimator,
        "seed": seed,
    }
    probes = {}
    for value in ids:
        readouts = {}
        for layer in layers:
            parts = {
                s: _Part.of(read.by_layer[layer][rows[value, s]], graded[value, s]) for s in SPLITS
            }
            rng = np.random.default_rng(seed)
            readouts[layer] = _readout(parts, estimate, placebos, rng)
        probes[value] = LinearProbe(value, readouts, provenance)
    return probes


@dataclass(frozen=True, eq=False)
class _Part:
    """The texts of one value and split at one layer."""

    activations: Float[Tensor, "texts hidden"]
    contrasts: Sequence[Contrast]
    intensities: Float[Tensor, " texts"]
    ladders: list[str]

    @classmethod
    def of(
        cls, activations: Float[Tensor, "texts hidden"], contrasts: Sequence[Contrast]
    ) -> "_Part":
        return cls(activations, contrasts, *labels(contrasts))

    def measured(self, direction: Float[Tensor, " hidden"], rng: np.random.Generator) -> AUC:
        return auc(self.activations @ direction, self.intensities, self.ladders, rng=rng)


def _readout(
    parts: Mapping[str, _Part], estimate: Estimator, placebos: int, rng: np.random.Generator
) -> Readout:
    steer, validation, test = (parts[split] for split in SPLITS)
    direction = _rounded(estimate(steer.activations, steer.intensities, steer.ladders))
    scale, offset = _log_odds(steer, estimate)
    chance = []
    for _ in range(placebos):
        wrong, _ = labels(shuffled(steer.contrasts, rng=rng))
        found = estimate(steer.activations, wrong, steer.ladders)
        chance.append(test.measured(found, rng).estimate)
    return Readout(
        direction,
        scale,
        offset,
        validation.measured(direction, rng),
        test.measured(direction, rng),
        tuple(chance),
    )


def _log_odds(steer: _Part, estimate: Estimator) -> tuple[float, float]:
    """Scale and offset, fitted to projections of ladders that the direction was not learned from.

    On its own ladders a direction separates far better than it does elsewhere, so that a scale
    learned there would claim too much.

    References:
        Platt 1999, "Probabilistic outputs for support vector machines".
    """
    from sklearn.linear_model import LogisticRegression

    names = sorted(two_poled(steer.intensities, steer.ladders))
    if len(names) < 2:
        raise InvalidInput(f"a probe needs 2 ladders with both poles to learn from, got {names}")
    fold_of = {name: i % min(FOLDS, len(names)) for i, name in enumerate(names)}
    fold = torch.tensor([fold_of.get(ladder, -1) for ladder in steer.ladders])
    along = torch.zeros(len(fold))
    for left_out in range(min(FOLDS, len(names))):
        train, test = (fold >= 0) & (fold != left_out), fold == left_out
        kept = [ladder for ladder, use in zip(steer.ladders, train.tolist(), strict=True) if use]
        direction = estimate(steer.activations[train], steer.intensities[train], kept)
        along[test] = steer.activations[test] @ direction
    poles = (fold >= 0) & (steer.intensities.abs() > POLE)
    x, high = along[poles].double().numpy(), (steer.intensities[poles] > 0).numpy()
    centre, spread = float(x.mean()), max(float(x.std()), 1e-12)
    model = LogisticRegression(C=1.0, solver="newton-cholesky")
    model.fit((x[:, None] - centre) / spread, high)
    # scikit-learn has no types, so that what one of its solvers gives is taken for all of them.
    coefficients, intercepts = cast(np.ndarray, model.coef_), cast(np.ndarray, model.intercept_)
    # A probe that found nothing still keeps its order, at a hundredth of a logit.
    slope = max(float(coefficients[0, 0]), 0.01) / spread
    return slope, float(intercepts[0]) - slope * centre


def _rounded(direction: Float[Tensor, " hidden"]) -> Float[Tensor, " hidden"]:
    """As fp16 holds it, so that what is measured is what is stored."""
    return direction.half().float()


def _spread(n_layers: int) -> list[int]:
    middle = middle_layers(n_layers)
    places = np.linspace(0, len(middle) - 1, min(N_LAYERS, len(middle))).round().astype(int)
    return [middle[place] for place in places.tolist()]


def _spans(lengths: Sequence[int]) -> list[slice]:
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
