"""Prompts and pictures to what the model reads."""

import os
from collections.abc import Iterable
from typing import Any

from .. import _phi3v
from .._errors import OptionError, UnsupportedError
from .._model import model_name
from .._options import split, whole
from .._pictures import PictureLike, prepare, several
from ._arrays import array, kind, numpy
from ._hub import hub
from ._tokenizer import Phi3VTokenizer

_TILE = (3, 336, 336)


class BatchFeature(dict[str, Any]):
    """What the model reads, by name; also as attributes."""

    def to(self, *args: object, **kwargs: object) -> "BatchFeature":
        """Itself: phi3v runs where it runs."""
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name}, only {', '.join(self)}") from None


class Phi3VProcessor:
    """Prompts and pictures to ids and pixel values, as the reference's `Phi3VProcessor`."""

    def __init__(self, inner: _phi3v.Processor) -> None:
        self._inner = inner
        self.tokenizer = Phi3VTokenizer(inner)

    @property
    def num_crops(self) -> int:
        """Most tiles that a picture is cut into."""
        return self._inner.num_crops

    def __call__(
        self,
        text: str | list[str],
        images: PictureLike | Iterable[PictureLike] | None = None,
        padding: Any = False,
        truncation: Any = None,
        max_length: int | None = None,
        return_tensors: Any = "pt",
    ) -> BatchFeature:
        """`input_ids` `[1, n]` with `-i` at the rows of picture i, `attention_mask`, and for pictures `pixel_values`
        `[pictures, num_crops + 1, 3, 336, 336]` and `image_sizes` `[pictures, 2]`, as the reference makes them."""
        if isinstance(text, list) and len(text) == 1:
            text = text[0]
        if not isinstance(text, str):
            raise UnsupportedError("one prompt is processed at a time", "call the processor once for each")
        if truncation or max_length is not None:
            raise UnsupportedError("prompts are not truncated", "leave truncation and max_length out")
        asked, reading = kind(return_tensors), split({"reference": True}).reading
        pictures = [prepare(self._inner.picture, image, reading) for image in several(() if images is None else images)]
        np = numpy()
        ids = np.array([self._inner.raw_prompt(text, pictures)], dtype=np.int64)
        found = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if pictures:
            # pictures of another processor's tiles are never more than its num_crops
            tiles = max(self.num_crops + 1, *(picture.tiles for picture in pictures))
            values = [np.frombuffer(picture.pixel_values(tiles), np.float32) for picture in pictures]
            found["pixel_values"] = np.stack(values).reshape(len(pictures), tiles, *_TILE)
            found["image_sizes"] = np.array([picture.hd_size for picture in pictures], dtype=np.int64)
        return BatchFeature({name: array(values, asked) for name, values in found.items()})

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Text of a list of ids, as the tokenizer's."""
        return self.tokenizer.decode(token_ids, skip_special_tokens, clean_up_tokenization_spaces)

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> list[str]:
        """Texts of several lists of ids, as the tokenizer's."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)


class AutoProcessor:
    """Opens processors by their model's name."""

    @staticmethod
    def from_pretrained(
        model_id: str | os.PathLike[str], *, trust_remote_code: bool = True, num_crops: int | None = None, **options: Any
    ) -> Phi3VProcessor:
        """The processor of the model of that name, which is downloaded where need be. No code of it is run. `revision`,
        `token`, `cache_dir` and `local_files_only` are followed."""
        if num_crops is not None and not 1 <= whole("num_crops", num_crops) <= 256:
            raise OptionError(f"num_crops is {num_crops}, it must be 1 to 256")
        name = model_name(model_id)
        inner = _phi3v.open_processor(name, hub(name, options))
        if num_crops is not None:
            inner = inner.with_num_crops(num_crops)
        return Phi3VProcessor(inner)
