"""stderr as it is: a program without a window for it has none, and others close it or leave it to a reader that has gone."""

import contextlib
import sys


def is_watched() -> bool:
    """Whether somebody looks at stderr as it is written."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):
        return False


def tell(text: str) -> None:
    """Writes to stderr; what cannot be told there changes nothing."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()
