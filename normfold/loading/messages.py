"""One line from whatever a library had to say."""

from __future__ import annotations

_MAX_LENGTH = 300


def one_line(text: object) -> str:
    """Returns the first meaningful line of ``text``, white space collapsed, at most 300 characters."""
    try:
        lines = str(text).splitlines()
    except UnicodeDecodeError:
        return "undecodable text"
    line = next((" ".join(line.split()) for line in lines if line.strip()), type(text).__name__)
    printable = "".join(char if char.isprintable() else "?" for char in line)
    return printable if len(printable) <= _MAX_LENGTH else printable[: _MAX_LENGTH - 1] + "…"


def root_cause(error: BaseException) -> BaseException:
    """Returns the first error of a chain: onnx_ir wraps its own at every level of nesting."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
