"""Answers: texts that know how they came about."""

import json
from typing import Any, NamedTuple

from ._phi3v import Ended


class Token(NamedTuple):
    """A token of an answer."""

    id: int
    """Its id in the vocabulary."""
    text: str
    """Text that has become certain with it."""
    logprob: float
    """Natural logarithm of its probability."""
    top: list[tuple[int, float]]
    """The likeliest ids in its place with their logarithms, as many as `logprobs` asked for."""


class Word(NamedTuple):
    """A word of an answer, and how sure the model was of it."""

    space: str
    """White space before it: words with theirs, joined, are the answer's text but for white space at its end."""
    text: str
    """The word itself, with the signs that stand at it."""
    p: float
    """The least probability of its tokens: how sure the model was at the worst place."""
    mean: float
    """The mean probability of its tokens."""


class Field(NamedTuple):
    """A value of an answer that has a form, and how sure the model was of it."""

    value: Any
    """The value itself: a text, a number, True, False, None, or an empty list or dict."""
    p: float
    """The least probability of its tokens."""


class Usage(NamedTuple):
    """Token counts of an answer."""

    prompt_tokens: int
    """Of the prompt, pictures included."""
    image_tokens: int
    """Of these, those that stand for pictures."""
    cached_tokens: int
    """Of these, those known from an earlier prompt."""
    completion_tokens: int
    """Of the answer."""


class Timings(NamedTuple):
    """Where the time of an answer went, in seconds."""

    queued: float
    """Waiting for a place."""
    vision: float
    """In the vision tower."""
    prefill: float
    """In the decoder, for the prompt."""
    decode: float
    """In the decoder, for the answer."""
    first_token: float | None
    """From the question to the first token."""


class Answer(str):
    """An answer: its text, and what is known about it."""

    tokens: list[Token]
    """Its tokens, the one that ended it left out."""
    words: list[Word]
    """Its words with their probabilities."""
    fields: dict[str, Field]
    """The values of a form by JSON Pointers, such as `/items/0/price`; of a text without JSON that text, by ``""``."""
    usage: Usage
    """Token counts."""
    timings: Timings
    """Where its time went."""
    finish_reason: str
    """`stop`, `length`, or `cancelled`."""
    item: int
    """Its place in the items of a batch."""
    parsed: Any
    """What the text means by the `schema` that was asked for."""
    thumbnails: tuple[tuple[int, int, bytes], ...]
    """In a notebook, its pictures in small: width, height and RGB."""

    def __new__(cls, text: str = "", **known: Any) -> "Answer":
        answer = super().__new__(cls, text)
        answer.tokens = known.get("tokens", [])
        answer.words = known.get("words", [])
        answer.fields = known.get("fields", {})
        answer.usage = known.get("usage", Usage(0, 0, 0, 0))
        answer.timings = known.get("timings", Timings(0.0, 0.0, 0.0, 0.0, None))
        answer.finish_reason = known.get("finish_reason", "stop")
        answer.item = known.get("item", 0)
        answer.parsed = known.get("parsed")
        answer.thumbnails = known.get("thumbnails", ())
        return answer

    def _repr_html_(self) -> str:
        from ._html import answer

        return answer(self)


def of_ended(ended: Ended, **known: Any) -> Answer:
    """The answer of a request that has ended well."""
    return Answer(
        ended.text,
        tokens=[Token(**token) for token in ended.tokens],
        words=[Word(**word) for word in ended.words],
        fields={field["path"]: Field(json.loads(field["value"]), field["p"]) for field in ended.fields},
        usage=Usage(**ended.usage),
        timings=Timings(**ended.timings),
        finish_reason=ended.finish_reason,
        **known,
    )
