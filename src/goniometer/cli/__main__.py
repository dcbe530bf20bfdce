"""``python -m goniometer.cli``."""

from goniometer.cli import main

main()
