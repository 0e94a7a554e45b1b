"""Pictures of every kind that Python has, on their way to the decoder that the command line uses."""

import contextlib
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, TypeVar, Union

from ._errors import PictureError, RoomError
from ._phi3v import CancelFlag, Picture, Source, check_size
from ._png import png

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

T = TypeVar("T")

PictureLike: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, BinaryIO, "Image", "numpy.ndarray[Any, Any]"
]
"""A path, a data URL, an address (with `allow_hosts`), the bytes of a file, a file object, a PIL image, or uint8 pixels
`[height, width]` or `[height, width, 1 | 3 | 4]`, red first. A document is its pages, or those that `pages` chooses."""

Reader: TypeAlias = Callable[[Source, Any], T]
"""Decodes a source and cuts it into tiles: a picture, or those of a document."""

# What the command line reads of a file where no limit is given.
_FILE_BYTES_MAX = 256 << 20
# What a file is asked for at once.
_CHUNK_BYTES = 16 << 20
# Formats of which the command line reads what Pillow has opened; the others are taken as pixels.
_FORMATS = {"PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF"}
# Those of which Pillow has no tiles before it decodes, and puts what it has decoded in the place of the file.
_REPLACED = {"WEBP", "AVIF", "HEIF"}
# Modes that PNG stores as they are.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
# Modes with transparency that PNG does not store, and what they become.
_TO_PNG_MODE = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
_ORIENTATION = 0x0112


class Cost(NamedTuple):
    """What a picture costs."""

    width: int
    """Pixels of a row, as decoded."""
    height: int
    """Rows, as decoded."""
    grid: tuple[int, int]
    """Rows and columns of tiles."""
    tiles: int
    """Tiles, the global view included."""
    distinct_tiles: int
    """Tiles that differ from each other; only these are computed."""
    tokens: int
    """Tokens of the prompt."""


class Costs(tuple[Cost, ...]):
    """What pictures cost, one by one, and together."""

    @property
    def tiles(self) -> int:
        """Tiles of all pictures, their global views included."""
        return sum(cost.tiles for cost in self)

    @property
    def tokens(self) -> int:
        """Tokens of all pictures."""
        return sum(cost.tokens for cost in self)


def cost(picture: Picture) -> Cost:
    """What a picture that was read costs."""
    width, height = picture.size
    return Cost(width, height, picture.grid, picture.tiles, picture.distinct_tiles, picture.tokens)


def several(pictures: PictureLike | Iterable[PictureLike]) -> list[PictureLike]:
    """The pictures in a list, also where there is one only, or what is none: None is no picture that was left out."""
    # file objects and arrays are pictures, though lines and rows could be taken of them, and a mapping's keys are none; of an
    # object of Pillow its pixels would be asked for by the same name
    if (
        isinstance(pictures, (str, os.PathLike, bytes, bytearray, memoryview, Mapping))
        or not isinstance(pictures, Iterable)
        or hasattr(pictures, "read")
        or hasattr(type(pictures), "__array_interface__")
    ):
        return [pictures]  # type: ignore[list-item]
    return list(pictures)


def prepare(read: Reader[T], picture: PictureLike, reading: Mapping[str, Any]) -> T:
    """Reads a picture, or those of a document."""
    return _first(read, _sources(picture, reading), reading)


def _first(read: Reader[T], sources: Iterable[Source], reading: Mapping[str, Any]) -> T:
    """What can be read of the first source that phi3v's decoders understand. What is refused is not tried otherwise."""
    refused: PictureError | None = None
    for source in sources:
        try:
            return read(source, reading)
        except PictureError as error:
            if not error._is_undecoded:
                raise
            refused = refused or error
    raise refused or PictureError("the picture has no pixels")


Opened: TypeAlias = list[Iterable[Source]]
"""The sources of each picture. Files that were opened and arrays have been read, what is named by a path has not."""


def opened(images: PictureLike | Iterable[PictureLike], reading: Mapping[str, Any]) -> Opened:
    """Takes pictures as they are now, to be read by whatever thread."""
    return [_sources(image, reading) for image in several(images)]


