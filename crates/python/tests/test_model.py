"""Questions and their answers."""

import asyncio
import copy
import gc
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import phi3v
import phi3v.transformers
import pytest
from conftest import COVER, COVER_ANSWER, EXAMPLES, TITLE, cases, needs
from phi3v._options import over, split

LONG = {"max_new_tokens": 25000}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["question"][:20])
def test_the_examples_are_answered_as_by_the_command_line(demo, case):
    answer = demo.ask(case["question"], [EXAMPLES / name for name in case["pictures"]])
    assert answer == case["answer"]


def test_an_answer_is_a_text_that_knows_how_it_came_about(demo):
    answer = demo.ask(TITLE, COVER, logprobs=2)
    assert isinstance(answer, str) and answer == COVER_ANSWER
    assert answer.index("title") == 4, "methods of str are str's"
    assert answer.finish_reason == "stop"
    assert "".join(word.space + word.text for word in answer.words) == answer
    assert all(0 < word.p <= word.mean <= 1 for word in answer.words)
    assert [word.text for word in answer.words][:3] == ["The", "title", "of"]
    assert answer.usage.completion_tokens == len(answer.tokens)
    assert answer.usage.image_tokens == demo.tokenize_cost(COVER).tokens
    assert all(len(token.top) == 2 and token.top[0][0] == token.id for token in answer.tokens)
    assert answer.timings.first_token > 0
    command = [sys.executable, "-m", "phi3v", "ask", "--json", "--logprobs", "2", str(COVER), TITLE]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    assert [token.id for token in answer.tokens] == [token["id"] for token in told["logprobs"]]
    for ours, theirs in zip(answer.tokens, told["logprobs"], strict=True):
        assert ours.logprob == pytest.approx(theirs["logprob"], abs=1e-5)
    assert {"prompt_tokens", "completion_tokens"} <= set(told["usage"])
    assert answer.usage.prompt_tokens == told["usage"]["prompt_tokens"]


def test_an_answer_travels_between_processes(demo):
    answer = demo.ask(TITLE, COVER)
    for other in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert (other, other.tokens, other.usage) == (answer, answer.tokens, answer.usage)
        assert type(other) is phi3v.Answer


