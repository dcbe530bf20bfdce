"""What holds for all tests."""

import signal
from collections.abc import Iterator

import pytest

from browsing import running

# A shell that starts something in the background lets it ignore Ctrl-C, and all that it starts in turn: tests of what
# Ctrl-C does would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A browser, see :mod:`browsing`."""
    with running() as found:
        yield found
