"""A bar while a batch runs, where a terminal or a notebook shows one."""

import time
from importlib import import_module
from types import TracebackType
from typing import Any

from ._html import in_notebook
from ._terminal import is_watched, tell

# Seconds between two looks of the bar.
_PERIOD = 0.1
_CELLS = 20


class Bar:
    """Tells how many of `total` are done; of an unknown number, how many are."""

    def __init__(self, total: int | None, shown: bool | None) -> None:
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._looked = 0.0
        self._display: Any = None
        notebook = in_notebook()
        if shown is None:
            shown = notebook or is_watched()
        self._shown = shown
        if shown and notebook:
            self._ipython: Any = import_module("IPython.display")
            self._display = self._ipython.display(self._ipython.HTML(""), display_id=True)

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        now = time.monotonic()
        if self._shown and now - self._looked >= _PERIOD:
            self._looked = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        words = self.words(now - self._start)
        if self._display is None:
            tell(f"\r{words}\x1b[K")
        else:
            of = f"max={self._total}" if self._total else ""
            self._display.update(self._ipython.HTML(f"<progress value={self._done} {of}></progress> {words}"))

    def words(self, seconds: float) -> str:
        """What the bar says after so many seconds."""
        rate = self._done / seconds if seconds > 0 else 0.0
        if not self._total:
            return f"{self._done} done, {rate:.2f}/s"
        cells = "=" * (_CELLS * self._done // self._total)
        left = (self._total - self._done) / rate if rate else 0.0
        minutes, rest = divmod(round(left), 60)
        return f"[{cells:{_CELLS}}] {self._done}/{self._total}, {rate:.2f}/s, {minutes}:{rest:02} left"

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._draw(time.monotonic())
            if self._display is None:
                tell("\n")
