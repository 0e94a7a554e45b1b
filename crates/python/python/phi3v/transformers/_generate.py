"""What `generate` was asked for, in the engine's words."""

import random
from typing import Any, NamedTuple

from .._errors import OptionError, UnsupportedError
from .._options import generation, whole
from ._arrays import ids

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
    sequences = whole("num_return_sequences", rest.pop("num_return_sequences", None) or 1)
    if sequences > 1 and not draws:
        raise OptionError(
            f"num_return_sequences is {sequences}, and without do_sample all would be the same",
            "ask for do_sample=True",
        )
    wanted = generation({"stop": [], "repetition_penalty": rest.pop("repetition_penalty", None)})
    drawn = generation({name: rest.pop(name, None) for name in ("temperature", "top_p", "top_k", "min_p")})
    if draws:
        drawn = {"top_k": _TOP_K, "temperature": 1.0, **drawn}
        if not drawn["temperature"] > 0:
            raise OptionError(
                f"temperature is {drawn['temperature']}, a draw needs more than 0", "ask for do_sample=False"
            )
        wanted.update(drawn)
    longest = _longest(prompt_tokens, rest)
    if longest is not None:
        wanted["max_new_tokens"] = longest
    ends, pad = (_ids(rest.pop(name, None)) for name in ("eos_token_id", "pad_token_id"))
    _refuse(rest)
    return Asked(wanted, frozenset(ends), pad[0] if pad else None, sequences, draws)


def _ids(values: Any) -> list[int]:
    return [] if values is None else ids(values)


def _longest(prompt_tokens: int, rest: dict[str, Any]) -> int | None:
    new, together = rest.pop("max_new_tokens", None), rest.pop("max_length", None)
    if new is not None:
        return whole("max_new_tokens", new)
    if together is None:
        return None
    together = whole("max_length", together)
    if together <= prompt_tokens:
        raise OptionError(
            f"max_length is {together}, of which the prompt takes {prompt_tokens} already", "use max_new_tokens"
        )
    return together - prompt_tokens


def _refuse(rest: dict[str, Any]) -> None:
    for name, value in rest.items():
        known = _WITHOUT_EFFECT.get(name, (None,))
        # arrays are compared with nothing: they have no one answer
        if not any(value is one for one in known) and not (isinstance(value, (int, float)) and value in known):
            told = repr(value) if isinstance(value, (str, int, float)) else f"<{type(value).__name__}>"
            raise UnsupportedError(f"generate has no {name}={told}", "leave it out")


def seeds(count: int) -> list[int]:
    """Seeds of so many draws."""
    return [_random.getrandbits(62) for _ in range(count)]
