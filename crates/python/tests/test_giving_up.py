"""Waiting for a picture given up: by an event loop, another thread, or Ctrl-C."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import COVER, TITLE


@pytest.fixture
def silent():
    """The name of a picture that is waited for: a pipe that nobody writes to, and that no test waits for to the end."""
    if not os.path.exists("/dev/fd"):
        pytest.skip("SKIPPED: needs /dev/fd")
    reader, writer = os.pipe()
    waited_for = threading.Event()

    def end():
        waited_for.set()
        os.close(writer)

    timer = threading.Timer(120, end)
    timer.start()
    yield f"/dev/fd/{reader}"
    timer.cancel()
    timer.join()
    was_waited_for = waited_for.is_set()
    if not was_waited_for:
        os.close(writer)
    os.close(reader)
    assert not was_waited_for


def test_a_picture_that_is_waited_for_can_be_given_up(demo, silent):
    async def main(stream, closes):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async for _ in stream:
                    pytest.fail("there is an answer")
        if closes:
            stream.close()
        for reader in [thread for thread in threading.enumerate() if thread.name == "phi3v-stream"]:
            reader.join(timeout=60)
            assert not reader.is_alive()
        assert (stream.answer, stream.answer.finish_reason, list(stream), stream.wait()) == ("", "cancelled", [], "")

    chat = demo.chat()

    async def both():
        await main(demo.stream(TITLE, [COVER, silent, silent]), closes=False)
        await main(chat.stream(TITLE, silent), closes=True)

    asyncio.run(both())
    assert chat.messages == []


def test_a_batch_whose_pictures_are_waited_for_can_be_left(demo, silent):
    answers = demo.batch([(TITLE, silent), (TITLE, silent), TITLE], progress=False)
    # to the process and not to the timer's thread, as a terminal does
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(answers)
    timer.join()
    answers = demo.batch([TITLE, (TITLE, silent)], progress=False)
    assert next(answers).item == 0
    answers.close()


def test_a_program_ends_in_spite_of_an_unfinished_batch():
    if not os.path.exists("/dev/fd"):
        pytest.skip("SKIPPED: needs /dev/fd")
    code = f"""
import os, phi3v
reader, writer = os.pipe()
answers = phi3v.load().batch([("Who?", f"/dev/fd/{{reader}}"), "Who?", ("Who?", {str(COVER)!r})], progress=False)
print(next(answers).item)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout in ("1\n", "2\n")


def test_a_batch_of_another_thread_outlives_the_first():
    code = """
import phi3v, threading
model = phi3v.load()
def ask():
    threading.main_thread().join()
    print(len(list(model.batch(["Who?"] * 100, progress=False, max_new_tokens=2))))
threading.Thread(target=ask).start()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "100\n")