def test_options_have_the_names_of_the_command_line(demo, talker, endless):
    drawn = {"temperature": 1.5, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "presence_penalty": 0.1}
    asked = {**drawn, "frequency_penalty": 0.1, "repetition_penalty": 1.1, "seed": 5, "max_new_tokens": 20}
    first, second = (talker.ask("Tell me a story", **asked) for _ in range(2))
    assert first == second and first != talker.ask("Tell me a story", **{**asked, "seed": 6})
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    command = [sys.executable, "-m", "phi3v", "ask", "--json", "--model", endless, *flags, "Tell me a story"]
    told = subprocess.run(command, capture_output=True, check=True, timeout=300).stdout
    assert first == json.loads(told)["answer"]
    stopped = demo.ask(TITLE, COVER, stop=" and")
    assert stopped == COVER_ANSWER.split(" and")[0]
    assert "".join(word.space + word.text for word in stopped.words) == stopped
    assert demo.ask(TITLE, COVER, stop=[" book", " and"]) == "The title of the"
    short = demo.ask(TITLE, COVER, max_new_tokens=3)
    assert (short.finish_reason, len(short.tokens)) == ("length", 3)
    assert demo.ask(TITLE, COVER, system="Be brief.").usage.prompt_tokens > demo.ask(TITLE, COVER).usage.prompt_tokens


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"temperature": 3}, phi3v.OptionError, "temperature is 3, it must be from 0 to 2"),
        ({"top_p": 0}, phi3v.OptionError, "top_p is 0, it must be above 0 and at most 1"),
        ({"top_k": -1}, phi3v.OptionError, "top_k is -1"),
        ({"seed": 1 << 70}, phi3v.OptionError, "seed is"),
        ({"max_new_tokens": 0}, phi3v.OptionError, "max_new_tokens is 0 and must be at least 1"),
        ({"max_new_tokens": 10**9}, phi3v.RoomError, "exceed the context of"),
        ({"logprobs": 21}, phi3v.OptionError, "logprobs is 21, it must be from 0 to 20"),
        ({"detail": "some"}, phi3v.OptionError, "detail is some"),
        ({"detail": "low", "num_crops": 2}, phi3v.OptionError, "detail and num_crops"),
        ({"num_crops": 0}, phi3v.OptionError, "num_crops is 0, it must be 1 to 256"),
        ({"num_crops": 1000}, phi3v.OptionError, "num_crops is 1000, it must be 1 to 256"),
        ({"allow_hosts": "http://a"}, phi3v.OptionError, "is not the name of a host"),
        ({"max_pixels": 5}, phi3v.PictureError, "the limit is 5"),
        ({"schema": {"type": "nonsense"}}, phi3v.OptionError, "the JSON schema cannot be used"),
        ({"temperature": "hot"}, TypeError, "temperature must be a float, not str"),
        ({"max_new_tokens": 1.5}, TypeError, "max_new_tokens must be an int, not float"),
        ({"reference": 1}, TypeError, "reference must be a bool, not int"),
        ({"stop": 5}, TypeError, "stop must be texts, not int"),
        ({"stop": [5]}, TypeError, "stop must be a str, not int"),
        ({"schema": 5}, TypeError, "a schema must be a dict, a preset's name or a pydantic model"),
        ({"schema": "@letter"}, phi3v.OptionError, "there is no preset @letter"),
        ({"regex": "("}, phi3v.OptionError, "the regex cannot be used"),
        ({"choices": ["a", "a"]}, phi3v.OptionError, "the list of choices cannot be used"),
        ({"choices": "ab"}, TypeError, "choices must be texts, not one str"),
        ({"choices": ["a", "b"], "regex": "a"}, phi3v.OptionError, "only one of schema, regex and choices"),
        ({"temprature": 1}, TypeError, "there is no option temprature"),
    ],
)
def test_what_is_wrong_with_an_option_is_said(demo, options, error, words):
    with pytest.raises(error) as raised:
        demo.ask(TITLE, COVER, **options)
    assert words in str(raised.value)


def test_errors_have_the_words_of_the_command_line(demo):
    with pytest.raises(phi3v.PictureError) as raised:
        demo.ask(TITLE, "no-such.png")
    assert str(raised.value) == "cannot read no-such.png: no such file or directory"
    assert isinstance(raised.value, (phi3v.Phi3VError, ValueError))
    with pytest.raises(phi3v.PictureError, match="not fetched") as raised:
        demo.ask(TITLE, "https://images.example.org/a.png")
    assert raised.value.__notes__ == [f"hint: {raised.value.hint}"] and "allow_hosts" in raised.value.hint
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.hint) == (str(raised.value), raised.value.hint)
    with pytest.raises(phi3v.ModelError):
        phi3v.load("no-such-model")
    for loading in ({"quant": "q5"}, {"device": "tpu"}, {"threads": 0}, {"dtype": "f8"}):
        with pytest.raises(phi3v.OptionError):
            phi3v.load(**loading)
    with pytest.raises(TypeError, match="the question must be a str, not int"):
        demo.ask(5)
    with pytest.raises(phi3v.OptionError, match="the question is empty"):
        demo.ask("  ")


def test_a_model_may_be_named_by_a_path(endless):
    assert phi3v.load(endless, threads=1).ask("Hello", max_new_tokens=2).finish_reason == "length"
    with pytest.raises(phi3v.ModelError, match="no-such-folder"):
        phi3v.load(endless / "no-such-folder")
    for wrong in (5, b"demo", None):
        with pytest.raises(TypeError, match="a model's name must be a str or a path, not "):
            phi3v.load(wrong)


