"""Bias and coverage of the evaluator over the scale, where the truth is known.

    python benchmarks/evaluator.py --sharpness 0.3 0.6 1.2 2.5 --seed 0

Every line is a true intensity: the mean error of the default estimator and the share of its 95%
intervals that hold the truth, beside those of mode "paper" on the same rankings.
"""

import argparse

import numpy as np

from valueflow.evaluate.simulation import simulate_recovery


def main():
    """Parse the command line and print a table per sharpness."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sharpness", type=float, nargs="+", default=[0.3, 0.6, 1.2, 2.5])
    parser.add_argument("--calibrations", type=int, default=20)
    parser.add_argument("--texts", type=int, default=25, help="per truth and calibration")
    parser.add_argument("--truths", type=int, default=11, help="points from -10 to 10")
    parser.add_argument("--anchors", type=int, default=100)
    parser.add_argument("--graded", type=int, default=100)
    parser.add_argument("--misreading", type=float, default=0.0)
    parser.add_argument("--reach", type=float, default=10.0, help="of panel and graded texts")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for sharpness in args.sharpness:
        rows = simulate_recovery(
            sharpness,
            np.linspace(-10, 10, args.truths).tolist(),
            n_calibrations=args.calibrations,
            n_texts=args.texts,
            n_anchors=args.anchors,
            n_graded=args.graded,
            misreading=args.misreading,
            reach=args.reach,
            n_windows=args.windows,
            seed=args.seed,
        )
        print(f"\nsharpness {sharpness}, misreading {args.misreading}, {args.windows} windows")
        print("truth      n   bias +-       sd  covered           outside   paper: bias covered")
        for r in rows:
            print(
                f"{r.truth:+5.0f} {r.n:6d}  {r.bias:+.3f} {r.bias_stderr:.3f} {r.spread:5.2f}  "
                f"{r.covered:5.1%} ({r.covered_low:.1%}-{r.covered_high:.1%})  {r.outside:5.1%}"
                f"       {r.paper_bias:+.2f} {r.paper_covered:5.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
