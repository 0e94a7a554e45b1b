"""What `generate` was asked for, in the engine's words."""

import random
from typing import Any, NamedTuple

from .._errors import OptionError, UnsupportedError

# What transformers takes where a draw is asked for without it.
_TOP_K = 50
# What may be asked for since it changes nothing here: name, and the values that do not.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "num_beams": (1, None),
    "num_beam_groups": (1, None),
    "use_cache": (True, False, None),
    "return_dict_in_generate": (False, None),
    "output_scores": (False, None),
    "output_logits": (False, None),
    "output_attentions": (False, None),
    "output_hidden_states": (False, None),
    "length_penalty": (1.0, None),
    "no_repeat_ngram_size": (0, None),
    "min_new_tokens": (0, None),
    "min_length": (0, None),
    "early_stopping": (False, None),
    "typical_p": (1.0, None),
    "synced_gpus": (False, None),
}

_random = random.Random()


def set_seed(seed: int) -> None:
    """Makes the draws of all later calls of `generate` the same each time."""
    _random.seed(seed)


class Asked(NamedTuple):
    """What `generate` does."""

    generation: dict[str, Any]
    """The engine's options."""
    ends: frozenset[int]
    """Ids that end an answer, beside the model's own."""
    pad: int | None
    """The id that fills shorter answers."""
    sequences: int
    """Answers to the prompt."""
    draws: bool
    """Whether tokens are drawn."""


def asked(prompt_tokens: int, options: dict[str, Any]) -> Asked:
    """Reads the options of `generate`.

    Raises:
        UnsupportedError: For what would change the answer and is not offered.
    """
    rest = dict(options)
    draws = bool(rest.pop("do_sample", None))
    sequences = rest.pop("num_return_sequences", None) or 1
    if sequences > 1 and not draws:
        raise OptionError(
            f"num_return_sequences is {sequences}, and without do_sample all would be the same",
            "ask for do_sample=True",
        )
    generation: dict[str, Any] = {"stop": [], "repetition_penalty": rest.pop("repetition_penalty", None)}
    drawn = {name: rest.pop(name, None) for name in ("temperature", "top_p", "top_k", "min_p")}
    if draws:
        if drawn["top_k"] is None:
            drawn["top_k"] = _TOP_K
        if drawn["temperature"] is None:
            drawn["temperature"] = 1.0
        if not drawn["temperature"] > 0:
            raise OptionError(
                f"temperature is {drawn['temperature']}, a draw needs more than 0", "ask for do_sample=False"
            )
        generation.update(drawn)
    generation["max_new_tokens"] = _longest(prompt_tokens, rest)
    ends, pad = rest.pop("eos_token_id", None), rest.pop("pad_token_id", None)
    _refuse(rest)
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    generation = {name: value for name, value in generation.items() if value is not None}
    return Asked(generation, frozenset(ends), pad, sequences, draws)


def _longest(prompt_tokens: int, rest: dict[str, Any]) -> int | None:
    new, whole = rest.pop("max_new_tokens", None), rest.pop("max_length", None)
    if new is not None:
        return int(new)
    if whole is None:
        return None
    if whole <= prompt_tokens:
        raise OptionError(
            f"max_length is {whole}, and the prompt has {prompt_tokens} tokens already", "use max_new_tokens"
        )
    return int(whole) - prompt_tokens


def _refuse(rest: dict[str, Any]) -> None:
    for name, value in rest.items():
        if value not in _WITHOUT_EFFECT.get(name, (None,)):
            raise UnsupportedError(f"generate has no {name}={value!r}", "leave it out")


def seeds(count: int) -> list[int]:
    """Seeds of so many draws."""
    return [_random.getrandbits(62) for _ in range(count)]
