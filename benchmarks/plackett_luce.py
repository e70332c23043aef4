"""Time, memory and agreement of Plackett-Luce fits: valueflow beside choix.

    python benchmarks/plackett_luce.py --items 10000 --windows 100000 --size 5 --seed 0

Every fit runs in a process of its own on rankings drawn from the same planted positions. choix
loops in Python and fills dense matrices, so it gets a smaller problem unless --full is given. All
maximise the likelihood without a prior (choix: alpha=0; its alpha is a penalty in one fit and
pseudo-counts in the other, and neither is our ridge) and stop by their own default tolerance, so
their estimates must agree where the rankings connect all items. choix gives no standard errors;
valueflow's time and memory include them. Memory is the growth of the process's peak over what the
imports and the rankings took.
"""

import argparse
import multiprocessing
import resource
import sys
import time

FITS = ("valueflow.ranking.fit", "choix.opt_rankings", "choix.ilsr_rankings")


def planted_rankings(n_items, n_windows, size, seed):
    """Windows of random items, ranked by Plackett-Luce from positions spread over [-2, 2]."""
    import numpy as np

    from valueflow.ranking import simulate_rankings

    rng = np.random.default_rng(seed)
    theta = rng.permutation(np.linspace(-2, 2, n_items))
    windows = rng.integers(n_items, size=(n_windows, size))
    while True:
        ordered = np.sort(windows, axis=1)
        again = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        if not again.any():
            return simulate_rankings(theta, windows.tolist(), rng=rng)
        windows[again] = rng.integers(n_items, size=(again.sum(), size))


def measure(name, problem):
    """Estimates (None where choix has none), seconds, and growth of the peak memory in MB."""
    import choix

    import valueflow.ranking

    n_items, rankings = problem[0], planted_rankings(*problem)
    fit = {
        "valueflow.ranking.fit": lambda: valueflow.ranking.fit(rankings, n_items),
        "choix.opt_rankings": lambda: choix.opt_rankings(n_items, rankings, alpha=0.0),
        "choix.ilsr_rankings": lambda: choix.ilsr_rankings(n_items, rankings, alpha=0.0),
    }[name]
    before = peak_mb()
    started = time.perf_counter()
    try:
        found = fit()
    except (RuntimeError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        found = None
    return found, time.perf_counter() - started, peak_mb() - before


def peak_mb():
    """Largest resident set of this process so far, in MB (1e6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def in_child(name, problem):
    """`measure` in a fresh process; this one stays small, since a child inherits its peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (name, problem))


def compare(problem, names):
    """One table: time, memory, and largest difference of the centred estimates from ours."""
    n_items, n_windows, size, seed = problem
    print(f"\n{n_items:,} items, {n_windows:,} windows of {size}, seed {seed}")
    print(f"{'fit':<24}{'seconds':>10}{'peak MB':>10}{'max |difference|':>19}")
    reference = None
    for name in names:
        found, seconds, megabytes = in_child(name, problem)
        difference = "-"
        if name == FITS[0]:
            reference = found.theta
            state = f"connected {found.connected}, converged {found.converged}"
        elif found is not None:
            difference = f"{abs(found - found.mean() - reference).max():.1e}"
        print(f"{name:<24}{seconds:>10.1f}{megabytes:>10.0f}{difference:>19}", flush=True)
    print(f"(valueflow: {state})")


def main():
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--choix-items", type=int, default=200, help="size of the comparison")
    parser.add_argument("--choix-windows", type=int, default=2_000)
    parser.add_argument(
        "--full", action="store_true", help="choix at full size too; may take hours"
    )
    args = parser.parse_args()
    large = (args.items, args.windows, args.size, args.seed)
    small = (args.choix_items, args.choix_windows, args.size, args.seed)
    if args.full:
        compare(large, FITS)
    else:
        compare(large, FITS[:1])
        compare(small, FITS)
        print("\nchoix ran on the smaller problem only; --full runs it on the larger one.")


if __name__ == "__main__":
    main()
