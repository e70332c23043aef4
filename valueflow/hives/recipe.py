"""How a value space is trained, as a file that can be kept beside the weights."""

from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from valueflow.errors import InvalidInput
from valueflow.hives.losses import Directed, Floor
from valueflow.registry import unknown_name


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, but the machine.

    Attributes:
        base: a sentence-transformers model, see `valueflow.models.load_encoder`.
        start: folder of a trained encoder to go on from, without its hidden layer. With `hidden`
            its adapter and axes are taken as they are, else the stages go on training them.
        teacher: a shipped space by name, or a trained one's folder, whose scores it learns too.
        max_tokens: longer texts are cut, in training and after.
        lora_rank: of the adapter on every linear layer of the upper blocks; its alpha is twice it.
        upper_blocks: how many blocks are adapted, counted from the last; None for all.
        lessons: whether the lessons join VIDB's judge split.
        questions: whether the question pairs do.
        corpora: importer name -> path of your copy, see `valueflow.vidb.importers`.
        per_value: texts of a corpus for each value and direction, at most.
        hidden: width of the hidden layer between embedding and space; None for no such step: then
            both stages train the adapter. With it adapter and axes are tuned first, by
            `tune_epochs` of stage 1, and the stages train the step on the embeddings that they
            then give.
        width: of the space, with a hidden layer.
        dropout: of embeddings, in training the hidden layer.
        distil_epochs: of learning the teacher's scores and similarities, on all texts and on parts
            of them, before anything else; 0 leaves it out.
        tune_epochs, tune_rate, tune_units: of the adapter before the stages; the rate is that of
            distillation too.
        epochs: of stage 1 and stage 2; parts of an epoch are allowed, 0 leaves a stage out.
        learning_rates: of stage 1 and stage 2; fall to 0 by a cosine after a short rise.
        axes_rate: of the axes of the values in stage 1; in stage 2 smaller by the same factor.
        weight_decay: of the adapter and the axes.
        units: ladders per batch, stage 1 and stage 2.
        pairs: of instances and of anchors per batch of stage 2.
        temperature, direction_margin, floor, directed: of the hierarchical loss.
        tree_weight, graded_weight, neutral_weight, touch_weight, spread_weight, teacher_weight: of
            the losses. With a hidden layer the first and the fifth are those of its stages; the
            adapter is tuned with 1 and 0.
        precision: "bf16" for frozen weights and activations in bfloat16, "fp32".
        seed: of batches and initial weights.
    """

    base: str = "all-mpnet-base-v2"
    start: str | None = None
    teacher: str | None = None
    max_tokens: int = 96
    lora_rank: int = 16
    upper_blocks: int | None = None
    lessons: bool = True
    questions: bool = True
    corpora: dict[str, str] = field(default_factory=dict)
    per_value: int = 200
    hidden: int | None = None
    width: int = 256
    dropout: float = 0.3
    distil_epochs: float = 0.0
    tune_epochs: float = 2.0
    tune_rate: float = 5e-4
    tune_units: int = 8
    epochs: tuple[float, float] = (2.0, 0.5)
    learning_rates: tuple[float, float] = (5e-4, 5e-5)
    axes_rate: float = 5e-3
    weight_decay: float = 0.01
    units: tuple[int, int] = (8, 4)
    pairs: int = 5
    temperature: float = 0.1
    direction_margin: float = 1.0
    floor: Floor = "finer"
    directed: Directed = "last"
    tree_weight: float = 1.0
    graded_weight: float = 1.0
    neutral_weight: float = 0.3
    touch_weight: float = 1.0
    spread_weight: float = 0.0
    teacher_weight: float = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON of all settings."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


RECIPES = resources.files("valueflow") / "hives" / "recipes"


def find_recipe(name: str) -> Path:
    """The file of a recipe that comes with the package, by its name; else `name` as a path.

    Raises UnknownName if it is neither; names near misses.
    """
    shipped = {Path(str(file)).stem: Path(str(file)) for file in RECIPES.iterdir()}
    if name in shipped:
        return shipped[name]
    if not Path(name).is_file():
        raise unknown_name("recipe", name, shipped)
    return Path(name)


def load_recipe(path: str | Path, **changes: Any) -> Recipe:
    """The recipe of a YAML file, with some settings changed.

    Raises:
        InvalidInput: cannot be read, is no mapping, or a setting of another kind or out of range.
        UnknownName: a setting that there is not; names near misses.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path}: expected settings as `name: value`, got {found!r:.80}")
    return recipe_of({**found, **changes}, where=str(path))


def recipe_of(settings: dict[Any, Any], *, where: str = "recipe") -> Recipe:
    """The recipe of plain settings; what is not named has its default. Raises as `load_recipe`."""
    defaults = Recipe().as_dict()
    for name, value in settings.items():
        if name not in defaults:
            raise unknown_name("setting", str(name), defaults)
        _check_kind(where, name, value, defaults[name])
        _check_range(where, name, value)
    if not any(settings.get("epochs", defaults["epochs"])):
        raise InvalidInput(f"{where}: both stages have 0 epochs; give one of them some")
    if settings.get("distil_epochs") and settings.get("teacher") is None:
        raise InvalidInput(f"{where}: distil_epochs without a teacher; name one")
    return Recipe(**{k: _as_default(v, defaults[k]) for k, v in settings.items()})


def _as_default(value: Any, default: Any) -> Any:
    if isinstance(default, list):
        return tuple(type(d)(v) for v, d in zip(value, default, strict=True))
    return float(value) if isinstance(default, float) else value


_OPTIONAL = {"start": str, "teacher": str, "upper_blocks": int, "hidden": int, "floor": str}
_CHOICES = {
    "floor": ("finer", "coarser", None),
    "directed": ("every", "last"),
    "precision": ("bf16", "fp32"),
}
_POSITIVE = ("max_tokens", "lora_rank", "per_value", "pairs", "temperature", "axes_rate", "hidden",
             "units", "width", "tune_units")  # fmt: skip


def _check_kind(where: str, name: str, value: Any, default: Any) -> None:
    if name in _OPTIONAL and (value is None or type(value) is _OPTIONAL[name]):
        return
    if isinstance(default, list):
        good = isinstance(value, list) and len(value) == 2
        good = good and all(_like(v, d) for v, d in zip(value, default, strict=True))
    elif isinstance(default, dict):
        good = isinstance(value, dict) and all(
            isinstance(text, str) for item in value.items() for text in item
        )
    else:
        good = _like(value, default)
    if not good:
        raise InvalidInput(f"{where}: {name} is like {default!r}, got {value!r:.80}")


def _like(value: Any, default: Any) -> bool:
    return type(value) in ((int, float) if isinstance(default, float) else (type(default),))


def _check_range(where: str, name: str, value: Any) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        named = ", ".join(map(str, _CHOICES[name]))
        raise InvalidInput(f"{where}: {name} is one of {named}; got {value!r}")
    for number in value if isinstance(value, list) else (value,):
        if type(number) not in (int, float):
            continue
        if not (0 <= number < float("inf")) or (number == 0 and name in _POSITIVE):
            least = "above 0" if name in _POSITIVE else "0 or more"
            raise InvalidInput(f"{where}: {name} must be {least}, got {number}")
