"""What a program's types are checked against: every public name in use. Run by mypy, never by Python."""

import asyncio
from pathlib import Path
from typing import Any, Unpack, assert_type

import phi3v
import phi3v.transformers
from pydantic import BaseModel


class Book(BaseModel):
    """A form of answers."""

    title: str
    author: str


async def read(model: phi3v.Model) -> str:
    return "".join([piece async for piece in model.stream("What is this?", b"...")])


def costs(pictures: dict[str, phi3v.PictureLike], **options: Unpack[phi3v.Options]) -> list[phi3v.Cost]:
    all = phi3v.tokenize_cost(pictures.values(), **options)
    assert_type(all, phi3v.Costs)
    return [*all]


def notebook(image: phi3v.PictureLike) -> None:
    phi3v.transformers.set_seed(1)
    model = phi3v.transformers.AutoModelForCausalLM.from_pretrained("demo", device_map="cuda")
    assert_type(model, phi3v.transformers.Phi3VForCausalLM)
    processor = phi3v.transformers.AutoProcessor.from_pretrained(Path("model"), num_crops=4)
    assert_type(processor, phi3v.transformers.Phi3VProcessor)
    assert_type(phi3v.transformers.AutoTokenizer.from_pretrained("demo"), phi3v.transformers.Phi3VTokenizer)
    inputs = processor("<|user|>\n<|image_1|>\nWhat is this?<|end|>\n<|assistant|>\n", {image})
    assert_type(inputs, phi3v.transformers.BatchFeature)
    model.generate(**inputs.to("cuda:0"), streamer=phi3v.transformers.TextStreamer(processor, skip_prompt=True))
    for piece in phi3v.transformers.TextIteratorStreamer(processor.tokenizer, timeout=1.5):
        assert_type(piece, str)


def main() -> None:
    assert_type(phi3v.__version__, str)
    model = phi3v.load("phi-3.5-vision", quant="q8", device="auto", threads=None)
    assert_type(phi3v.load(Path("model")), phi3v.Model)
    answer = model.ask("Who wrote this?", Path("cover.png"), temperature=0.5, stop=["."], detail="low")
    assert_type(answer, phi3v.Answer)
    assert_type(answer.words, list[phi3v.Word])
    assert_type(answer.tokens, list[phi3v.Token])
    assert_type(answer.fields["/title"], phi3v.Field)
    assert_type(phi3v.schemas()["@receipt"], Any)
    assert_type(model.ask(images="receipt.jpg", schema="@receipt"), Any)
    assert_type(model.ask("Is it?", "photo.jpg", choices=["yes", "no"]), phi3v.Answer)
    assert_type(answer.usage, phi3v.Usage)
    assert_type(answer.timings, phi3v.Timings)
    assert_type(answer.timings.first_token, float | None)
    assert_type(model.ask("Who wrote this?", schema=Book), Book)
    stream = model.stream("Who wrote this?", ["left.png", "right.png"])
    assert_type(stream, phi3v.Stream)
    for piece in stream:
        assert_type(piece, str)
    decision = model.decide("Is it open?", Path("door.png"), choices=["yes", "no"], calibration="door.json")
    assert_type(decision, phi3v.Decision)
    assert_type(decision.probabilities["yes"], float)
    several = model.decide_all(["Is it open?", ("What is it?", ("a door", "a gate"))], choices=["yes", "no"])
    assert_type(several, list[phi3v.Decision])
    chat = model.chat("cover.png", system="Be brief.")
    assert_type(chat, phi3v.Chat)
    assert_type(chat.ask("And who wrote this?", "other.png"), phi3v.Answer)
    for plain in model.batch(["Who wrote this?"], temperature=1):
        assert_type(plain, phi3v.Answer)
    for result in model.batch([("Who wrote this?", "cover.png")], errors="return"):
        assert_type(result, phi3v.Answer | phi3v.Phi3VError)
    assert_type(phi3v.tokenize_cost(["cover.png"]).tokens, int)
    assert_type(asyncio.run(read(model)), str)
    try:
        model.ask("What is this?", "nowhere.png", num_crops=4)
    except (phi3v.PictureError, phi3v.ModelError, phi3v.OptionError, phi3v.RoomError, phi3v.UnsupportedError) as error:
        assert_type(error.hint, str | None)
