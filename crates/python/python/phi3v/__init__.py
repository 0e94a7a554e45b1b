"""Phi-3-vision and Phi-3.5-vision on your own machine, with the reference's pixels, ids and answers.

    import phi3v

    model = phi3v.load()  # the built-in demo model; "phi-3.5-vision" is downloaded once
    print(model.ask("Help me get the title and author information of this book?", "cover.png"))

`phi3v.transformers` has the surface that notebooks written for the reference use.
"""

from ._answer import Answer, Field, Timings, Token, Usage, Word
from ._chat import Chat
from ._decide import Decision
from ._errors import ModelError, OptionError, Phi3VError, PictureError, RoomError, UnsupportedError
from ._model import Model, load, tokenize_cost
from ._options import Options
from ._phi3v import __version__
from ._pictures import Cost, Costs, PictureLike
from ._schema import schemas
from ._stream import Stream
from ._worker import tell as _tell_worker

__all__ = [
    "Answer",
    "Chat",
    "Cost",
    "Costs",
    "Decision",
    "Field",
    "Model",
    "ModelError",
    "OptionError",
    "Options",
    "Phi3VError",
    "PictureError",
    "PictureLike",
    "RoomError",
    "Stream",
    "Timings",
    "Token",
    "UnsupportedError",
    "Usage",
    "Word",
    "__version__",
    "load",
    "schemas",
    "tokenize_cost",
]

_tell_worker()
