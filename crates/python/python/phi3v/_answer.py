"""Answers: texts that know how they came about."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ._phi3v import Ended

# A word with the white space before it, or either of them.
_PARTS = re.compile(r"\s*\S+|\s+")


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
    """A word of an answer, with the white space before it."""

    text: str
    """The words of an answer together are its text."""
    probability: float
    """Of all its tokens together."""


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
        answer.usage = known.get("usage", Usage(0, 0, 0, 0))
        answer.timings = known.get("timings", Timings(0.0, 0.0, 0.0, 0.0, None))
        answer.finish_reason = known.get("finish_reason", "stop")
        answer.item = known.get("item", 0)
        answer.parsed = known.get("parsed")
        answer.thumbnails = known.get("thumbnails", ())
        return answer

    @property
    def words(self) -> list[Word]:
        """Its words with their probabilities."""
        return words(str(self), self.tokens)

    def _repr_html_(self) -> str:
        from ._html import answer

        return answer(self)


def of_ended(ended: Ended, **known: Any) -> Answer:
    """The answer of a request that has ended well."""
    return Answer(
        ended.text,
        tokens=[Token(**token) for token in ended.tokens],
        usage=Usage(**ended.usage),
        timings=Timings(**ended.timings),
        finish_reason=ended.finish_reason,
        **known,
    )


def words(text: str, tokens: Sequence[Token]) -> list[Word]:
    """The words of a text, each from white space to white space, with the probability of its tokens together. A token
    of several words counts for each."""
    found: list[Word] = []
    word, logprob = "", 0.0
    told, begun = 0, 0.0
    for token in tokens:
        told += len(token.text)
        begun += token.logprob
        if not token.text:
            continue  # a part of a character, which the next one ends
        for part in _PARTS.findall(token.text):
            if word.strip() and part[0].isspace():
                found.append(Word(word, math.exp(logprob)))
                word, logprob = "", 0.0
            word += part
            logprob += begun
        begun = 0.0
    # what a stop string held back to the end
    word += text[told:]
    if word:
        found.append(Word(word, math.exp(logprob)))
    return found