def test_pictures_beyond_the_context_are_not_all_read(demo):
    many = [COVER] * (demo.context_tokens // demo.tokenize_cost(COVER).tokens + 1)
    asks = [
        lambda: demo.ask(TITLE, [*many, "no-such.png"]),
        lambda: demo.decide(TITLE, [*many, "no-such.png"], choices=["yes", "no"]),
        lambda: list(demo.batch([(TITLE, [*many, "no-such.png"])], progress=False)),
        lambda: demo.chat([*many, "no-such.png"]),
    ]
    for ask in asks:
        with pytest.raises(phi3v.RoomError, match=f"tokens or more, which exceed the context of {demo.context_tokens}"):
            ask()
    assert demo.tokenize_cost(many).tokens > demo.context_tokens


def test_none_is_no_picture_that_was_left_out(demo):
    """As OpenCV's imread returns it of a file that is not there."""
    asks = [
        lambda: demo.ask(TITLE, None),
        lambda: demo.stream(TITLE, None),
        lambda: demo.chat(None),
        lambda: demo.chat().ask(TITLE, None),
        lambda: demo.decide(TITLE, None, choices=["yes", "no"]),
        lambda: demo.tokenize_cost(None),
        lambda: phi3v.tokenize_cost(None),
        lambda: list(demo.batch([(TITLE, None)], progress=False)),
        lambda: list(demo.batch([{"question": TITLE, "images": None}], progress=False)),
        lambda: demo.ask(TITLE, [COVER, None]),
    ]
    for ask in asks:
        with pytest.raises(TypeError, match="a picture must be a path, bytes, .* not NoneType"):
            ask()


def test_options_of_a_question_are_in_the_place_of_the_common_ones(demo):
    items = [{"question": TITLE, "images": COVER, "num_crops": 1, "choices": ["yes", "no"]}]
    (answer,) = demo.batch(items, detail="high", regex="[0-9]", progress=False)
    assert answer in ("yes", "no")
    chat = demo.chat(COVER, num_crops=4, regex="[0-9]{3}")
    assert chat.ask(TITLE, COVER, detail="low", choices=["yes", "no"]) in ("yes", "no")
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"], "additionalProperties": False}
    assert chat.ask(TITLE, schema=schema).parsed == {"a": None}
    assert len(chat.ask(TITLE, choices=None)) == 3, "None is as good as leaving it out"
    with pytest.raises(phi3v.OptionError, match="detail and num_crops"):
        list(demo.batch([{"question": TITLE, "detail": "low", "num_crops": 1}], progress=False))


def test_none_leaves_a_common_option_as_it_is(demo):
    nothing = {"temperature": None, "max_new_tokens": None, "regex": None, "choices": None, "system": None, "detail": None}
    assert split(over({"temperature": 0.7, "regex": "[0-9]{3}", "system": "S", "num_crops": 2}, nothing)) == (
        "S",
        {"reference": False, "allow_hosts": [], "num_crops": 2},
        {"stop": [], "temperature": 0.7, "regex": "[0-9]{3}"},
    )
    common = {"regex": "[0-9]{3}", "max_new_tokens": 2}
    (answer,) = demo.batch([{"question": TITLE, "images": COVER, **nothing}], **common, progress=False)
    assert answer.isdigit() and answer.finish_reason == "length"
    asked = demo.chat(COVER, **common).ask(TITLE, **nothing)
    assert asked.isdigit() and asked.finish_reason == "length"
    with pytest.raises(TypeError, match="there is no option temprature"):
        list(demo.batch([{"question": TITLE, "temprature": None}], progress=False))


def test_texts_that_can_be_read_once_are_followed_each_time(demo):
    whole, cut = COVER_ANSWER, COVER_ANSWER.split(" and")[0]
    given = [" and"]
    answers = demo.batch([(TITLE, COVER)] * 3, stop=map(str, given), progress=False)
    given.append(" book")
    assert list(answers) == [cut] * 3 != [whole] * 3
    assert set(demo.batch(["Is it?"] * 3, choices=iter(["yes", "no"]), progress=False)) <= {"yes", "no"}
    chat = demo.chat(COVER, stop=(word for word in [" and"]), allow_hosts=iter(["images.example.org"]))
    assert chat.ask(TITLE) == cut and " and" not in chat.ask(TITLE)
    for _ in range(2):
        with pytest.raises(phi3v.PictureError, match="this host"):
            chat.ask(TITLE, "http://localhost:1/a.png")
    with pytest.raises(TypeError, match="choices must be texts, not one str"):
        demo.batch([TITLE], choices="ab")


def test_presets_choices_and_patterns(demo):
    assert list(phi3v.schemas()) == ["@receipt", "@invoice", "@table", "@card", "@alt"]
    alt = demo.ask(images=COVER, schema="@alt")
    assert list(alt) == ["alt"] and demo.chat(COVER).ask(schema="@alt").parsed == alt
    (of_batch,) = demo.batch([{"images": COVER}], schema="@alt", progress=False)
    assert of_batch.parsed == alt and of_batch.fields["/alt"].value == alt["alt"]
    with pytest.raises(phi3v.OptionError, match="no question was given"):
        demo.ask(images=COVER)
    answer = demo.ask("Is it?", choices=["yes", "no"])
    assert answer in ("yes", "no") and answer.fields[""].value == answer and answer.parsed is None
    assert len(demo.ask("How many?", regex="[0-9]{3}")) == 3
    assert demo.ask("Who are you?", max_new_tokens=3).fields == {}


def test_forms(demo):
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string", "maxLength": 20}},
        "required": ["title"],
        "additionalProperties": False,
    }
    book = demo.ask(TITLE, COVER, schema=schema)
    assert list(book) == ["title"] and isinstance(book["title"], str)
    with pytest.raises(phi3v.Phi3VError, match="ended by length before it fitted the schema"):
        demo.ask(TITLE, COVER, schema=schema, max_new_tokens=2)
    streamed = demo.stream(TITLE, COVER, schema=schema)
    assert json.loads("".join(streamed)) == streamed.answer.parsed == book
    field = streamed.answer.fields["/title"]
    assert field.value == book["title"] and 0 < field.p <= 1
    pydantic = needs("pydantic")

    class Book(pydantic.BaseModel, extra="forbid"):
        title: str = pydantic.Field(max_length=20)
        pages: int = pydantic.Field(ge=0, le=9)

    found = demo.ask(TITLE, COVER, schema=Book)
    assert isinstance(found, Book)
    assert demo.ask(TITLE, COVER, schema=found) == found, "an object stands for its class"


