"""Streamers: objects that `generate` hands ids to as they are made."""

import queue
from collections.abc import Iterator
from typing import Any

from ._arrays import ids


class TextStreamer:
    """Prints the answer as it is made. `on_finalized_text` of a subclass does something else with its pieces."""

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self._prompt_is_next = True
        self._ids: list[int] = []
        self._told = ""

    def put(self, value: Any) -> None:
        """Takes the prompt's ids, and then those of the answer one by one."""
        is_prompt, self._prompt_is_next = self._prompt_is_next, False
        if is_prompt and self.skip_prompt:
            return
        self._ids.extend(ids(value))
        text = self.tokenizer.decode(self._ids, **self.decode_kwargs)
        # what ends within a character is told with its last byte
        if not text.endswith("\ufffd") and text.startswith(self._told):
            piece, self._told = text[len(self._told) :], text
            self.on_finalized_text(piece)

    def end(self) -> None:
        """Tells what was held back; the next `put` begins another prompt."""
        text = self.tokenizer.decode(self._ids, **self.decode_kwargs)
        piece = text[len(self._told) :]
        self._prompt_is_next, self._ids, self._told = True, [], ""
        self.on_finalized_text(piece, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Prints a piece."""
        print(text, flush=True, end="\n" if stream_end else "")


class TextIteratorStreamer(TextStreamer):
    """Gives the pieces to who iterates over it, on another thread than `generate`."""

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self._pieces: queue.Queue[str | None] = queue.Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Puts a piece where the iterator finds it."""
        self._pieces.put(text)
        if stream_end:
            self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get(timeout=self.timeout)) is not None:
            yield piece
