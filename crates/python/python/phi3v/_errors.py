"""What can go wrong, in the words of the command line; the hint is a note of the exception."""


class Phi3VError(Exception):
    """Anything that phi3v refuses or cannot do.

    `hint` says what can be done about it, where there is something; `item` is the place in a batch of what failed.
    """

    hint: str | None
    item: int | None = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint is not None:
            self.add_note(f"hint: {hint}")


class PictureError(Phi3VError, ValueError):
    """A picture cannot be read."""

    # set where phi3v's decoders make nothing of a file, and others' might
    _is_undecoded: bool = False


class GivenUp(Phi3VError):
    """Nobody waits for a picture any more: its stream or its batch was closed. It is never told of."""


class ModelError(Phi3VError):
    """A model cannot be found, read or downloaded."""


class RoomError(Phi3VError):
    """The memory or the context are too small."""


class OptionError(Phi3VError, ValueError):
    """An option is out of its range, or cannot be followed."""


class UnsupportedError(Phi3VError, NotImplementedError):
    """Something that the reference's tools offer and phi3v does not."""