def test_a_form_is_the_same_however_often_it_is_asked_for(demo):
    """More forms than are kept, and two that tell apart only by the order of their properties."""
    text = {"type": "string", "maxLength": 20}

    def schema(*names):
        properties = dict.fromkeys(names, text)
        return {"type": "object", "properties": properties, "required": list(names), "additionalProperties": False}

    forms = [schema("title", "author"), schema("author", "title"), *(schema(f"part{number}") for number in range(9))]
    for _ in range(2):
        for form in forms:
            for _ in range(2):
                assert list(demo.ask(TITLE, COVER, schema=form)) == list(form["properties"])
    choices = [["yes", "no"], ["no", "maybe"]]
    assert all(demo.ask("Is there a dog?", COVER, choices=among) in among for among in choices * 3)


class Picky:
    """As a pydantic model whose validator takes nothing."""

    @classmethod
    def model_json_schema(cls):
        title = {"type": "string", "maxLength": 20}
        return {"type": "object", "properties": {"title": title}, "required": ["title"], "additionalProperties": False}

    @classmethod
    def model_validate_json(cls, text):
        raise cls.error


@pytest.mark.parametrize("error", [ValueError("too blue\nby far"), KeyError("page"), AssertionError()], ids=repr)
def test_what_a_validator_raises_is_the_failure_of_its_answer(demo, error):
    Picky.error = error
    with pytest.raises(phi3v.Phi3VError, match="the answer does not pass the schema") as raised:
        demo.ask(TITLE, COVER, schema=Picky)
    assert raised.value.__cause__ is error
    if str(error):
        assert str(error).split("\n")[0] in str(raised.value)
    found = list(demo.batch([(TITLE, COVER)] * 3, schema=Picky, errors="return", progress=False))
    assert sorted(one.item for one in found) == [0, 1, 2]
    assert all(isinstance(one, phi3v.Phi3VError) and one.__cause__ is error for one in found)
    stream = demo.stream(TITLE, COVER, schema=Picky)
    with pytest.raises(phi3v.Phi3VError, match="does not pass the schema"):
        list(stream)
    assert json.loads(stream.answer)["title"] and stream.answer.parsed is None
    stream.close()