def prepare_all(
    read: Reader[list[Picture]],
    opened: Opened,
    reading: Mapping[str, Any],
    cancel: CancelFlag | None = None,
    context: int | None = None,
) -> list[Picture]:
    """Reads pictures, and those of documents; warns of pages that lack something.

    Raises:
        GivenUp: `cancel` was set, by whatever thread.
        RoomError: The pictures have more than `context` tokens, and no more of them are read.
    """
    asked = {**reading, "cancel": cancel}
    pages: list[Picture] = []
    tokens = 0
    for sources in opened:
        added = _first(read, sources, asked)
        pages += added
        tokens += sum(page.tokens for page in added)
        if context is not None and tokens > context:
            raise RoomError(
                f"the pictures have {tokens} tokens or more, which exceed the context of {context} tokens",
                'ask with detail="low" or fewer pictures, or load the model with a larger context',
            )
    _warn(pages)
    return pages


def _warn(pages: list[Picture]) -> None:
    """Tells of pages of which something could not be drawn, in the name of the line that called the package."""
    notices = [page.notice for page in pages if page.notice]
    if not notices:
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    for notice in notices:
        warnings.warn(notice, UserWarning, stacklevel=level)


def _sources(picture: object, reading: Mapping[str, Any]) -> Iterable[Source]:
    """Where a picture may be read from, best first."""
    if isinstance(picture, str):
        return [Source.of_data_url(picture) if picture[:5].lower() == "data:" else Source.named(picture)]
    if isinstance(picture, os.PathLike):
        return [Source.named(os.fspath(picture))]
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return [Source.of_bytes(bytes(picture), "the picture")]
    if (pil := sys.modules.get("PIL.Image")) and isinstance(picture, pil.Image):
        return _of_pil(picture, reading)
    if (numpy := sys.modules.get("numpy")) and isinstance(picture, numpy.ndarray):
        return [_of_array(picture, reading)]
    if hasattr(picture, "read"):
        return [_of_file(picture, reading)]
    raise TypeError(
        "a picture must be a path, bytes, a file object, a PIL image or a numpy array, "
        f"not {type(picture).__name__}"
    )


def _of_file(file: Any, reading: Mapping[str, Any]) -> Source:
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "the file"
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)
        return Source.of_bytes(_read(file, reading), name)
    except UnicodeDecodeError as error:
        raise _is_text("str") from error
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot read {name}: {_words(error)}") from error


def _is_text(type_name: str) -> TypeError:
    return TypeError(f"a picture's file must give bytes, not {type_name}: open it with 'rb'")


def _read(file: Any, reading: Mapping[str, Any]) -> bytes:
    """What follows in a file, up to one byte more than a picture may have, so that the decoder can tell of the excess."""
    bytes_max = reading.get("max_image_bytes", _FILE_BYTES_MAX)
    chunks, length = [], 0
    while length <= bytes_max:
        # in parts, since a file may make room for all that it is asked for
        chunk = file.read(min(bytes_max + 1 - length, _CHUNK_BYTES))
        if not chunk:
            break
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise _is_text(type(chunk).__name__)
        chunks.append(bytes(chunk))
        length += len(chunk)
    return b"".join(chunks)


