"""Several judges on the same windows: who orders, who guesses, who repeats what it was shown.

    python benchmarks/judges.py --judge hives local:smollm2-135m-instruct --value power --seed 0

Graded texts of the test split are measured twice among its other ladders, in the published mode,
which takes no calibration: so judges that cannot be calibrated get figures too. `local:MODEL` is
asked both ways (pairwise and list), in bfloat16 if told so.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from valueflow.evaluate import _held_out
from valueflow.evaluate._window_checks import order_checks, window_agreement
from valueflow.evaluate.agreement import GAP
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.panel import panel_from_vidb
from valueflow.evaluate.rating import compare_rating
from valueflow.judges.base import Rater, get_judge
from valueflow.judges.local_lm import LocalLMJudge, load_local_judge
from valueflow.vidb import load_starter
from valueflow.vidb.schema import ANSWERING


def main():
    """Parse the command line, measure one judge after the other, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judge", nargs="+", default=["hives"])
    parser.add_argument("--value", default="power")
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--windows", type=int, default=4, help="per text and time")
    parser.add_argument("--size", type=int, default=4, help="texts per window")
    parser.add_argument("--order", type=int, default=15, help="windows shown backwards too")
    parser.add_argument("--bf16", action="store_true", help="local models in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="add a line per judge to this file")
    args = parser.parse_args()
    for name in args.judge:
        for judge in judges(name, bf16=args.bf16):
            row = measure(judge, args)
            print(told(row), flush=True)
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def judges(name, *, bf16):
    """The judge of a name; of a local model one per method, on one copy of the weights."""
    if not name.startswith("local:"):
        return [get_judge(name)]
    dtype = torch.bfloat16 if bf16 else None
    pairwise = load_local_judge(name.removeprefix("local:"), dtype=dtype)
    return [pairwise, LocalLMJudge(pairwise.model, method="list", cache=pairwise.cache)]


def measure(judge, args):
    """Figures of one judge as plain JSON."""
    panel = panel_from_vidb(load_starter(), args.value, "test", registers=ANSWERING)
    texts = _held_out.choose(panel, args.texts, seed=args.seed)
    evaluator = AnchorEvaluator(
        judge, panel, n_windows=args.windows, window_size=args.size, mode="paper", seed=args.seed
    )
    first, again = (_held_out.measure(evaluator, texts, seed=args.seed + i) for i in (1, 2))
    ranked = [*first.ranked, *again.ranked]
    groups, grades = texts.groups, texts.intensities
    retest, _ = _held_out.repeats(first.measured, again.measured, groups, seed=args.seed)
    checks = order_checks(
        judge, panel, n_windows=args.order, n_pairs=0, window_size=args.size, seed=args.seed
    )
    row = {
        "judge": judge.name,
        "value": args.value,
        "settings": {k: getattr(args, k) for k in ("windows", "size", "order", "seed", "bf16")},
        "texts": len(texts),
        "anchors": asdict(window_agreement(ranked, [*first.panels, *again.panels], gap=GAP)),
        "agreement": asdict(
            _held_out.pair_share(grades, first.measured, groups, gap=GAP, seed=args.seed)
        ),
        "flips": asdict(_held_out.sign_flips(grades, first.measured, groups, seed=args.seed)),
        "retest": asdict(retest),
        "position": asdict(checks.position_slope),
        "unranked": sum(sum(own.unranked.values()) for own in ranked)
        / (2 * args.windows * len(texts)),
        "seconds": first.seconds / len(texts),
    }
    if isinstance(judge, Rater):
        started = time.perf_counter()
        rated = compare_rating(judge, first, again, seed=args.seed)
        row["rating"] = asdict(rated.rating) | {"reasons": rated.reasons}
        row["rating"]["seconds"] = (time.perf_counter() - started) / (2 * len(texts))
    return row


def told(row):
    """A line of the table."""

    def figure(found):
        return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"

    names = ("anchors", "agreement", "flips", "retest", "position")
    cells = [row["judge"], *(figure(row[name]) for name in names)]
    cells += [f"{row['unranked']:.0%}", f"{row['seconds']:.2f}"]
    own = row.get("rating")
    if own:
        cells += [figure(own[name]) for name in ("agreement", "sign_flips", "retest")]
        cells += [str(own["unmeasured"])]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
