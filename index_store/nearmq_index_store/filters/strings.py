"""String literals to strings."""

from nearmq_index_store.filters.problem import ProblemError

_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "/": "/",
    # The pattern of `like` takes these two literally when it meets them with their backslash.
    "%": "\\%",
    "_": "\\_",
}

#: The digits that follow \x, \u and \U.
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


def unquote(literal: str, column: int) -> str:
    """Return what a quoted literal stands for: C's and JSON's escapes, surrogate pairs joined.

    Raises:
        ProblemError: an unknown escape, or half a surrogate pair; `column` is where the literal starts.
    """
    body = literal[1:-1]
    parts = []
    start = 0
    while (backslash := body.find("\\", start)) >= 0:
        parts.append(body[start:backslash])
        letter = body[backslash + 1]
        digits = body[backslash + 2 : backslash + 2 + _HEX_DIGITS.get(letter, 0)]
        start = backslash + 2 + len(digits)
        if letter in _ESCAPES:
            parts.append(_ESCAPES[letter])
            continue
        try:
            parts.append(chr(int(_hexadecimal(digits, letter), 16)))
        except (ValueError, OverflowError):
            raise ProblemError(f"unknown escape {body[backslash:start]!r}", column + 1 + backslash) from None
    text = "".join((*parts, body[start:]))
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ProblemError("half a surrogate pair", column) from None


def _hexadecimal(digits: str, letter: str) -> str:
    if len(digits) != _HEX_DIGITS.get(letter) or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise ValueError(digits)
    return digits
