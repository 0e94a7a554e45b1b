"""The options of an answer, by the names of the command line, checked before they reach the engine."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from ._errors import OptionError


class PlainOptions(TypedDict, total=False):
    """How pictures are read and answers are made, without their form."""

    system: str
    """Instructions that come before the conversation."""
    max_new_tokens: int
    """Longest answer: 1000 tokens, or what the context leaves."""
    stop: str | Iterable[str]
    """Texts before which the answer ends."""
    temperature: float
    """0, the default, always takes the likeliest token; 1 draws by the model's own probabilities."""
    top_k: int
    """Draw from the k likeliest tokens; 0 is no limit."""
    top_p: float
    """Draw from the likeliest tokens that together have this probability."""
    min_p: float
    """Draw from tokens with at least this part of the likeliest one's probability."""
    repetition_penalty: float
    """Make tokens that occurred less likely; 1 is off."""
    presence_penalty: float
    """Make tokens of the answer less likely, once."""
    frequency_penalty: float
    """Make tokens of the answer less likely, for each time."""
    seed: int
    """The same seed gives the same answer."""
    logprobs: int
    """So many of the likeliest tokens are told at each place."""
    detail: Literal["low", "high", "auto"]
    """How closely to look: low is one tile, high up to 16, auto the model's own number."""
    num_crops: int
    """Most tiles that a picture is cut into, instead of detail: 1 to 256."""
    reference: bool
    """Read pictures exactly as the reference does: not turned upright, transparency dropped."""
    allow_hosts: str | Iterable[str]
    """Hosts that pictures may be fetched from."""
    max_pixels: int
    """Width times height of a picture: at most 2^32."""
    max_side: int
    """Width, and height: at most 2^20."""
    max_image_bytes: int
    """Length of a picture's file: at most 2^34."""
    max_frames: int
    """Frames of an animation, of which the first is looked at."""
    pages: int | str
    """Which pages of PDF and TIFF files, as 2 or "1-3,7,10-"; all of a PDF, up to 16, and the first of a TIFF where left out."""


class Options(PlainOptions, total=False):
    """How pictures are read and answers are made; what is left out is the command line's default."""

    regex: str
    """A regular expression that the answer matches as a whole."""
    choices: Iterable[str]
    """Texts of which the answer is one."""


class Split(NamedTuple):
    """The options by who follows them."""

    system: str | None
    reading: dict[str, Any]
    generation: dict[str, Any]


_CROPS = {"low": 1, "high": 16, "auto": None}


def whole(name: str, value: object, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """A whole number of a range, whatever type it has."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    number = value.__index__()
    if not least <= number <= most:
        raise OptionError(f"{name} is {number}, it must be from {least} to {most}")
    return int(number)


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, str):
        raise TypeError(f"{name} must be a float, not {type(value).__name__}")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    return value


def _texts(name: str, value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be texts, not {type(value).__name__}")
    return [_text(name, text) for text in value]


def _choices(name: str, value: object) -> list[str]:
    if isinstance(value, str):
        raise TypeError(f"{name} must be texts, not one str")
    return _texts(name, value)


def _pages(name: str, value: object) -> str:
    return value if isinstance(value, str) else str(whole(name, value))


def _limit(most: int) -> Callable[[str, object], int]:
    return lambda name, value: whole(name, value, 1, most)


_GENERATION: dict[str, Callable[[str, object], Any]] = {
    "max_new_tokens": whole,
    "stop": _texts,
    "temperature": _real,
    "top_k": whole,
    "top_p": _real,
    "min_p": _real,
    "repetition_penalty": _real,
    "presence_penalty": _real,
    "frequency_penalty": _real,
    "seed": whole,
    "regex": _text,
    "choices": _choices,
    "logprobs": whole,
}
_READING: dict[str, Callable[[str, object], Any]] = {
    "num_crops": whole,
    "reference": _flag,
    "allow_hosts": _texts,
    # the command line's ranges: beyond them a picture's memory cannot be told in advance
    "max_pixels": _limit(1 << 32),
    "max_side": _limit(1 << 20),
    "max_image_bytes": _limit(1 << 34),
    "max_frames": _limit((1 << 32) - 1),
    "pages": _pages,
}


# Options of several texts, which may come from what can be read once.
_SEVERAL = ("stop", "choices", "allow_hosts")


def taken(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they are now, to be followed as often as need be: texts of an iterator would be gone the second time."""

    def one(name: str, value: Any) -> Any:
        return list(value) if name in _SEVERAL and isinstance(value, Iterable) and not isinstance(value, str) else value

    return {name: one(name, value) for name, value in options.items()}


# Options of which one is in the place of the others.
_ALTERNATIVES = (("detail", "num_crops"), ("regex", "choices", "schema"))


def over(common: Mapping[str, Any], own: Mapping[str, Any], schema: Any = None) -> dict[str, Any]:
    """The options of one question where others are given for all: its own come first, also before what they replace. The
    `schema` of the question is in the place of another form. None is as good as leaving an option out."""
    given = {name for name, value in own.items() if value is not None} | ({"schema"} if schema is not None else set())
    replaced = given.union(*(names for names in _ALTERNATIVES if given.intersection(names)))
    # also what is None is told of where there is no such option
    return {**own, **{name: value for name, value in common.items() if name not in replaced}}


def generation(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `generate` by the same names and rules; None is as good as leaving one out."""
    return {name: _GENERATION[name](name, value) for name, value in options.items() if value is not None}


def split(options: Mapping[str, Any]) -> Split:
    """The options checked, and parted by who follows them. None is as good as leaving an option out."""
    system, detail = None, None
    reading: dict[str, Any] = {"reference": False, "allow_hosts": []}
    generation: dict[str, Any] = {"stop": []}
    for name, value in options.items():
        if name in _GENERATION:
            if value is not None:
                generation[name] = _GENERATION[name](name, value)
        elif name in _READING:
            if value is not None:
                reading[name] = _READING[name](name, value)
        elif name == "system":
            system = None if value is None else _text(name, value)
        elif name == "detail":
            detail = value
        else:
            raise TypeError(f"there is no option {name}")
    if detail is not None:
        if detail not in _CROPS:
            raise OptionError(f"detail is {detail}, it must be one of low, high, auto")
        if "num_crops" in reading:
            raise OptionError("detail and num_crops were both given", "leave one of them out")
        reading["num_crops"] = _CROPS[detail]
    return Split(system, reading, generation)
