"""Qwen2.5-Coder, 1.5B, with little to do, so that a CPU gets through it.

Like Gemma it comes in bfloat16, as it was published: half the memory and, on a CPU that multiplies
in it, less than half the time. Directions, norms and additions are in fp32 whatever the weights are
in. The vector holds for these weights in this precision alone: the fingerprint of the same
weights in fp32 is another one.
"""

from family import main

if __name__ == "__main__":
    main("qwen2.5-coder-1.5b-instruct", ladders=12, prompts=6, tokens=32)
