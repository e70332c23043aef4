"""Steer one value of any causal language model and print what came of it.

    python examples/families/family.py smollm2-135m-instruct
    python examples/families/family.py openai-community/gpt2 --template plain
    python examples/families/family.py EleutherAI/pythia-160m --template plain
    python examples/families/family.py mistralai/Mistral-7B-Instruct-v0.3 --dtype bfloat16
    python examples/families/family.py microsoft/phi-2 --template plain --dtype bfloat16
    python examples/families/family.py allenai/OLMo-1B-hf --template plain

No table of architectures is involved: the decoder blocks are found by their structure. What does
differ between families is the format of prompts (a base model has no chat template: choose "plain")
and the precision that is worth its time; `gemma.py` and `qwen.py` are those choices.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from valueflow.dose.arms import measured, row_means
from valueflow.dose.prompts import load_prompts
from valueflow.dose.sweep import Decoding, sweep
from valueflow.evaluate import AnchorEvaluator, vidb_evaluator
from valueflow.judges.base import get_judge
from valueflow.models import load
from valueflow.models.chat import format_used
from valueflow.models.loading import LoadedModel
from valueflow.steering import derive, middle_layers
from valueflow.theories import get_value
from valueflow.vidb import Vidb, load_starter


@dataclass(frozen=True)
class Settings:
    """What is steered and how much of it is tried.

    Attributes:
        value: id or name.
        coefficient: the dose; measured at minus, zero and plus this.
        template: the format of prompts, "auto", "chat" or "plain".
        layer: None for the one in the middle of the depth; "auto" chooses on held-out ladders.
        ladders: scenarios to derive from, each with five texts; None for all.
        prompts: of the verification suite.
        tokens: per answer.
        seed: of the evaluator's anchors.
    """

    value: str = "power"
    coefficient: float = 0.3
    template: Any = "auto"
    layer: int | str | None = None
    ladders: int | None = None
    prompts: int = 8
    tokens: int = 40
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One line of the table, and two texts.

    Attributes:
        model: what `valueflow.models.load` takes.
        family: transformers' model type.
        dtype: of the weights.
        format: of prompts, "chat" or "plain".
        layers: of the model.
        layer: steered, 0 = output of block 0.
        value: id.
        coefficients: minus, zero, plus.
        intensities: mean at each, -10 to 10; None where no text was ranked.
        damage: mean nats per token above unsteered, at each.
        degenerate: share of empty or looping texts, at each.
        seconds: to derive, to generate, to judge.
        prompt: the first one.
        texts: its answers at minus and at plus.
    """

    model: str
    family: str
    dtype: str
    format: str
    layers: int
    layer: int
    value: str
    coefficients: tuple[float, ...]
    intensities: tuple[float | None, ...]
    damage: tuple[float | None, ...]
    degenerate: tuple[float, ...]
    seconds: tuple[float, float, float]
    prompt: str
    texts: tuple[str, str]


def steer_family(
    loaded: LoadedModel, vidb: Vidb, evaluator: AnchorEvaluator, settings: Settings
) -> Row:
    """Derive the value's vector, sweep three coefficients over a few prompts, and measure."""
    started = time.monotonic()
    prompts = load_prompts("verification")[: settings.prompts]
    middle = middle_layers(loaded.n_layers)
    vector = derive(
        loaded,
        _first_ladders(vidb, settings.value, settings.ladders),
        settings.value,
        layer=middle[len(middle) // 2] if settings.layer is None else settings.layer,
        prompts=load_prompts("calibration")[:8],
        template=settings.template,
        seed=settings.seed,
    )
    derived = time.monotonic()
    c = settings.coefficient
    grid = sweep(
        loaded,
        {"vector": vector},
        [{"vector": dose} for dose in (-c, 0.0, c)],
        prompts,
        decoding=Decoding(max_new_tokens=settings.tokens, template=settings.template),
        batch_rows=48,
    )
    generated = time.monotonic()
    arm = measured(grid, "vector", evaluator)
    judged = time.monotonic()
    return Row(
        model=loaded.name,
        family=loaded.model.config.model_type,
        dtype=str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        format=format_used(loaded.tokenizer, settings.template),
        layers=loaded.n_layers,
        layer=vector.layers[0],
        value=get_value(settings.value).id,
        coefficients=arm.coefficients,
        intensities=_numbers(arm.means.tolist()),
        damage=_numbers(row_means(arm.damage).tolist()),
        degenerate=arm.degenerate,
        seconds=(derived - started, generated - derived, judged - generated),
        prompt=prompts[0],
        texts=(arm.texts[0][0], arm.texts[2][0]),
    )


def show(row: Row) -> str:
    """The row and its two texts, to be read in a terminal."""
    doses = zip(row.coefficients, row.intensities, row.damage, strict=True)
    lines = [
        f"{row.model} ({row.family}, {row.dtype}, {row.format} prompts), {row.value}, "
        f"layer {row.layer} of {row.layers}"
    ]
    for c, intensity, damage in doses:
        measured = "not ranked" if intensity is None else f"{intensity:+.2f}"
        cost = "" if damage is None else f"damage {damage:+.2f}"
        lines.append(f"  coefficient {c:+.2f}: intensity {measured}  {cost}")
    lines += [f"  {s:.0f} s to {verb}" for s, verb in zip(row.seconds, STEPS, strict=True)]
    lines += [f"  {row.prompt}"]
    lines += [f"  {c:+.2f}: {t}" for c, t in zip(row.coefficients[::2], row.texts, strict=True)]
    return "\n".join(lines)


STEPS = ("derive the vector", "generate", "judge")


def main(model: str | None = None, **defaults: Any) -> None:
    """Read the command line, run, print, and write a JSON row for `table.py` if asked to."""
    settings = Settings(**defaults)
    options = _options(model, settings)
    loaded = load(options.model, dtype=options.dtype and getattr(torch, options.dtype))
    vidb = load_starter()
    evaluator = vidb_evaluator(vidb, options.value, get_judge("hives"), seed=options.seed)
    wanted = {name: getattr(options, name) for name in asdict(settings)}
    row = steer_family(loaded, vidb, evaluator, Settings(**wanted))
    print(show(row))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(row), indent=2) + "\n", encoding="utf-8")


def _options(model: str | None, settings: Settings) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Steer one value of a model and measure it.")
    parser.add_argument("model", nargs="?" if model else None, default=model)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--value", default=settings.value)
    parser.add_argument("--coefficient", type=float, default=settings.coefficient)
    parser.add_argument("--template", default=settings.template, choices=("auto", "chat", "plain"))
    parser.add_argument("--layer", type=_layer, default=settings.layer)
    for name in ("ladders", "prompts", "tokens", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(settings, name))
    parser.add_argument("--json", type=Path, help="Also write the row to this file.")
    return parser.parse_args()


def _layer(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _first_ladders(vidb: Vidb, value: str, count: int | None) -> Vidb:
    """The first so many steering ladders: a large model on a CPU reads few texts a second."""
    steering = vidb.of(value, "steer")
    if count is None:
        return steering
    kept = steering.frame["ladder"].drop_duplicates()[:count]
    return Vidb(steering.frame[steering.frame["ladder"].isin(kept)].reset_index(drop=True))


def _numbers(values: Sequence[float]) -> tuple[float | None, ...]:
    """NaN, which JSON does not have, as None."""
    return tuple(x if x == x else None for x in values)


if __name__ == "__main__":
    main()
