"""Conversations."""

import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from ._answer import Answer
from ._errors import OptionError, Phi3VError
from ._options import Options, over, split, taken
from ._phi3v import CancelFlag
from ._pictures import PictureLike, opened
from ._schema import form, question_of
from ._stream import Begun, Stream

if TYPE_CHECKING:
    from ._model import Model

Turn: TypeAlias = tuple[str, str, int]
"""Role, text and number of pictures of one side's turn."""


def checked(question: object) -> str:
    """The question, if it is one."""
    if not isinstance(question, str):
        raise TypeError(f"the question must be a str, not {type(question).__name__}")
    if not question.strip():
        raise OptionError("the question is empty")
    return question


def turns(question: str, pictures: int, system: str | None) -> list[Turn]:
    """A conversation of one question: role, text and number of pictures of each turn."""
    before = [] if system is None else [("system", system, 0)]
    return [*before, ("user", question, pictures)]


class Chat:
    """A conversation about pictures. One thread may talk at a time."""

    def __init__(
        self, model: "Model", images: PictureLike | Iterable[PictureLike], options: Mapping[str, Any]
    ) -> None:
        self._model = model
        self._options = taken(options)
        parts = split(self._options)
        self._pictures = model._read(opened(images, parts.reading), parts.reading)
        self._new = len(self._pictures)
        self._turns: list[Turn] = [] if parts.system is None else [("system", parts.system, 0)]
        # one that nobody reads any more is gone, and its question with it
        self._last: weakref.ref[Stream] | None = None
        # a handler of a signal may ask while its own thread does
        self._asking = threading.RLock()

    @property
    def messages(self) -> list[dict[str, str]]:
        """What was said so far: role and content of each message."""
        return [{"role": role, "content": text} for role, text, _ in self._turns]

    def ask(
        self,
        question: str | None = None,
        images: PictureLike | Iterable[PictureLike] = (),
        *,
        schema: Any = None,
        **options: Unpack[Options],
    ) -> Answer:
        """The answer to the next question, about `images` and all earlier ones. Options are over those of the
        conversation; `system` has been said at its beginning."""
        stream = self.stream(question, images, schema=schema, **options)
        try:
            return stream.wait()
        finally:
            # where it was interrupted nobody can read it to its end
            last = self._last
            if last is not None and last() is stream:
                self._last = None

    def stream(
        self,
        question: str | None = None,
        images: PictureLike | Iterable[PictureLike] = (),
        *,
        schema: Any = None,
        **options: Unpack[Options],
    ) -> Stream:
        """The same, piece by piece. The conversation goes on when the stream has ended, or was closed: until then there is
        no next question."""
        if options.get("system") is not None:
            raise OptionError("a conversation has its system text from its beginning", "give it to model.chat")
        parts, want = split(over(self._options, options, schema)), form(schema)
        asked, sources = checked(question_of(question, want)), opened(images, parts.reading)

        def begin(cancel: CancelFlag) -> Begun:
            added = self._model._read(sources, parts.reading, cancel)
            pictures = [*self._pictures, *added]
            said = [*self._turns, *turns(asked, self._new + len(added), None)]

            def remember(answer: Answer) -> None:
                self._turns, self._pictures, self._new = [*said, ("assistant", str(answer), 0)], pictures, 0

            return self._model._ask(said, pictures, parts, want)._replace(on_end=remember)

        stream = Stream(begin, want, start=False)
        while True:
            before = self._last
            # which may wait for another thread, and so not under the lock
            self._check_ended(None if before is None else before())
            with self._asking:
                if self._last is before:
                    self._last = weakref.ref(stream)
                    break
        # another thread's question is refused from here on, also while pictures are read
        stream._start_outside_loop()
        return stream

    def _check_ended(self, last: Stream | None) -> None:
        if last is None:
            return
        if last._ended:
            # another thread may be about to remember it
            with last._locked():
                return
        if not last._closed:
            raise OptionError("the answer before has not ended", "read or close it first")
        # its end comes soon
        with suppress(Phi3VError):
            last.close()
