"""What label-shuffled vectors do, and how much of it is the value's own direction in them.

    python benchmarks/placebos.py smollm2-135m-instruct --value tradition --work out/placebos

A shuffled vector is a difference of the very texts that the value's vector is made of, brought to
length 1: what little of the true direction is left in it by chance is stretched as well. So every
draw is steered as it is and without its part along the true direction, at the ends of the released
card's usable range; a table says the cosine with the true direction and both changes. Without that
part only what texts of this value have in common beside it is left.
"""

import argparse
from pathlib import Path

import numpy as np

from valueflow.dose.arms import intensities_of
from valueflow.dose.calibrate import mean_half_width
from valueflow.dose.prompts import load_prompts
from valueflow.dose.released import load_released, value_folder
from valueflow.evaluate import vidb_evaluator
from valueflow.judges.base import get_judge
from valueflow.models import load
from valueflow.steering.vector import random_like
from valueflow.study.kept import kept_sweep
from valueflow.study.release_plan import Plan, plan_deriver
from valueflow.theories import get_value
from valueflow.vidb import load_starter


def change(grid, evaluator):
    """Mean change from the first to the second cell over prompts, with its 95% half width."""
    table, _ = intensities_of(evaluator, grid, [0, 1])
    own = table[1] - table[0]
    own = own[np.isfinite(own)]
    return own.mean(), mean_half_width(own)


def main():
    """Print a table per value."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--value", action="append", required=True)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    loaded, vidb, judge = load(args.model), load_starter(), get_judge("hives")
    for card in load_released(args.model, [get_value(v).id for v in args.value]):
        prompts = load_prompts("calibration")[:24]
        seed = int(card.provenance["seed"])
        deriver = plan_deriver(loaded, vidb, Plan(layer=card.vector.layers, seed=seed))
        evaluator = vidb_evaluator(vidb, card.value, judge, seed=seed)
        low, high = card.curve.usable_range_

        def measured(name, vector, card=card, ends=(low, high), prompts=prompts, ruler=evaluator):
            cells = [{"vector": float(c)} for c in ends]
            path = args.work / f"{value_folder(card.value)}-{name}.jsonl.gz"
            arms = {"vector": vector}
            grid = kept_sweep(path, loaded, arms, cells, prompts, decoding=card.decoding)
            return change(grid, ruler)

        print(f"\n{card.value}: {low:+.3f} to {high:+.3f}, layers {card.vector.layers}")
        print("\n| vector | cosine | change | change without the true direction |")
        print("|---|--:|--:|--:|")
        own = measured("true", card.vector)
        print("| true | 1 | {:+.1f} ± {:.1f} | |".format(*own), flush=True)
        rows = []
        for draw in range(args.draws):
            vector = deriver(card.value, seed + draw)
            rest = vector.project_out([card.vector]).renormalised()
            found = [vector.cosine(card.vector), *measured(f"shuffled-{draw}", vector)]
            found += measured(f"apart-{draw}", rest)
            rows.append(found)
            told = "| {:+.2f} | {:+.1f} ± {:.1f} | {:+.1f} ± {:.1f} |".format(*found)
            print(f"| shuffled {draw + 1} {told}", flush=True)
        random = [random_like(card.vector, seed=seed + i) for i in range(args.draws)]
        sizes = [abs(measured(f"random-{i}", vector)[0]) for i, vector in enumerate(random)]
        cosine, whole, _, apart, _ = np.array(rows).T
        slope = (cosine @ whole) / (cosine @ cosine)
        print(
            f"\nmean size: shuffled {np.abs(whole).mean():.2f}, without the true direction "
            f"{np.abs(apart).mean():.2f}, random {np.mean(sizes):.2f}; change per cosine "
            f"{slope:+.1f}, correlation {np.corrcoef(cosine, whole)[0, 1]:+.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
