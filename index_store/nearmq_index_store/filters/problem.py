"""What is wrong with an expression, before it is known which expression it was."""

import difflib
from collections.abc import Iterable

#: Characters of a name or token that a message shows.
_SHOWN = 60


class ProblemError(Exception):
    """Raised at the place where an expression is wrong; becomes InvalidExpression where the text is at hand.

    Attributes:
        problem: what is wrong; the place goes behind it.
        column: 1-based character of the expression.
        advice: what to do instead, behind the place; may be empty.
    """

    def __init__(self, problem: str, column: int, advice: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.column = column
        self.advice = advice


def shortened(text: str) -> str:
    """Return a text in quotes, its end left out when it is long."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the advice for an unknown name: the nearest known one, or all of them."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    if close:
        return f"did you mean {close[0]!r}"
    return f"known are {', '.join(map(repr, options))}" if options else "there are none"