def test_a_stream_tells_an_answer_piece_by_piece(demo, talker):
    stream = demo.stream(TITLE, COVER, stop="Porter")
    with pytest.raises(phi3v.Phi3VError, match="has not ended"):
        _ = stream.answer
    pieces = list(stream)
    assert len(pieces) > 5 and all(pieces)
    assert "".join(pieces) == stream.answer == demo.ask(TITLE, COVER, stop="Porter")
    assert list(stream) == []
    with talker.stream("Tell me a story", **LONG) as stream:
        first = next(stream)
    assert stream.answer.startswith(first) and stream.answer.finish_reason == "cancelled"


def test_streams_that_wait_their_turn_can_be_closed(talker):
    """More than the engine runs and has waiting."""
    streams = [talker.stream(f"Tell me story {number}", **LONG) for number in range(60)]
    for stream in reversed(streams):
        stream.close()
        assert stream.answer.finish_reason == "cancelled"
    assert len(talker.ask("Tell me a story", max_new_tokens=5).tokens) == 5


def test_a_stream_that_another_thread_reads_can_be_closed(talker):
    for place in range(8):
        stream, begun, raised = talker.stream("Tell me a story", **LONG), threading.Event(), []

        def read(stream=stream, begun=begun, raised=raised, place=place):
            try:
                if place % 2:
                    begun.set()
                    stream.wait()
                for _ in stream:
                    begun.set()
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=read) for _ in range(1 + place // 4)]
        for thread in threads:
            thread.start()
        begun.wait()
        stream.close()
        assert stream.answer.finish_reason == "cancelled"
        for thread in threads:
            thread.join()
        assert raised == []


def test_a_closed_stream_has_no_form(talker):
    schema = {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}
    stream = talker.stream("Tell me a story", schema=schema, **LONG)
    raised = []

    def read():
        try:
            list(stream)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    stream.close()
    thread.join()
    assert raised == [] and stream.answer.parsed is None


def test_a_handler_of_a_signal_may_close_the_stream_that_it_interrupts(talker):
    stream = talker.stream("Tell me a story", **LONG)
    before = signal.signal(signal.SIGUSR1, lambda *_: stream.close())
    try:
        timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGUSR1))
        timer.start()
        list(stream)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stream.answer.finish_reason == "cancelled"


def test_an_async_loop_within_a_with_block_may_be_left(talker):
    async def leave():
        with talker.stream("Tell me a story", **LONG) as stream:
            async for _ in stream:
                break
        return stream.answer.finish_reason

    for _ in range(6):
        assert asyncio.run(leave()) == "cancelled"


def test_an_image_may_be_closed_before_its_stream_is_read(demo):
    pil = needs("PIL.Image")

    async def main():
        with pil.open(COVER) as opened:
            stream = demo.stream(TITLE, opened)
        with pil.open(COVER) as opened:
            changed = opened.convert("RGB")
            other = demo.stream(TITLE, changed)
        changed.close()
        return ["".join([text async for text in each]) for each in (stream, other)]

    assert asyncio.run(main()) == [COVER_ANSWER, COVER_ANSWER]


