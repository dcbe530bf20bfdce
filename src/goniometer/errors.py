"""Errors that a user can cause and correct: one clear sentence each, exit code 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class GoniometerError(Exception):
    """Base of every error raised on purpose. The message says what is wrong, where, and what would be right."""


class InputError(GoniometerError, ValueError):
    """An argument, a file or a structure that cannot be used."""


class PotentialError(GoniometerError, RuntimeError):
    """A model that failed, or answered with something that is not an energy or a force, on one structure."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence, ``; did you mean 'box'?``, if a known name comes close, and nothing if none does."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


class ServerError(GoniometerError, RuntimeError):
    """A server that cannot be reached, goes away, or does not speak the protocol."""
