"""The command `phi3v`, in this process: `python -m phi3v ask cover.png "Who wrote this book?"`."""

import signal
import sys

from ._phi3v import main as run


def main() -> int:
    """Runs the command line of this process, and returns the number to exit with."""
    # Python's own handler would wait for the command to end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run(["phi3v", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
