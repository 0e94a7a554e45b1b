"""The model, generating from what the processor made."""

import os
from typing import Any

from .. import _phi3v
from .._errors import OptionError, UnsupportedError
from .._model import loaded, model_name
from .._phi3v import Answers, Ended, Picture, Piece
from .._terminal import tell
from ._arrays import array, is_torch, numpy, to_numpy
from ._generate import Asked, asked, seeds
from ._hub import hub

_DTYPES = {"auto": None, "None": None, "bfloat16": None, "float32": "f32"}
# The largest size that the compiled part takes.
_SIDE_MAX = (1 << 32) - 1
# The largest id that the compiled part takes.
_ID_MAX = (1 << 63) - 1


class Phi3VForCausalLM:
    """A loaded model that goes on with ids."""

    def __init__(self, inner: _phi3v.Model) -> None:
        self._inner = inner
        self._told = False

    def to(self, *args: object, **kwargs: object) -> "Phi3VForCausalLM":
        """Itself; says once where the model runs."""
        self._tell()
        return self

    def cuda(self, *args: object) -> "Phi3VForCausalLM":
        """Itself; says once where the model runs."""
        self._tell()
        return self

    def cpu(self) -> "Phi3VForCausalLM":
        """Itself."""
        return self

    def eval(self) -> "Phi3VForCausalLM":
        """Itself: there is no training."""
        return self

    @property
    def device(self) -> str:
        """Where arrays for the model may be: with the processor."""
        return "cpu"

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            tell(f"phi3v: the model runs on {self._inner.device}\n")

    def generate(
        self,
        input_ids: Any,
        pixel_values: Any = None,
        image_sizes: Any = None,
        attention_mask: Any = None,
        streamer: Any = None,
        **options: Any,
    ) -> Any:
        """The prompt's ids and the answer's, `[num_return_sequences, n]`; the id that ended an answer is left out unless
        `eos_token_id` names it and the model does not. Greedy, unless `do_sample` is asked for.

        Raises:
            UnsupportedError: For what would change the answer and is not offered.
        """
        ids = to_numpy(input_ids)
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise UnsupportedError(
                f"input_ids of shape {list(ids.shape)} are not one prompt",
                "generate for each prompt, or use phi3v.load(...).batch",
            )
        _check_mask(attention_mask)
        prompt = [int(id) for id in ids[0]]
        beyond = next((id for id in prompt if not -_ID_MAX <= id <= _ID_MAX), None)
        if beyond is not None:
            vocab_size = self._inner.processor.vocab_size
            raise OptionError(f"token id {beyond} is beyond the vocabulary of {vocab_size}")
        want = asked(len(prompt), options)
        if streamer is not None and want.sequences > 1:
            raise OptionError("a streamer hears one answer, and num_return_sequences is more than 1")
        answers, pictures = Answers(self._inner), _pictures(pixel_values, image_sizes)
        for key, seed in enumerate(seeds(want.sequences)):
            answers.submit_ids(
                key, prompt, pictures, {**want.generation, **({"seed": seed} if want.draws else {})}
            )
        if streamer is not None:
            streamer.put(_like(input_ids, ids))
        new = _collect(answers, want, streamer, input_ids)
        if streamer is not None:
            streamer.end()
        pad = self._inner.processor.stop_ids[1] if want.pad is None else want.pad
        longest = max(len(one) for one in new)
        rows = [prompt + one + [pad] * (longest - len(one)) for one in new]
        return _like(input_ids, numpy().array(rows, dtype="int64"))


def _like(input_ids: Any, ids: Any) -> Any:
    return array(ids, "pt" if is_torch(input_ids) else "np")


def _check_mask(attention_mask: Any) -> None:
    if attention_mask is not None and not to_numpy(attention_mask).all():
        raise UnsupportedError("attention_mask hides tokens of the prompt", "leave padding out of the prompt")


def _pictures(pixel_values: Any, image_sizes: Any) -> list[Picture]:
    if pixel_values is None:
        return []
    if image_sizes is None:
        raise OptionError("pixel_values come without image_sizes", "give both, as the processor makes them")
    np = numpy()
    values, sizes = to_numpy(pixel_values), to_numpy(image_sizes)
    if values.ndim != 5 or values.shape[2:] != (3, 336, 336) or sizes.shape != (len(values), 2):
        raise OptionError(
            f"pixel_values of shape {list(values.shape)} and image_sizes of shape {list(sizes.shape)} are not "
            "[pictures, tiles, 3, 336, 336] and [pictures, 2]",
            "give both, as the processor makes them",
        )
    values = np.ascontiguousarray(values, dtype=np.float32)
    wrong = sizes[~((sizes >= 0) & (sizes <= _SIDE_MAX))]
    if wrong.size:
        raise OptionError(f"image_sizes hold {wrong[0]}, a size is more than 0 and at most {_SIDE_MAX}")
    pairs = zip(values, sizes, strict=True)
    return [Picture.of_values(tiles, int(size[0]), int(size[1])) for tiles, size in pairs]


def _collect(answers: Answers, want: Asked, streamer: Any, input_ids: Any) -> list[list[int]]:
    """The new ids of each answer; those that end one of the caller's ids are stopped there."""
    new: list[list[int]] = [[] for _ in range(want.sequences)]
    ended: set[int] = set()
    while (told := answers.next(True)) is not None:
        if isinstance(told, Piece):
            if told.key in ended:
                continue
            new[told.key].append(told.id)
            if streamer is not None:
                streamer.put(_like(input_ids, numpy().array([told.id], dtype="int64")))
            if told.id in want.ends:
                ended.add(told.key)
                if len(ended) == want.sequences:
                    answers.cancel()
        elif isinstance(told, Ended):
            if told.error is not None:
                raise told.error
            ended.add(told.key)
    return new


class AutoModelForCausalLM:
    """Loads models by name."""

    @staticmethod
    def from_pretrained(
        model_id: str | os.PathLike[str],
        *,
        torch_dtype: Any = None,
        dtype: Any = None,
        quant: Any = None,
        threads: int | None = None,
        context: int | None = None,
        **options: Any,
    ) -> Phi3VForCausalLM:
        """The model of that name, which is downloaded where need be. No code of it is run. `quant`, `threads` and
        `context` are those of `phi3v.load`; `revision`, `token`, `cache_dir` and `local_files_only` are followed; options
        that say how transformers computes have no effect."""
        name = model_name(model_id)
        where = hub(name, options)
        asked = str(torch_dtype if torch_dtype is not None else dtype).removeprefix("torch.")
        if asked not in _DTYPES:
            raise UnsupportedError(f"torch_dtype is {asked}, it must be auto, bfloat16 or float32")
        loading = {"quant": quant, "threads": threads, "dtype": _DTYPES[asked], "context": context}
        return Phi3VForCausalLM(loaded({"model": name, "hub": where, **loading}))
