"""A model that answers questions about pictures."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Unpack, overload

from . import _phi3v
from ._answer import Answer
from ._chat import Chat, Turn, checked, turns
from ._decide import Asked, Decision, asked
from ._decide import of_ended as decisions_of
from ._errors import OptionError, Phi3VError
from ._html import in_notebook
from ._options import Options, PlainOptions, Split, over, split, taken, whole
from ._phi3v import Answers, CancelFlag, Ended, Picture
from ._pictures import Costs, Opened, PictureLike, cost, opened, prepare_all
from ._schema import Form, form, question_of
from ._stream import Begun, Stream, finished

T = TypeVar("T")

# The number of tiles that Phi-3.5-vision, the model that is downloaded where none is named, cuts pictures into.
_NUM_CROPS = 4


def load(
    model: str | os.PathLike[str] = "demo",
    *,
    quant: Literal["q8", "q4", "none"] | None = None,
    device: str | None = None,
    threads: int | None = None,
    dtype: Literal["bf16", "f32"] | None = None,
    kv: Literal["q8", "bf16", "f32"] | None = None,
    context: int | None = None,
) -> "Model":
    """Loads a model by name, as the command line does: "demo", "phi-3-vision", "phi-3.5-vision", a repository of the
    hub, a folder, or a file made by `phi3v quantize`, also as a `pathlib.Path`. What is not here is downloaded once.

    Args:
        model: Which one. PHI3V_MODEL, which the command reads, does not count here.
        quant: How far the weights are quantized, at first use; a large model is unasked, to q8.
        device: Where it runs: "auto", "cpu", "gpu", "gpu:1" or a part of a graphics card's name; None is what
            PHI3V_DEVICE says, or "auto".
        threads: One per core where None.
        dtype: Arithmetic of the products.
        kv: Storage of keys and values.
        context: Tokens that prompt and answer may have together.
    """
    formats = {"quant": quant, "dtype": dtype, "kv": kv}
    return Model(loaded({"model": model, "device": device, "threads": threads, "context": context, **formats}))


def loaded(loading: Mapping[str, Any]) -> _phi3v.Model:
    """Loads by the arguments of `load`, of which None is as good as leaving one out, and `hub`."""
    given = {name: value for name, value in loading.items() if value is not None}
    numbers: dict[str, Any] = {name: whole(name, given[name]) for name in ("threads", "context") if name in given}
    return _phi3v.load({**given, "model": model_name(loading["model"]), **numbers})


def model_name(model: object) -> str:
    """What a model is called: a text, or a path."""
    name = os.fspath(model) if isinstance(model, os.PathLike) else model
    if not isinstance(name, str):
        raise TypeError(f"a model's name must be a str or a path, not {type(name).__name__}")
    return name


def tokenize_cost(images: PictureLike | Iterable[PictureLike], **options: Unpack[Options]) -> Costs:
    """Tiles and tokens of pictures, without a model: cut as by Phi-3.5-vision, unless `num_crops` says otherwise."""
    reading = split(options).reading
    num_crops = reading.get("num_crops") or _NUM_CROPS

    def read(source: _phi3v.Source, reading: Any) -> list[Picture]:
        return _phi3v.prepare(source, num_crops, reading)

    return Costs(map(cost, prepare_all(read, opened(images, reading), reading)))


class Model:
    """A loaded model. Threads may share it: their questions are answered together.

    Its memory is freed when nobody has it any more.
    """

    def __init__(self, inner: _phi3v.Model) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return f"<phi3v.Model {self.name} on {self.device}>"

    @property
    def name(self) -> str:
        """What the model is called."""
        return self._inner.processor.name

    @property
    def device(self) -> str:
        """Where it runs, in words."""
        return self._inner.device

    @property
    def context_tokens(self) -> int:
        """Tokens that a prompt, pictures included, and its answer may have together."""
        return self._inner.context_tokens

    def tokenize_cost(self, images: PictureLike | Iterable[PictureLike], **options: Unpack[Options]) -> Costs:
        """Tiles and tokens of pictures for this model."""
        reading = split(options).reading
        return Costs(map(cost, prepare_all(self._inner.processor.pictures, opened(images, reading), reading)))

    @overload
    def ask(
        self,
        question: str,
        images: PictureLike | Iterable[PictureLike] = ...,
        *,
        schema: None = ...,
        **options: Unpack[Options],
    ) -> Answer: ...
    @overload
    def ask(
        self,
        question: str | None = ...,
        images: PictureLike | Iterable[PictureLike] = ...,
        *,
        schema: dict[str, Any] | str,
        **options: Unpack[Options],
    ) -> Any: ...
    @overload
    def ask(
        self,
        question: str,
        images: PictureLike | Iterable[PictureLike] = ...,
        *,
        schema: type[T],
        **options: Unpack[Options],
    ) -> T: ...
    @overload
    def ask(
        self,
        question: str,
        images: PictureLike | Iterable[PictureLike] = ...,
        *,
        schema: T,
        **options: Unpack[Options],
    ) -> T: ...
    def ask(
        self,
        question: str | None = None,
        images: PictureLike | Iterable[PictureLike] = (),
        *,
        schema: Any = None,
        **options: Unpack[Options],
    ) -> Any:
        """The answer to a question about pictures. With `schema`, a JSON schema as a dict, the name of a preset or a
        pydantic model, the answer is held to it, and what it means is returned: values of JSON, or the model's object. A
        preset brings its question along."""
        stream = self.stream(question, images, schema=schema, **options)
        answer = stream.wait()
        return answer if schema is None else answer.parsed

    def stream(
        self,
        question: str | None = None,
        images: PictureLike | Iterable[PictureLike] = (),
        *,
        schema: Any = None,
        **options: Unpack[Options],
    ) -> Stream:
        """The same, piece by piece: an iterator of texts, also for `async for`, whose `answer` is there at the end."""
        parts, want = split(options), form(schema)
        asked, sources = checked(question_of(question, want)), opened(images, parts.reading)

        def begin(cancel: CancelFlag) -> Begun:
            pictures = self._read(sources, parts.reading, cancel)
            return self._ask(turns(asked, len(pictures), parts.system), pictures, parts, want)

        return Stream(begin, want)

    def decide(
        self,
        question: str,
        images: PictureLike | Iterable[PictureLike] = (),
        *,
        choices: Iterable[str],
        calibration: str | os.PathLike[str] | None = None,
        **options: Unpack[PlainOptions],
    ) -> Decision:
        """The likeliest of `choices`, and how probable each is as the answer to a question about pictures. It is asked
        as it is.

        Args:
            question: What is asked.
            images: What it is asked about.
            choices: The possible answers.
            calibration: A file of temperatures, made by `phi3v calibrate` for this model in the same format.
        """
        if not isinstance(question, str):
            raise TypeError(f"the question must be a str, not {type(question).__name__}")
        parts = split(options)
        return self._decide(asked([question], choices), images, calibration, parts)[0]

    def decide_all(
        self,
        questions: Iterable[str | tuple[str, Iterable[str]]],
        images: PictureLike | Iterable[PictureLike] = (),
        *,
        choices: Iterable[str] | None = None,
        calibration: str | os.PathLike[str] | None = None,
        **options: Unpack[PlainOptions],
    ) -> list[Decision]:
        """Decisions on several questions about the same pictures, which are computed once for all of them. A question
        is a text, or a pair of it and its own choices."""
        parts = split(options)
        return self._decide(asked(questions, choices), images, calibration, parts)

    def _decide(
        self,
        several: list[Asked],
        images: PictureLike | Iterable[PictureLike],
        calibration: str | os.PathLike[str] | None,
        parts: Split,
    ) -> list[Decision]:
        other = next((name for name, value in parts.generation.items() if name != "stop" or value), None)
        if other is not None:
            raise OptionError(f"{other} says nothing about decisions", "leave it out")
        temperatures = [1.0] * len(several)
        if calibration is not None:
            temperatures = self._inner.temperatures(calibration, several, parts.reading.get("num_crops"))
        answers = Answers(self._inner)
        pictures = self._read(opened(images, parts.reading), parts.reading)
        answers.submit_questions(0, parts.system, several, pictures)
        ended = answers.next(False)
        if not isinstance(ended, Ended):
            raise Phi3VError("the decision has failed", "ask again")
        if ended.error is not None:
            raise ended.error
        return decisions_of(ended, several, temperatures)

    def chat(self, images: PictureLike | Iterable[PictureLike] = (), **options: Unpack[Options]) -> Chat:
        """A conversation about pictures; what was said stays known."""
        return Chat(self, images, options)

    @overload
    def batch(
        self,
        items: Iterable[Any],
        *,
        schema: Any = ...,
        errors: Literal["raise"] = ...,
        progress: bool | None = ...,
        **options: Unpack[Options],
    ) -> Iterator[Answer]: ...
    @overload
    def batch(
        self,
        items: Iterable[Any],
        *,
        schema: Any = ...,
        errors: Literal["return"],
        progress: bool | None = ...,
        **options: Unpack[Options],
    ) -> Iterator[Answer | Phi3VError]: ...
    def batch(
        self,
        items: Iterable[Any],
        *,
        schema: Any = None,
        errors: Literal["raise", "return"] = "raise",
        progress: bool | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Any]:
        """Answers to many questions, in the order in which they end; `item` is an answer's place in `items`.

        Args:
            items: Questions, pairs of question and pictures, or dicts with `question`, `images` and options. They are
                taken as they are needed, with what they hold at that moment: an array may be filled again for the next,
                and a file be closed. What is named by a path is read later, and has to stay.
            schema: The form of all answers; `parsed` of each is what it means.
            errors: "return" yields the exception of an item that fails in its place, as the cause of a `Phi3VError` where it
                is another; "raise" ends the batch with it.
            progress: Whether a bar is shown; None is where a terminal or a notebook shows one.
        """
        from ._batch import Submit, item, run

        if errors not in ("raise", "return"):
            raise OptionError(f"errors is {errors}, it must be raise or return")
        want, common = form(schema), taken(options)
        split(common)

        def take(entry: Any) -> Submit:
            question, images, own = item(entry)
            parts = split(over(common, own))
            asked, sources = checked(question_of(question, want)), opened(images, parts.reading)

            def submit(answers: Answers, cancel: CancelFlag, key: int) -> None:
                pictures = self._read(sources, parts.reading, cancel)
                answers.submit(key, turns(asked, len(pictures), parts.system), pictures, _generation(parts, want))

            return submit

        def finish(ended: Ended) -> Answer:
            return finished(ended, want)

        return run(Answers(self._inner), items, take, finish, errors=errors, progress=progress)

    def _read(self, opened: Opened, reading: Mapping[str, Any], cancel: CancelFlag | None = None) -> list[Picture]:
        return prepare_all(self._inner.processor.pictures, opened, reading, cancel, self.context_tokens)

    def _ask(self, turns: list[Turn], pictures: list[Picture], parts: Split, want: Form | None) -> Begun:
        answers = Answers(self._inner)
        answers.submit(0, turns, pictures, _generation(parts, want))
        thumbnails = tuple(picture.thumbnail() for picture in pictures) if in_notebook() else ()
        return Begun(answers, thumbnails)


def _generation(parts: Split, want: Form | None) -> dict[str, Any]:
    return parts.generation if want is None else {**parts.generation, "schema": want.schema}
