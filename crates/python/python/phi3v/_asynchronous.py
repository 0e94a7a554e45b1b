"""Streams for `async for`: a thread waits for the engine, and the loop for the thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._stream import Stream


class Pieces:
    """The pieces of a stream. Leaving the loop early stops the answer, at once where nobody else has this: a generator would be
    closed when the event loop comes to it."""

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream
        self._pieces: AsyncGenerator[str, None] | None = None

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> str:
        if self._pieces is None:
            self._pieces = _pieces(self._stream)
        return await anext(self._pieces)

    async def aclose(self) -> None:
        if self._pieces is not None:
            self._stream._cancel()
            await self._pieces.aclose()

    def __del__(self) -> None:
        if self._pieces is not None:
            self._stream._cancel()


async def _pieces(stream: "Stream") -> AsyncGenerator[str, None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | BaseException | None] = asyncio.Queue()

    def tell(what: str | BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, what)
        except RuntimeError:
            pass  # the loop was closed, and nobody waits

    def read() -> None:
        try:
            for text in stream:
                tell(text)
        except BaseException as error:
            tell(error)
        else:
            tell(None)

    # not a daemon: it must not meet an interpreter that is being torn down
    threading.Thread(target=read, name="phi3v-stream").start()
    try:
        while (told := await queue.get()) is not None:
            if isinstance(told, BaseException):
                raise told
            yield told
    finally:
        stream._cancel()