def test_pictures_are_read_beside_the_event_loop(demo, monkeypatch):
    readers = []

    def read(*args):
        readers.append(threading.get_ident())
        return prepare_all(*args)

    prepare_all = phi3v._model.prepare_all
    monkeypatch.setattr(phi3v._model, "prepare_all", read)

    async def main():
        for wrong in (lambda: demo.stream(TITLE, 5), lambda: demo.stream(5), lambda: demo.stream(TITLE, top_q=1)):
            with pytest.raises((TypeError, phi3v.OptionError)):
                wrong()
        with open(COVER, "rb") as file:
            stream = demo.stream(TITLE, file)
        unread = demo.stream(TITLE, COVER)
        unread.close()
        assert (unread.answer, unread.answer.finish_reason, list(unread)) == ("", "cancelled", [])
        absent = demo.stream(TITLE, "no-such.png")
        with pytest.raises(phi3v.PictureError):
            _ = [text async for text in absent]
        with pytest.raises(phi3v.Phi3VError, match="has failed already") as raised:
            absent.wait()
        assert isinstance(raised.value.__cause__, phi3v.PictureError)
        chat = demo.chat()
        told = [text async for text in chat.stream(TITLE, COVER)]
        assert chat.messages[-1]["content"] == "".join(told) == COVER_ANSWER
        return "".join([text async for text in stream])

    assert asyncio.run(main()) == COVER_ANSWER
    # the conversation has read its own pictures, of which there are none
    assert readers.count(threading.get_ident()) == 1 and len(readers) == 4
    list(demo.stream(TITLE, COVER))
    assert readers[-1] == threading.get_ident()


def test_streams_of_asyncio(demo, talker):
    async def read(**options):
        return "".join([text async for text in demo.stream(TITLE, COVER, **options)])

    async def leave():
        stream = talker.stream("Tell me a story", **LONG)
        pieces = stream.__aiter__()
        async for _ in pieces:
            break
        await pieces.aclose()

    async def fail():
        with pytest.raises(phi3v.RoomError):
            await read(max_new_tokens=10**9)

    async def main():
        await leave()
        await fail()
        return await asyncio.gather(*(read() for _ in range(20)))

    assert asyncio.run(main()) == [COVER_ANSWER] * 20


def test_a_question_is_refused_while_the_pictures_of_another_are_read(talker, monkeypatch):
    chat, reading, go, read = talker.chat(), threading.Event(), threading.Event(), phi3v.Model._read

    def slow(*given):
        reading.set()
        assert go.wait(60)
        return read(*given)

    monkeypatch.setattr(phi3v.Model, "_read", slow)
    answers = []
    first = threading.Thread(target=lambda: answers.append(chat.ask("Tell me a story", max_new_tokens=5)))
    first.start()
    assert reading.wait(60)
    with pytest.raises(phi3v.OptionError, match="the answer before has not ended"):
        chat.ask("And another", max_new_tokens=5)
    go.set()
    first.join()
    assert [message["content"] for message in chat.messages] == ["Tell me a story", *answers]


