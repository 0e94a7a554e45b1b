"""An answer on its way."""

import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

from ._answer import Answer, of_ended
from ._errors import GivenUp, Phi3VError
from ._phi3v import Answers, CancelFlag, Ended, Piece
from ._schema import Form, parsed


def finished(ended: Ended, want: Form | None) -> Answer:
    """The answer of a request that has ended, or its failure raised."""
    if ended.error is not None:
        raise ended.error
    answer = of_ended(ended, item=ended.key)
    answer.parsed = parsed(want, ended.text, ended.finish_reason)
    return answer


class Begun(NamedTuple):
    """A question that was asked."""

    answers: Answers
    """What comes of it."""
    thumbnails: Any = ()
    """Its pictures in small, for a notebook."""
    on_end: Callable[[Answer], None] | None = None
    """Told of the answer."""


class Stream:
    """An answer as it is made: an iterator of texts, also for `async for`. Closing it stops the answer, from whatever
    thread. Where an event loop runs, the question is asked when the first text is asked for, so that the loop need not
    wait for its pictures."""

    def __init__(self, begin: Callable[[CancelFlag], Begun], want: Form | None, *, start: bool = True) -> None:
        self._begin = begin
        self._cancelled = CancelFlag()
        self._want = want
        # a handler of a signal may read or close what its own thread reads
        self._lock = threading.RLock()
        self._begun: Begun | None = None
        self._answer: Answer | None = None
        self._failure: BaseException | None = None
        self._closed = False
        self._told = 0
        if start:
            self._start_outside_loop()

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended."""
        if self._answer is None:
            raise Phi3VError("the answer has not ended", "read the stream to its end first")
        return self._answer

    @property
    def _ended(self) -> bool:
        """Whether nothing more comes."""
        return self._answer is not None or self._failure is not None

    def wait(self) -> Answer:
        """The whole answer, without its pieces."""
        while True:
            with self._locked():
                if self._answer is not None:
                    return self._answer
                self._take(False)

    def close(self) -> None:
        """Stops the answer; what was made of it until then is its text."""
        lock = self._locked()
        self._cancel()
        # who reads it at this moment sees its end soon
        with lock:
            if self._ended:
                return
            if self._begun is None:
                self._answer = Answer(finish_reason="cancelled")
            else:
                self.wait()

    def _cancel(self) -> None:
        self._closed = True
        # where its pictures are still waited for
        self._cancelled.set()
        if self._begun is not None:
            self._begun.answers.cancel()

    def _locked(self) -> threading.RLock:
        """The lock. In a fork a thread that is not there may hold it, so that nobody waits for it there."""
        if self._begun is not None:
            self._begun.answers.check_process()
        return self._lock

    def _start_outside_loop(self) -> None:
        """Asks the question now, unless an event loop would have to wait for it."""
        if not _in_loop():
            self._start()

    def _start(self) -> Begun | None:
        """Asks the question, unless it was asked before; None where the stream was closed before its pictures were read."""
        if self._failure is not None:
            raise Phi3VError("the answer has failed already", "ask again") from self._failure
        if self._begun is None:
            try:
                self._begun = self._begin(self._cancelled)
            except GivenUp:
                self._answer = Answer(finish_reason="cancelled")
                return None
            except BaseException as error:
                self._failure = error
                raise
            if self._closed:
                self._begun.answers.cancel()
        return self._begun

    def _take(self, pieces: bool) -> str | None:
        """The text of the next piece, or None at the end."""
        begun = self._start()
        if begun is None:
            return None
        try:
            told = begun.answers.next(pieces)
        except BaseException:
            # who is interrupted has cancelled it
            self._closed = True
            raise
        if isinstance(told, Piece):
            self._told += len(told.text)
            return told.text
        if told is not None:
            self._end(told, begun)
        elif self._answer is None:
            raise Phi3VError("the answer has failed already", "ask again")
        return None

    def _end(self, ended: Ended, begun: Begun) -> None:
        if ended.error is not None:
            self._failure = ended.error
            raise ended.error
        self._answer = of_ended(ended, item=ended.key, thumbnails=begun.thumbnails)
        # what was cut off means nothing
        if not self._closed:
            self._answer.parsed = parsed(self._want, ended.text, ended.finish_reason)
        if begun.on_end is not None:
            begun.on_end(self._answer)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            with self._locked():
                if self._answer is not None:
                    raise StopIteration
                text = self._take(True)
                if text is None:
                    # what a stop string held back to the end
                    text = str(self._answer)[self._told :]
            if text:
                return text

    def __aiter__(self) -> AsyncIterator[str]:
        from ._asynchronous import Pieces

        return Pieces(self)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_loop() -> bool:
    """Whether an event loop runs on this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
