"""Silence for what metatomic and torch say of how a model file was written, which nobody who uses it can mend."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Of C++, which writes to the error stream past Python: ``[W1125 … model.cpp:345] Warning: …``.
# The packages of extensions are imported before, so that what metatomic could not find of them is there.
_FROM_METATOMIC = re.compile(
    rb"^\[W\S* .*\] Warning: .*(?:has an empty description|is deprecated|Consider adding a unit to ensure).*\n?"
    rb"|^\[W\S* .*\] Warning: failed to load extension dependency(?:(?!^\[W)[\s\S])*?\(function load_library\)\n?",
    re.MULTILINE,
)
# The second is of metatensor, of every model that was exported before it knew better.
_FROM_PYTHON = r"`torch\.jit\.\w+` is deprecated|module does not have '_mts_buffer_names'"


@contextmanager
def hushed() -> Iterator[None]:
    """Hold the error stream back, and pass on what is not known to be of no use; of Python's warnings likewise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_FROM_PYTHON)
        try:
            stream = os.dup(2)
        except OSError:  # there is none
            yield
            return
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                if sys.stderr is not None:
                    sys.stderr.flush()
                os.dup2(stream, 2)
                os.close(stream)
                held.seek(0)
                if told := _FROM_METATOMIC.sub(b"", held.read()):
                    os.write(2, told)