def test_a_conversation_has_one_answer_on_its_way(talker):
    chat = talker.chat(**LONG)
    roles = ["user", "assistant"]

    def said():
        return [message["content"] for message in chat.messages]

    stream = chat.stream("Tell me a story")
    next(stream)
    for ask in (chat.ask, chat.stream):
        with pytest.raises(phi3v.OptionError, match="the answer before has not ended"):
            ask("And another")
    stream.close()
    assert said() == ["Tell me a story", stream.answer]
    again = chat.ask("And another", max_new_tokens=5)
    assert said()[2:] == ["And another", again]
    # what nobody reads any more keeps nobody
    chat.stream("Who was that?")
    third = chat.ask("Once more", max_new_tokens=5)
    assert said()[4:] == ["Once more", third]
    failing = chat.stream("And this?", max_new_tokens=10**9)
    with pytest.raises(phi3v.RoomError):
        list(failing)
    chat.ask("Well?", max_new_tokens=5)

    async def leave():
        async for _ in chat.stream("Tell me a story"):
            break
        unread = chat.stream("And another")
        with pytest.raises(phi3v.OptionError, match="the answer before has not ended"):
            chat.stream("And one more")
        unread.close()
        chat.ask("The last", max_new_tokens=5)

    asyncio.run(leave())
    assert [message["role"] for message in chat.messages] == roles * (len(chat.messages) // 2)
    assert said()[8::2] == ["Tell me a story", "The last"]


def test_a_conversation_stays_known(demo, talker):
    chat = demo.chat(COVER, system="Be brief.")
    first = chat.ask(TITLE)
    assert chat.messages[-1] == {"role": "assistant", "content": str(first)}
    second = chat.ask("What is the capital of France?")
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert second.usage.image_tokens == first.usage.image_tokens
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    third = chat.ask("And this?", EXAMPLES / "text.png")
    assert third.usage.image_tokens > first.usage.image_tokens
    said = chat.messages
    with pytest.raises(phi3v.PictureError):
        chat.ask("And this?", "no-such.png")
    with pytest.raises(phi3v.OptionError, match="has its system text from its beginning"):
        chat.ask("And this?", system="Be long.")
    assert chat.messages == said
    chat = talker.chat()
    stream = chat.stream("Tell me a story", **LONG)
    next(stream)
    stream.close()
    assert chat.messages[-1]["content"] == stream.answer


def test_threads_get_the_answers_that_they_get_alone(demo):
    asked = [(case["question"], [EXAMPLES / name for name in case["pictures"]]) for case in cases()] * 3
    alone = [str(demo.ask(*one)) for one in asked]
    together: list[str | None] = [None] * len(asked)

    def ask(place):
        together[place] = str(demo.ask(*asked[place]))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize("stderr", ["absent", "closed", "full"])
def test_a_stderr_that_cannot_be_written_to_changes_nothing(demo, stderr, monkeypatch, capfd):
    class Full(io.StringIO):
        def isatty(self):
            return True

        def write(self, text):
            raise OSError("no space left on device")

    broken = {"absent": lambda: None, "closed": io.StringIO, "full": Full}[stderr]()
    if stderr == "closed":
        broken.close()
    monkeypatch.setattr(sys, "stderr", broken)
    for progress in (None, True):
        assert len(list(demo.batch([TITLE, TITLE], progress=progress, max_new_tokens=2))) == 2
    model = phi3v.transformers.AutoModelForCausalLM.from_pretrained("demo")
    assert model.cuda() is model
    assert capfd.readouterr().out == "", "nothing is told elsewhere"


def test_keyboard_interrupt_stops_an_answer_and_no_more(talker):
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        talker.ask("Tell me a story", **LONG)
    timer.join()
    assert len(talker.ask("Tell me a story", max_new_tokens=5).tokens) == 5


STALLED = """
import os, signal, socketserver, threading, time
import phi3v
from phi3v.transformers import AutoProcessor

asked = threading.Event()

class Silent(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1)
        asked.set()
        time.sleep(600)

server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"

def press():
    asked.wait()
    signal.raise_signal(signal.SIGINT)

for load in (phi3v.load, AutoProcessor.from_pretrained):
    asked.clear()
    threading.Thread(target=press, daemon=True).start()
    try:
        load("org/tiny")
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_keyboard_interrupt_ends_a_download_that_stalls(tmp_path):
    """The process ends as well, though the server never says a word."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_HOME": str(tmp_path), "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", STALLED], capture_output=True, text=True, timeout=60, env=env
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n" * 2), done.stderr