def _words(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(words)[:1].lower() + str(words)[1:].rstrip(".")


def _of_array(array: Any, reading: Mapping[str, Any]) -> Source:
    # a matrix has two dimensions, whatever is made of it
    array = sys.modules["numpy"].asarray(array)
    if array.dtype.name != "uint8":
        raise TypeError(f"a picture's array must hold uint8, not {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        shape = ", ".join(str(side) for side in array.shape)
        raise PictureError(
            f"an array of shape [{shape}] is no picture",
            "give pixels as [height, width] or [height, width, 1 | 3 | 4]",
        )
    height, width, channels = array.shape
    check_size("the pixels", width, height, reading)
    if channels == 4 and not reading["reference"]:
        return Source.of_bytes(png(array.tobytes(), width, height, channels), "the pixels")
    rgb = array.repeat(3, axis=2) if channels == 1 else array[:, :, :3]
    return Source.of_pixels(width, height, rgb.tobytes())


def _of_pil(image: Any, reading: Mapping[str, Any]) -> Iterable[Source]:
    """The file that the image was opened from, where its pixels are still that file's; then its pixels."""
    name = _shown(getattr(image, "filename", "")) or "the image"
    # before Pillow decodes anything
    check_size(name, image.width, image.height, reading)
    data = _unchanged_file(image, reading)
    if data is not None:
        return itertools.chain([Source.of_bytes(data, name)], _pixels_alone(data, image.format, reading["reference"]))
    is_closed = _is_closed(image)
    try:
        return [_of_pixels(image, reading["reference"])]
    except Exception as error:  # a plugin's may be of any class
        if is_closed:
            raise PictureError("the image was closed", "ask within its with block, or about a copy of it") from error
        raise PictureError(f"cannot read the image: {_words(error)}") from error


def _pixels_alone(data: bytes, format: str, reference: bool) -> Iterator[Source]:
    """The pixels that Pillow makes of a file, if it makes any: where they are wanted, the file's own error is told. They are
    asked for later and by another thread, when the image that was given may be closed or at another frame."""
    import io

    import PIL.Image

    # whatever a plugin raises; an MPO is opened as the JPEG that it begins with
    formats = ["JPEG" if format == "MPO" else format]
    with contextlib.suppress(Exception), PIL.Image.open(io.BytesIO(data), formats=formats) as image:
        yield _of_pixels(image, reference)


def _unchanged_file(image: Any, reading: Mapping[str, Any]) -> bytes | None:
    if image.format not in _FORMATS or image.tell() != 0:
        return None
    try:
        # not decoded yet, and not told to decode at another size
        is_pending = _is_pending(image) if image.format in _REPLACED else bool(getattr(image, "tile", None))
        if is_pending and not getattr(image, "decoderconfig", ()):
            return _rewound(image.fp, reading)
        # decoded, and perhaps drawn upon since
        filename = getattr(image, "filename", "")
        if not filename:
            return None
        import PIL.Image

        with PIL.Image.open(filename) as again:
            again.load()
            if again != image:
                return None
        with open(filename, "rb") as file:
            return _read(file, reading)
    except Exception:  # as it comes, its pixels may be had all the same
        return None


def _shown(filename: Any) -> str:
    """A file's name as text that can be printed."""
    return os.fsdecode(filename or "").encode("utf-8", "replace").decode()


def _is_pending(image: Any) -> bool:
    """Whether Pillow has decoded no frame of an image."""
    known = vars(image)
    return known.get("_im", known.get("im")) is None


def _is_closed(image: Any) -> bool:
    """Whether an image was closed before Pillow decoded it, or given up with its pixels."""
    known = vars(image)
    is_left = "fp" in known and known["fp"] is None
    pixels = known.get("_im", known.get("im"))
    return type(pixels).__name__ == "DeferredError" or (is_left and (pixels is None or bool(getattr(image, "tile", None))))


def _rewound(file: Any, reading: Mapping[str, Any]) -> bytes:
    """What `_read` takes of a file from its beginning; the file is left where it was."""
    place = file.tell()
    file.seek(0)
    try:
        return _read(file, reading)
    finally:
        file.seek(place)


def _of_pixels(image: Any, reference: bool) -> Source:
    import io

    import PIL.Image

    orientation = 1
    if not reference:
        if image.format is not None:  # as it was opened; what was made of it since is as it is
            image.load()  # which turns a TIFF
            orientation = image.getexif().get(_ORIENTATION, 1)
        if image.mode.startswith("I"):
            image = image.convert("I").convert("I;16")
        image = image.convert(_TO_PNG_MODE.get(image.mode, image.mode))
        if image.mode not in _PNG_MODES:  # which have no transparency, as CMYK; what turns them stands in the PNG
            image = image.convert("RGB")
        plain = image.mode == "RGB" and "transparency" not in image.info and orientation == 1
        if image.mode in _PNG_MODES and not plain:
            exif = PIL.Image.Exif()
            exif[_ORIENTATION] = orientation
            file = io.BytesIO()
            image.save(file, "PNG", compress_level=1, exif=exif)
            return Source.of_bytes(file.getvalue(), "the image")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]  # which is dropped, as Pillow would warn
    rgb = image.convert("RGB")
    return Source.of_pixels(rgb.width, rgb.height, rgb.tobytes())
