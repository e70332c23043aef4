import numpy as np
import pytest


def made_arm(coefficients, slope, *, seed, prompts=12, second=False):
    from valueflow.dose.calibrate import Arm

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
    """Three arms over 12 prompts; the vector saturates, the placebos hardly move."""
    import torch

    from valueflow.dose.calibrate import COEFFICIENTS, PLACEBO_COEFFICIENTS, Calibration
    from valueflow.dose.curve import DoseCurve
    from valueflow.dose.sweep import Decoding
    from valueflow.steering.vector import SteeringVector

    own = made_arm(COEFFICIENTS, 5.0, seed=0, second=True)
    arms = {
        "vector": own,
        "random": made_arm(PLACEBO_COEFFICIENTS, 0.5, seed=1),
        "shuffled": made_arm(PLACEBO_COEFFICIENTS, -0.7, seed=2),
    }
    curve = DoseCurve("pchip", n_bootstrap=40, seed=3)
    curve.fit(list(own.coefficients), own.intensities, damage=own.damage)
    vector = SteeringVector("svt/power", {9: torch.tensor([1.0, 0.0])}, {9: 12.5}, {})
    provenance = {
        "model": {"name": "tiny/llama", "weights": "ab12", "template": None},
        "judge": "hives",
        "evaluator": "e1e1",
        "panel": "f00d",
        "prompts": [f"calibration prompt {i}?" for i in range(12)],
        "seed": 3,
    }
    return Calibration(vector, curve, arms, Decoding(), provenance)


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
