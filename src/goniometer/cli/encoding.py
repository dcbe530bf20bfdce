"""Streams that can show whatever is printed, be it in other letters."""

from __future__ import annotations

import codecs
import sys

# What stands for a character where the encoding of a stream has none for it.
_PLAIN = {
    **{"Å": "A", "ℓ": "l", "σ": "sigma", "Δ": "Delta", "χ": "chi", "λ": "lambda", "ω": "omega", "β": "beta", "µ": "u"},
    **{"±": "+-", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt "},
    **{"→": "->", "…": "...", "°": " deg", "∞": "inf", "Σ": "sum ", "“": '"', "”": '"', "’": "'", "•": "*", "│": "|"},
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", ("^0", "^1", "^2", "^3", "^4", "^5", "^6", "^7", "^8", "^9", "^-", "^+"), strict=True)),
    **dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)),
}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """A handler of encoding errors: what comes nearest, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


def show_everything() -> None:
    """Let the output streams replace characters that their encoding does not have (ASCII terminals, odd file names)."""
    codecs.register_error("goniometer.plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="goniometer.plainly")


def printable(text: str) -> str:
    """A text without control characters, by which the name of a file could command a terminal."""
    return "".join(each if each.isprintable() or each == " " else "?" for each in text)
