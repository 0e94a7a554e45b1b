"""An answer as a notebook shows it."""

import base64
import sys
from html import escape

from ._answer import Answer, Word
from ._phi3v import SURE_MIN
from ._png import png


def in_notebook() -> bool:
    """Whether a notebook shows what a cell ends with."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def answer(answer: Answer) -> str:
    """Thumbnails, text with unsure words shaded, tokens and seconds; whatever the model says, as text."""
    pictures = "".join(_thumbnail(*thumbnail) for thumbnail in answer.thumbnails)
    words = "".join(_word(word) for word in answer.words)
    timings = answer.timings
    seconds = timings.vision + timings.prefill + timings.decode
    spent = f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens, {seconds:.1f} s"
    ended = "" if answer.finish_reason == "stop" else f", ended by {escape(answer.finish_reason)}"
    return (
        f"<div>{pictures}<p style='white-space: pre-wrap'>{words}</p>"
        f"<p style='opacity: 0.6; font-size: small'>{spent}{ended}</p></div>"
    )


def _word(word: Word) -> str:
    space, text = escape(word.space), escape(word.text)
    if word.p >= SURE_MIN:
        return space + text
    shade = 0.1 + 0.4 * (1 - word.p)
    title = f"{word.p:.0%}"
    return f"{space}<span style='background: rgba(255, 160, 0, {shade:.2f})' title='{title}'>{text}</span>"


def _thumbnail(width: int, height: int, rgb: bytes) -> str:
    data = base64.b64encode(png(rgb, width, height, 3, 6)).decode()
    return f"<img src='data:image/png;base64,{data}' width='{width}' height='{height}' style='margin: 2px'>"
