"""Seconds of one small steered sweep on SmolLM2-135M-Instruct, by backend, in one run.

    python benchmarks/backends.py --repeats 2

Seconds are those of the processor, on one thread, so that other work on the machine matters little;
the least of the repeats is taken, after one more that is not counted.
"""

import argparse
import resource

import torch

from valueflow.backends.named import BACKENDS, load_backend
from valueflow.dose.sweep import Decoding, sweep
from valueflow.models import load
from valueflow.steering.vector import SteeringVector

LAYER, NORM = 15, 100.0
CELLS = [{"v": c} for c in (-0.4, 0.0, 0.4)]
PROMPTS = ["Who should lead?", "Should I help him?", "What is worth living for?", "Is it fair?"]


def placebo(size):
    """A random direction: what it adds costs as much as any other."""
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return SteeringVector("v", {LAYER: drawn / drawn.norm()}, {LAYER: NORM}, {})


def main():
    """Parse the command line, run the sweeps in turn and print a line per backend."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=2)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    loaded = load("smollm2-135m-instruct")
    arms = {"v": placebo(loaded.hidden_size)}
    decoding = Decoding(max_new_tokens=12)
    backends = {}
    for name in BACKENDS:
        before = cpu()
        backends[name] = load_backend(name, loaded)
        print(f"{name:18s} import and set-up {cpu() - before:6.2f} s of CPU")
    seconds = {name: [] for name in BACKENDS}
    texts = {}
    for repeat in range(repeats + 1):
        for name, backend in backends.items():
            start = cpu()
            grid = sweep(loaded, arms, CELLS, PROMPTS, decoding=decoding, backend=backend)
            texts[name] = grid.texts
            if repeat:
                seconds[name].append(cpu() - start)
    for name, times in seconds.items():
        best, reference = min(times), min(seconds["hf"])
        same = texts[name] == texts["hf"]
        print(f"{name:18s} {best:6.2f} s of CPU, {best / reference:5.2f} x hf, same texts: {same}")


def cpu():
    """Seconds of processor time so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
