"""What sharing between values buys: own effect and leakage of directions, without generation.

    python benchmarks/hierarchy.py --values svt --layer 16 --cache /tmp/activations

Directions are learned from 4, 8, 16 and all ladders of the steer split and measured on the
validation and test ladders: d' and AUC on those of the value, mean |d'| on those of its siblings.
Prints a markdown table per number of ladders; intervals are 95%, over values drawn with
replacement, of the difference from `plain` in the same draws of ladders. Activations are read once
and kept in the cache; with values of other theories (`--helpers`), `pooled` learns from those too.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from valueflow.hives.encoder import load_value_encoder
from valueflow.models import load
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import POLE, contrasts
from valueflow.steering.directions import labels
from valueflow.steering.methods import Texts, directions_of, drawn
from valueflow.steering.separation import separation
from valueflow.theories import get_theory, steered_values
from valueflow.vidb import load_starter

METHODS = (
    "plain",
    "shrunken",
    "pooled",
    "shuffled_tree",
    "specific",
    "plain_specific",
    "own",
    "matched",
)


def cached(path, read):
    """Tensors from a file, made and written by `read` if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(read(), path)
    return load_file(path)


def poles(graded, most):
    """The texts of both poles of the first `most` ladders; the middle rung tells nothing here."""
    names = sorted({c.ladder for c in graded})[:most]
    return [c for c in graded if abs(c.intensity) > POLE and c.ladder in names]


def texts_of(args, model, encoder, vidb, value, splits, most=None):
    """The texts of a value and some splits with their activations and embeddings."""
    parts = []
    for split in splits:
        graded = poles(contrasts(vidb, value, split=split), most)
        name = f"{vidb.fingerprint()}-{value.replace('/', '-')}-{split}-{len(graded)}.safetensors"

        def read(graded=graded):
            rows = answer_activations(model(), graded, [args.layer])
            return {"rows": rows.by_layer[args.layer]}

        def embed(graded=graded):
            found = encoder().embed([c.text for c in graded])
            return {"rows": torch.from_numpy(found).contiguous().clone()}

        rows = cached(args.cache / f"{args.model}-{args.layer}-{name}", read)["rows"]
        places = cached(args.cache / f"hives-{name}", embed)["rows"]
        parts.append((rows, *labels(graded), places))
    rows, intensities, ladders, places = zip(*parts, strict=True)
    names = [name for part in ladders for name in part]
    return Texts(torch.cat(rows), torch.cat(intensities), names, torch.cat(places))


def measure(found, held, values):
    """Per value: d' and AUC on its own held-out ladders, and mean |d'| on its siblings'."""
    rows = []
    for value in values:

        def on(other, value=value):
            texts = held[other]
            return separation(texts.activations, texts.intensities, texts.ladders, found[value])

        near = get_theory(value.partition("/")[0]).siblings(value)
        leaks = [abs(on(other).effect) for other in near if other in held]
        own = on(value)
        rows.append((own.effect, own.auc, float(np.mean(leaks)) if leaks else np.nan))
    return np.array(rows)


def random_like(family, rng):
    """What an unlearned direction does: the floor of leakage."""
    return {
        value: torch.from_numpy(rng.normal(size=texts.activations.shape[1])).float()
        for value, texts in family.items()
    }


def interval(differences, rng, draws=2000):
    """Mean of values' differences and its 95% bootstrap interval, as text."""
    kept = differences[np.isfinite(differences)]
    means = rng.choice(kept, size=(draws, len(kept))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{kept.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


def table(train, held, values, n_ladders, args):
    """The rows of one markdown table."""
    seeds = range(args.seed, args.seed + (args.draws if n_ladders else 1))
    results = {}
    for method in (*METHODS, "random"):
        runs = []
        for seed in seeds:
            family = {v: train[v] for v in (train if method == "pooled" else values)}
            family = drawn(family, n_ladders, seed=seed) if n_ladders else family
            rng = np.random.default_rng(seed)
            if method == "random":
                found = random_like(family, rng)
            else:
                found = directions_of(family, method, rng=rng)
            runs.append(measure(found, held, values))
        results[method] = np.mean(runs, axis=0)
    rng = np.random.default_rng(args.seed)
    print(f"\n{n_ladders or 'All'} ladders per value, {len(seeds)} draw(s) of ladders\n")
    print("| method | own d' | AUC | leakage | own d' - plain | leakage - plain | own - leakage |")
    print("|---|---|---|---|---|---|---|")
    for method, rows in results.items():
        gain = rows - results["plain"]
        selective = rows[:, 0] - rows[:, 2]
        print(
            f"| {method} | {rows[:, 0].mean():.2f} | {rows[:, 1].mean():.3f} | "
            f"{np.nanmean(rows[:, 2]):.2f} | {interval(gain[:, 0], rng)} | "
            f"{interval(gain[:, 2], rng)} | {interval(selective, rng)} |",
            flush=True,
        )


def main():
    """Parse the command line, read what is not cached, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--values", default="svt", help="a theory, or all")
    parser.add_argument("--helpers", nargs="*", default=[], help="theories that pooling draws on")
    parser.add_argument("--layer", type=int, default=16)
    parser.add_argument("--ladders", type=int, nargs="+", default=[4, 8, 16, 0], help="0 is all")
    parser.add_argument("--draws", type=int, default=5, help="draws of ladders")
    parser.add_argument("--held", type=int, default=8, help="held-out ladders per value and split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, required=True)
    args = parser.parse_args()
    vidb, loaded = load_starter(), {}

    def once(name, make):
        return lambda: loaded[name] if name in loaded else loaded.setdefault(name, make())

    model = once("model", lambda: load(args.model))
    encoder = once("encoder", load_value_encoder)
    values = [v.id for v in steered_values(None if args.values == "all" else args.values)]
    extra = [v.id for theory in args.helpers for v in steered_values(theory)]
    sources = (args, model, encoder, vidb)
    train = {v: texts_of(*sources, v, ["steer"]) for v in dict.fromkeys(values + extra)}
    held = {v: texts_of(*sources, v, ["validation", "test"], args.held) for v in values}
    print(f"{args.model}, layer {args.layer}, {len(values)} values, seed {args.seed}")
    for n_ladders in args.ladders:
        table(train, held, values, n_ladders, args)


if __name__ == "__main__":
    main()
