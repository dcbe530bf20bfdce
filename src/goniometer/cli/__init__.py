"""The command line: one library call a command."""

import sys


def main() -> None:
    """Run the command line. What a user can mend ends with one sentence and exit code 2."""
    from goniometer.cli.app import app
    from goniometer.errors import GoniometerError

    try:
        app()
    except GoniometerError as error:
        print(f"goniometer: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("goniometer: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        raise SystemExit(0) from None
