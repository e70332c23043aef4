"""Gemma 3, 270M, as trained and before any chat: it has no chat template.

Nothing guesses a format for it: "plain" is chosen, one line for the question and one that opens
the answer. An answer ends where the model begins to ask itself the next question. What 0.3 does to
other models, a coefficient of 0.1 does to this one: at 0.3 it writes no language any more.
"""

from family import main

if __name__ == "__main__":
    main("gemma-3-270m", template="plain", coefficient=0.1)
