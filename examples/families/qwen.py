"""Qwen2.5-Coder, 1.5B, in bfloat16 and with little to do, so that a CPU gets through it.

Directions, norms and additions are made in fp32 whatever the weights are in; bfloat16 halves the
memory and, on a CPU that multiplies in it, the time. The vector holds for these weights in this
precision alone: the fingerprint of the same weights in fp32 is another one.
"""

from family import main

if __name__ == "__main__":
    main("qwen2.5-coder-1.5b-instruct", dtype="bfloat16", ladders=12, prompts=6, tokens=32)
