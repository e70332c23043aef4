"""The whole loop for one value on one model: from graded texts to verified targets."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valueflow.dose.calibrate import TARGETS, Calibration, Stage, Verified, calibrate, verify
from valueflow.dose.prompts import load_prompts
from valueflow.dose.steerer import save_card
from valueflow.dose.sweep import Grid
from valueflow.evaluate import vidb_evaluator
from valueflow.hives.judge import load_hives_judge, load_prototype_judge
from valueflow.models.loading import LoadedModel, load
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import contrasts
from valueflow.steering.derivation import derive
from valueflow.steering.directions import middle_layers
from valueflow.steering.vector import SteeringVector, random_like
from valueflow.theories import get_value
from valueflow.vidb import Vidb, load_starter

CALIBRATION_PROMPTS = 32
VERIFICATION_PROMPTS = 40
RANDOM_DRAWS = 3
SHUFFLED_DRAWS = 2
EXAMPLE_TARGETS = (-4.0, 0.0, 4.0)


@dataclass(frozen=True)
class Loop:
    """What one run of the loop found.

    Attributes:
        value: id of the value.
        calibration: curve, arms and vector.
        verified: one row per target, measured on the verification prompts.
        grid: the texts of the verification; row 0 is unsteered, row i + 1 is verified[i].
        seconds: wall time.
        vidb: fingerprint of the database.
    """

    value: str
    calibration: Calibration
    verified: list[Verified]
    grid: Grid
    seconds: float
    vidb: str

    def examples(self, n_prompts: int = 2) -> list[dict[str, Any]]:
        """Answers of the first prompts at the targets -4, 0 and +4 side by side."""
        rows = {row.target: i for i, row in enumerate(self.verified, start=1)}
        shown = [t for t in EXAMPLE_TARGETS if t in rows]
        return [
            {
                "prompt": prompt,
                "answers": [
                    {
                        "target": target,
                        "status": self.verified[rows[target] - 1].status,
                        "nearest": self.verified[rows[target] - 1].nearest,
                        "coefficient": self.verified[rows[target] - 1].coefficient,
                        "text": self.grid.texts[rows[target]][column],
                    }
                    for target in shown
                ],
            }
            for column, prompt in enumerate(self.grid.prompts[:n_prompts])
        ]


def run_loop(
    value: str,
    *,
    model: str | LoadedModel = "smollm2-135m-instruct",
    vidb: Vidb | None = None,
    n_calibration: int = CALIBRATION_PROMPTS,
    n_verification: int = VERIFICATION_PROMPTS,
    seed: int,
    stage: Stage | None = None,
) -> Loop:
    """Derive, calibrate with placebos, verify on other prompts.

    Args:
        value: id or name of a value the database grades.
        model: what `valueflow.models.load` takes.
        vidb: the graded texts; None for the starter.
        n_calibration: prompts of the calibration suite used, from its start.
        n_verification: prompts of the verification suite used.
        seed: of folds, placebos, panels and bootstrap.
        stage: progress.
    """
    started = time.monotonic()
    tell: Callable[[str], Any] = stage or (lambda _name: None)
    value_id, vidb = get_value(value).id, vidb or load_starter()
    vidb.of(value_id)  # a value that is not graded fails here, before anything is loaded
    tell("load")
    loaded = load(model)
    prompts = load_prompts("calibration")[:n_calibration]
    tell("scale")
    evaluator = vidb_evaluator(vidb, value_id, load_hives_judge(), seed=seed)
    second = vidb_evaluator(vidb, value_id, load_prototype_judge(), mode="paper", seed=seed)
    tell("derive")
    vector, placebos = derive_with_placebos(loaded, vidb, value_id, prompts=prompts, seed=seed)
    calibration = calibrate(
        loaded,
        vector,
        evaluator,
        prompts=prompts,
        placebos=placebos,
        second=second,
        seed=seed,
        stage=stage,
    )
    others = load_prompts("verification")[:n_verification]
    verified, grid = verify(
        loaded, calibration, evaluator, prompts=others, targets=TARGETS, stage=stage
    )
    seconds = time.monotonic() - started
    return Loop(value_id, calibration, verified, grid, seconds, vidb.fingerprint())


def derive_with_placebos(
    loaded: LoadedModel, vidb: Vidb, value: str, *, prompts: list[str], seed: int
) -> tuple[SteeringVector, dict[str, list[SteeringVector]]]:
    """The value's vector, random directions like it, and vectors of shuffled labels.

    The contrasts are read once for all of them.
    """
    graded = contrasts(vidb, value, split="steer")
    read = answer_activations(loaded, graded, middle_layers(loaded.n_layers))
    known = {"prompts": prompts, "activations": read}
    vector = derive(loaded, vidb, value, seed=seed, **known)
    layers = list(vector.layers)
    draws = {
        "random": [random_like(vector, seed=seed + i) for i in range(RANDOM_DRAWS)],
        "shuffled": [
            derive(loaded, vidb, value, layer=layers, shuffle_labels=True, seed=seed + i, **known)
            for i in range(SHUFFLED_DRAWS)
        ],
    }
    return vector, draws


def run_demo(
    value: str,
    out: str | Path,
    *,
    model: str = "smollm2-135m-instruct",
    seed: int = 0,
    stage: Stage | None = None,
) -> tuple[Loop, dict[str, Any]]:
    """Run the loop and write results.json, report.html, the figure and the calibration to `out`."""
    from valueflow.study.plots import dose_figure
    from valueflow.study.report import results, write_report

    loop = run_loop(value, model=model, seed=seed, stage=stage)
    summary = results(
        loop.calibration,
        loop.verified,
        value=loop.value,
        seconds=loop.seconds,
        second_judge="prototype",
        vidb_fingerprint=loop.vidb,
        n_verification=len(loop.grid.prompts),
    )
    figure = dose_figure(loop.calibration, loop.verified)
    write_report(Path(out), summary, figure, loop.examples())
    save_card(loop.calibration, Path(out) / "calibration", overwrite=True)
    return loop, summary
