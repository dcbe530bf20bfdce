"""What holds for all tests."""

import signal

# A shell that starts something in the background lets it ignore Ctrl-C, and all that it starts in turn: tests of what
# Ctrl-C does would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
