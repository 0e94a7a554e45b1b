"""What a program's types are checked against: every public name in use. Run by mypy, never by Python."""

import asyncio
from pathlib import Path
from typing import Any, assert_type

import phi3v
from pydantic import BaseModel


class Book(BaseModel):
    """A form of answers."""

    title: str
    author: str


async def read(model: phi3v.Model) -> str:
    return "".join([piece async for piece in model.stream("What is this?", b"...")])


def main() -> None:
    model = phi3v.load("phi-3.5-vision", quant="q8", device="auto", threads=None)
    assert_type(phi3v.load(Path("model")), phi3v.Model)
    answer = model.ask("Who wrote this?", Path("cover.png"), temperature=0.5, stop=["."], detail="low")
    assert_type(answer, phi3v.Answer)
    assert_type(answer.words[0].p, float)
    assert_type(answer.fields["/title"], phi3v.Field)
    assert_type(phi3v.schemas()["@receipt"], Any)
    assert_type(model.ask(images="receipt.jpg", schema="@receipt"), Any)
    assert_type(model.ask("Is it?", "photo.jpg", choices=["yes", "no"]), phi3v.Answer)
    assert_type(answer.usage.prompt_tokens, int)
    assert_type(answer.timings.first_token, float | None)
    assert_type(model.ask("Who wrote this?", schema=Book), Book)
    for piece in model.stream("Who wrote this?", ["left.png", "right.png"]):
        assert_type(piece, str)
    decision = model.decide("Is it open?", Path("door.png"), choices=["yes", "no"], calibration="door.json")
    assert_type(decision, phi3v.Decision)
    assert_type(decision.probabilities["yes"], float)
    several = model.decide_all(["Is it open?", ("What is it?", ("a door", "a gate"))], choices=["yes", "no"])
    assert_type(several, list[phi3v.Decision])
    chat = model.chat("cover.png", system="Be brief.")
    assert_type(chat.ask("And who wrote this?", "other.png"), phi3v.Answer)
    for plain in model.batch(["Who wrote this?"], temperature=1):
        assert_type(plain, phi3v.Answer)
    for result in model.batch([("Who wrote this?", "cover.png")], errors="return"):
        assert_type(result, phi3v.Answer | phi3v.Phi3VError)
    assert_type(phi3v.tokenize_cost(["cover.png"]).tokens, int)
    assert_type(asyncio.run(read(model)), str)
    try:
        model.ask("What is this?", "nowhere.png", num_crops=4)
    except phi3v.PictureError as error:
        assert_type(error.hint, str | None)
