"""Waiting for a picture or a model, given up: by an event loop, another thread, or Ctrl-C."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import phi3v
import phi3v.transformers
import pytest
from conftest import COVER, TINY, TITLE


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


def test_a_program_ends_in_spite_of_two_unfinished_batches():
    if not os.path.exists("/dev/fd"):
        pytest.skip("SKIPPED: needs /dev/fd")
    code = """
import os, phi3v
reader, writer = os.pipe()
model = phi3v.load()
both = [model.batch([("Who?", f"/dev/fd/{reader}"), "Who?"], progress=False, max_new_tokens=2) for _ in range(2)]
print([next(answers).item for answers in both])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "[1, 1]\n")


def test_a_daemon_that_asks_on_is_told_that_the_program_ends():
    code = """
import atexit, itertools, phi3v, threading
told = threading.Event()
answers = phi3v.load().batch(itertools.repeat("Who?"), errors="return", progress=False, max_new_tokens=2)
next(answers)
def ask():
    threading.main_thread().join()
    try:
        for _ in answers:
            pass
    except phi3v.Phi3VError as error:
        print(type(error).__name__, flush=True)
    told.set()
threading.Thread(target=ask, daemon=True).start()
atexit.register(told.wait, 60)  # then it is ended as well
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "GivenUp\n")


class Hub:
    """A hub on this machine with one repository, `org/tiny`, whose weights come drop by drop until they are let go."""

    def __init__(self):
        hub, self.asked, self.left, self.let_go = self, [], threading.Semaphore(0), threading.Event()
        self.dripping = threading.Semaphore(0)
        files, commit = {path.name: path.read_bytes() for path in TINY.iterdir()}, "0123456789" * 4
        listed = {"sha": commit, "siblings": [{"rfilename": name} for name in files]}

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_HEAD(self):
                hub.asked.append(self.path)
                content = files[self.path.rpartition("/")[2]]
                etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                self.answer(len(content), {"ETag": f'"{etag}"'})

            def do_GET(self):
                hub.asked.append(self.path)
                name = self.path.rpartition("/")[2]
                content = json.dumps(listed).encode() if self.path.startswith("/api/") else files[name]
                self.answer(len(content), {})
                sent = 0
                try:
                    if name.endswith(".safetensors") and not hub.let_go.is_set():
                        hub.dripping.release()
                        while not hub.let_go.wait(0.01) and sent < 50_000:
                            self.wfile.write(content[sent : sent + 1])
                            sent += 1
                    self.wfile.write(content[sent:])
                except OSError:
                    hub.left.release()

            def answer(self, length, headers):
                self.send_response(200)
                for name, value in {"Content-Length": length, "Connection": "close", **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def interrupt(self, readers):
        """Presses Ctrl-C once so many wait for drops."""
        for _ in range(readers):
            assert self.dripping.acquire(timeout=60)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    if sys.platform == "win32":
        pytest.skip("SKIPPED: needs a system where a process can send itself Ctrl-C; Windows ends it")
    hub = Hub()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    serving = threading.Thread(target=hub.server.serve_forever)
    serving.start()
    yield hub
    hub.let_go.set()
    hub.server.shutdown()
    serving.join()
    hub.server.server_close()


@pytest.mark.parametrize("load", [phi3v.load, phi3v.transformers.AutoProcessor.from_pretrained])
def test_ctrl_c_ends_the_download_of_a_model(hub, load):
    pressing = threading.Thread(target=hub.interrupt, args=[1])
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        load("org/tiny")
    pressing.join()
    assert hub.left.acquire(timeout=60), "what nobody waits for is still downloaded"
    assert hub.asked[-1].endswith(".safetensors"), "something more was asked for"
    hub.let_go.set()
    assert load("org/tiny"), "it goes on where it stopped"


def test_ctrl_c_ends_no_download_of_another_thread(hub, tmp_path):
    loaded = []

    def load():
        loaded.append(phi3v.transformers.AutoProcessor.from_pretrained("org/tiny", cache_dir=tmp_path / "other"))

    threads = [threading.Thread(target=load), threading.Thread(target=hub.interrupt, args=[2])]
    for thread in threads:
        thread.start()
    with pytest.raises(KeyboardInterrupt):
        phi3v.load("org/tiny")
    assert hub.left.acquire(timeout=60)
    hub.let_go.set()
    for thread in threads:
        thread.join()
    assert loaded and not hub.left.acquire(blocking=False)
