"""Streams for `async for`: a thread waits for the engine, and the loop for the thread."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._stream import Stream


async def pieces(stream: "Stream") -> AsyncIterator[str]:
    """The pieces of a stream. Leaving the loop early stops the answer."""
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
