import numpy as np
import pytest


def made_arm(coefficients, slope, *, seed, prompts=12, second=False):
    from valueflow.dose.arms import Arm

    rng = np.random.default_rng(seed)
    c = np.array(coefficients)
    truth = slope * np.tanh(3 * c) / np.tanh(1.2) - 0.8
    intensities = (
        truth[:, None] + rng.normal(0, 0.8, prompts) + rng.normal(0, 0.9, (len(c), prompts))
    )
    damage = 5.5 * c[:, None] ** 2 + rng.normal(0, 0.05, (len(c), prompts)) * (c[:, None] != 0)
    return Arm(
        coefficients=tuple(c.tolist()),
        intensities=intensities,
        damage=damage,
        degenerate=tuple((c**2).tolist()),
        outside=tuple((0.5 * np.abs(c)).tolist()),
        second=tuple((0.6 * truth).tolist()) if second else None,
        texts=tuple(tuple(f"text {i} {j}" for j in range(prompts)) for i in range(len(c))),
    )


@pytest.fixture(scope="session")
def calibration():
    """A vector that saturates, over 12 prompts; draws of placebos that hardly move, either way."""
    import torch

    from valueflow.dose.calibrate import COEFFICIENTS, Calibration
    from valueflow.dose.curve import DoseCurve
    from valueflow.dose.sweep import Decoding
    from valueflow.steering.vector import SteeringVector

    own = made_arm(COEFFICIENTS, 5.0, seed=0, second=True)
    curve = DoseCurve("pchip", n_bootstrap=40, seed=3)
    curve.fit(list(own.coefficients), own.intensities, damage=own.damage)
    ends = (curve.usable_range_[0], 0.0, curve.usable_range_[1])

    def draw(slope, seed):
        """At 0 every arm has the unsteered answers."""
        made = made_arm(ends, slope, seed=seed)
        made.intensities[1] = own.intensities[4]
        return made

    placebos = {
        "random": tuple(draw(x, i) for i, x in enumerate((1.5, -1.6, 0.6, -0.5), 1)),
        "shuffled": tuple(draw(x, i) for i, x in enumerate((-0.7, 1.4, 0.9), 5)),
    }
    vector = SteeringVector("svt/power", {9: torch.tensor([1.0, 0.0])}, {9: 12.5}, {})
    provenance = {
        "model": {"name": "tiny/llama", "weights": "ab12", "template": None},
        "judge": "hives",
        "evaluator": "e1e1",
        "panel": "f00d",
        "prompts": [f"calibration prompt {i}?" for i in range(12)],
        "seed": 3,
    }
    return Calibration(vector, curve, own, placebos, Decoding(), provenance)


@pytest.fixture(scope="session")
def verified(calibration):
    """Seven targets, achieved a little off; the outermost cannot be reached."""
    from valueflow.dose.calibrate import TARGETS, Verified

    rows = []
    for i, target in enumerate(TARGETS):
        dose = calibration.curve.inverse(target)
        nearest = getattr(dose, "nearest", target)
        achieved = nearest + (0.4, -0.3, 0.5, 0.2, -0.6, 0.3, -0.2)[i]
        rows.append(
            Verified(
                target=target,
                coefficient=dose.coefficient,
                achieved=achieved,
                ci=(achieved - 0.7, achieved + 0.7),
                damage=5.5 * dose.coefficient**2,
                degenerate=0.05,
                status=dose.status,
                nearest=nearest,
            )
        )
    return rows


@pytest.fixture(scope="session")
def data(calibration, verified):
    from study_cases import made

    return made(calibration, verified)


@pytest.fixture(scope="session")
def figure(calibration, verified):
    from valueflow.study import dose_figure

    return dose_figure(calibration, verified)
