"""An answer on its way."""

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any

from ._answer import Answer, of_ended
from ._errors import Phi3VError
from ._phi3v import Answers, Ended, Piece
from ._schema import Form, parsed


def finished(ended: Ended, want: Form | None, **known: Any) -> Answer:
    """The answer of a request that has ended, or its failure raised."""
    if ended.error is not None:
        raise ended.error
    means = parsed(want, ended.text, ended.finish_reason)
    return of_ended(ended, item=ended.key, parsed=means, **known)


class Stream:
    """An answer as it is made: an iterator of texts, also for `async for`. Closing it stops the answer."""

    def __init__(self, answers: Answers, want: Form | None, thumbnails: Any) -> None:
        self._answers = answers
        self._want = want
        self._thumbnails = thumbnails
        self._answer: Answer | None = None
        self._told = 0
        self._on_end: Callable[[Answer], None] | None = None

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended."""
        if self._answer is None:
            raise Phi3VError("the answer has not ended", "read the stream to its end first")
        return self._answer

    def wait(self) -> Answer:
        """The whole answer, without its pieces."""
        while self._answer is None:
            self._take(self._answers.next(False))
        return self._answer

    def close(self) -> None:
        """Stops the answer; what was made of it until then is its text."""
        self._answers.cancel()
        if self._answer is None and len(self._answers):
            self._want = None  # what is cut off means nothing
            self.wait()

    def _take(self, told: Piece | Ended | None) -> str | None:
        """The text of what was told, or None at the end."""
        if isinstance(told, Piece):
            self._told += len(told.text)
            return told.text
        if told is None:
            raise Phi3VError("the answer has failed already", "ask again")
        self._answer = finished(told, self._want, thumbnails=self._thumbnails)
        if self._on_end is not None:
            self._on_end(self._answer)
        return None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self._answer is None:
            text = self._take(self._answers.next(True))
            if text is None and self._answer is not None:
                # what a stop string held back to the end
                text = str(self._answer)[self._told :]
            if text:
                return text
        raise StopIteration

    async def __aiter__(self) -> AsyncIterator[str]:
        from ._asynchronous import pieces

        async for text in pieces(self):
            yield text

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
