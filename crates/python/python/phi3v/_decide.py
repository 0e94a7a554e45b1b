"""Decisions: the likeliest of some answers, and how probable each is."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ._answer import Timings, Usage
from ._errors import OptionError
from ._phi3v import Ended, compare


class Decision(str):
    """The likeliest choice: its text, and what is known about all of them."""

    probabilities: dict[str, float]
    """How probable each choice is among them; they add up to 1."""
    logprobs: dict[str, float]
    """Natural logarithm of each choice's probability as the model's whole answer."""
    probability: float
    """That of the likeliest."""
    covered: float
    """How much of the model's probability lies on the choices: where it is little, it would say something else."""
    usage: Usage
    """Token counts, of all questions asked together."""
    timings: Timings
    """Where the time went, of all questions asked together."""

    def __new__(cls, text: str = "", **known: Any) -> "Decision":
        decision = super().__new__(cls, text)
        decision.probabilities = known.get("probabilities", {})
        decision.logprobs = known.get("logprobs", {})
        decision.probability = known.get("probability", 0.0)
        decision.covered = known.get("covered", 0.0)
        decision.usage = known.get("usage", Usage(0, 0, 0, 0))
        decision.timings = known.get("timings", Timings(0.0, 0.0, 0.0, 0.0, None))
        return decision


class Asked(NamedTuple):
    """A question and its choices."""

    question: str
    choices: list[str]


def asked(
    questions: Iterable[str | tuple[str, Iterable[str]]], choices: Iterable[str] | None
) -> list[Asked]:
    """The questions, each with its choices: its own, or those of all."""
    common = None if choices is None else _texts(choices)
    if isinstance(questions, str) or not isinstance(questions, Iterable):
        raise TypeError(f"the questions must be several, not {type(questions).__name__}")
    several = [_one(question, common) for question in questions]
    if not several:
        raise OptionError("there is no question", "ask one at least")
    return several


def _one(question: object, common: list[str] | None) -> Asked:
    text, choices = question, common
    if isinstance(question, tuple) and len(question) == 2:
        text, choices = question[0], _texts(question[1])
    if not isinstance(text, str):
        raise TypeError(f"a question must be a str or (question, choices), not {type(text).__name__}")
    if not text.strip():
        raise OptionError("the question is empty")
    if choices is None:
        raise OptionError(f"no choices were given for {text!r}", 'give choices=["yes", "no"]')
    return Asked(text, choices)


def _texts(choices: object) -> list[str]:
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise TypeError(f"choices must be several texts, not {type(choices).__name__}")
    texts = list(choices)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"a choice must be a str, not {type(text).__name__}")
    return texts


def of_ended(ended: Ended, several: list[Asked], temperatures: list[float]) -> list[Decision]:
    """The decisions of a request that has ended well."""
    usage, timings = Usage(**ended.usage), Timings(**ended.timings)
    decisions = []
    for one, scores, temperature in zip(several, ended.scores, temperatures, strict=True):
        told = compare(scores, temperature)
        decisions.append(
            Decision(
                one.choices[told["best"]],
                probabilities=dict(zip(one.choices, told["probabilities"], strict=True)),
                logprobs=dict(zip(one.choices, scores, strict=True)),
                probability=told["probabilities"][told["best"]],
                covered=told["covered"],
                usage=usage,
                timings=timings,
            )
        )
    return decisions
