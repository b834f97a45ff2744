"""Types of the arguments of commands."""

from argparse import ArgumentTypeError


def positive(text: str) -> int:
    """Return an argument as a whole number of at least 1."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
