"""What answers of a paid model may cost, and what they did."""

from dataclasses import dataclass

from valueflow.errors import InvalidInput


@dataclass(frozen=True)
class Budget:
    """What may be spent on answers by one judge, cached ones being free.

    Nothing is asked any more once as much is spent; what is under way is finished, so a budget is
    passed by `concurrency` answers at most.

    Attributes:
        tokens: of questions and answers together; None for no limit.
        cost: in the currency of the prices; None for no limit.
        prompt_price: of a million tokens of questions.
        answer_price: of a million tokens of answers.

    Raises:
        InvalidInput: a number that is negative, or a limit to the cost without prices.
    """

    tokens: int | None = None
    cost: float | int | None = None
    prompt_price: float | int = 0.0
    answer_price: float | int = 0.0

    def __post_init__(self) -> None:
        if min(self.tokens or 0, self.cost or 0, self.prompt_price, self.answer_price) < 0:
            raise InvalidInput(f"a budget is not negative, got {self}")
        if self.cost is not None and self.prompt_price + self.answer_price == 0:
            raise InvalidInput("a budget of cost needs prompt_price and answer_price")


@dataclass(frozen=True)
class Usage:
    """What a judge has spent since it was made.

    Attributes:
        asked: questions put to the server, one that had to be repeated counting once.
        cached: questions whose answer was known.
        prompt_tokens: of the answered questions, estimated where a server does not say.
        answer_tokens: likewise of the answers.
    """

    asked: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    def cost(self, budget: Budget) -> float:
        """At the prices of `budget`."""
        spent = self.prompt_tokens * budget.prompt_price + self.answer_tokens * budget.answer_price
        return float(spent / 1e6)

    def exhausted(self, budget: Budget) -> str | None:
        """Which limit is reached, in words; None if there is more to spend."""
        tokens = self.prompt_tokens + self.answer_tokens
        if budget.tokens is not None and tokens >= budget.tokens:
            return f"budget of {budget.tokens} tokens spent"
        if budget.cost is not None and self.cost(budget) >= budget.cost:
            return f"budget of {budget.cost:g} spent"
        return None