def test_a_model_that_nobody_has_is_freed(endless):
    def engines():
        tasks = subprocess.run(
            ["sh", "-c", f"cat /proc/{os.getpid()}/task/*/comm"], capture_output=True, text=True
        ).stdout
        return tasks.split().count("engine")

    if not sys.platform.startswith("linux"):
        pytest.skip("SKIPPED: threads are counted in /proc")
    before = engines()
    model = phi3v.load(str(endless), threads=1, context=30000)
    stream = model.stream("Tell me a story", **LONG)
    next(stream)
    assert engines() == before + 1
    gone = weakref.ref(model)
    del model, stream
    gc.collect()
    assert gone() is None
    for _ in range(200):
        if engines() == before:
            return
        threading.Event().wait(0.05)
    pytest.fail("the engine's thread goes on")


def test_questions_leave_nothing_behind(demo):
    """Of 8,000 texts that never come again; measure-python has the same of whole answers."""
    if not sys.platform.startswith("linux"):
        pytest.skip("SKIPPED: memory is looked up in /proc")

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def encode(numbers):
        for number in numbers:
            demo._inner.processor.encode(f"What is written in picture {number} of this folder?")

    encode(range(2000))
    before = resident()
    encode(range(2000, 10_000))
    assert resident() - before < 2000, "kB"


def test_a_forked_process_is_told_to_load_its_own():
    code = """
import os, phi3v
model = phi3v.load()
model.ask("Hello", max_new_tokens=1)
child = os.fork()
if child == 0:
    try:
        model.ask("Hello", max_new_tokens=1)
    except phi3v.Phi3VError as error:
        os._exit(0 if "forked" in str(error) and error.hint else 1)
    os._exit(2)
print(os.waitpid(child, 0)[1], len(model.ask("Hello", max_new_tokens=1).tokens))
"""
    if not hasattr(os, "fork"):
        pytest.skip("SKIPPED: needs fork")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "0 1\n", done.stderr


FORKED_STREAM = """
import os, signal, threading, phi3v
model = phi3v.load({folder!r}, context=30000)
read, unread = (model.stream("Tell me a story", max_new_tokens=25000) for _ in range(2))
threading.Thread(target=lambda: list(read)).start()  # and holds its lock at most times
answers = model.batch(["Tell me a story"] * 9, max_new_tokens=200, progress=False)
next(answers)
child = os.fork()
if child == 0:
    signal.alarm(60)
    told = 0
    for stream in (read, unread):
        stream._cancel()
    for ask in (lambda: next(read), read.wait, read.close, lambda: next(unread), unread.close, lambda: next(answers)):
        try:
            ask()
        except phi3v.Phi3VError as error:
            told += "forked" in str(error)
    os._exit(told)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
for stream in (read, unread):
    stream.close()
answers.close()
print(len(model.ask("Hello", max_new_tokens=2).tokens))
"""


def test_what_was_asked_before_a_fork_is_not_waited_for_in_it(endless):
    if not hasattr(os, "fork"):
        pytest.skip("SKIPPED: needs fork")
    code = FORKED_STREAM.format(folder=str(endless))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["6", "2"], done.stderr


FORKED_LOAD = """
import os, signal, phi3v
# a card that the parent has opened, as macOS' is by itself, is of no use to a fork
how = {"quant": "q8", "device": "cpu"}
phi3v.load(**how)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(len(phi3v.load(**how).ask("Hello", max_new_tokens=1).tokens))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_can_load_what_its_parent_has_loaded(tmp_path):
    """Also where it cannot be noted that the kept file was found right, so that all of it is hashed again."""
    if not hasattr(os, "fork"):
        pytest.skip("SKIPPED: needs fork")
    env = {**os.environ, "PHI3V_CACHE": str(tmp_path)}

    def run(code):
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run('import phi3v; phi3v.load(quant="q8", device="cpu")')
    (noted,) = tmp_path.rglob("*.checked")
    noted.unlink()
    noted.mkdir()
    assert run(FORKED_LOAD) == "1\n"
