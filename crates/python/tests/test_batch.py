"""Many questions at once: what items hold, when they are taken, and how answers come."""

import io
import subprocess
import sys
import threading

import phi3v
import pytest
from conftest import COVER, COVER_ANSWER, EXAMPLES, TITLE, cases, needs


def test_a_batch_yields_answers_as_they_end(demo):
    known = [case for case in cases() if case["pictures"]]
    items = [(case["question"], [EXAMPLES / name for name in case["pictures"]]) for case in known] * 20
    answers = list(demo.batch(items, progress=False))
    assert sorted(answer.item for answer in answers) == list(range(len(items)))
    for answer in answers:
        assert answer == known[answer.item % len(known)]["answer"]
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield {"question": TITLE, "images": COVER, "max_new_tokens": 1 + len(taken) % 3}

    answers = demo.batch(endless(), progress=False)
    assert {len(next(answers).tokens) for _ in range(50)} == {1, 2, 3}
    answers.close()
    assert len(taken) < 100, "items are taken as they are needed"
    taken.clear()

    def failing():
        while True:
            taken.append(None)
            yield TITLE, "no-such.png"

    answers = demo.batch(failing(), errors="return", progress=False)
    assert isinstance(next(answers), phi3v.PictureError)
    answers.close()
    assert len(taken) < 200, "failures come out before others are taken"
    assert list(demo.batch([], progress=False)) == []
    assert [str(answer) for answer in demo.batch(["What is the capital of France?"], progress=False)] == [
        cases()[-1]["answer"]
    ]


def on_paper(path):
    """The pixels of a picture, with white around it to a size that the others have as well."""
    np = needs("numpy")
    paper = np.full((640, 720, 3), 255, np.uint8)
    with needs("PIL.Image").open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    paper[: pixels.shape[0], : pixels.shape[1]] = pixels
    return paper


def one_buffer(files):
    buffer = on_paper(files[0])
    for path in files:
        buffer[:] = on_paper(path)
        yield {"question": TITLE, "images": buffer}


def files_that_are_closed(files):
    for path in files:
        with open(path, "rb") as file:
            yield TITLE, file


def images_that_are_closed(files):
    for path in files:
        with needs("PIL.Image").open(path) as image:
            yield TITLE, [image]


def one_image_of_many_frames(files):
    pil = needs("PIL.Image")
    first, *others = (pil.fromarray(on_paper(path)) for path in files)
    frames = io.BytesIO()
    first.save(frames, "TIFF", save_all=True, append_images=others)
    with pil.open(frames) as image:
        for frame in range(len(files)):
            image.seek(frame)
            yield TITLE, image


def images_that_phi3v_does_not_decode(files):
    pil = needs("PIL.Image")
    for path in files:
        bare = io.BytesIO()
        pil.open(path).convert("RGB").save(bare, "DIB")
        with pil.open(bare) as image:
            yield TITLE, image
        bare.seek(0)
        bare.write(bytes(len(bare.getvalue())))


@pytest.mark.parametrize(
    "items",
    [
        one_buffer,
        files_that_are_closed,
        images_that_are_closed,
        one_image_of_many_frames,
        images_that_phi3v_does_not_decode,
    ],
)
def test_a_batch_sees_what_an_item_held_when_it_was_taken(demo, items):
    files = [EXAMPLES / name for name in ("cover.png", "sign.png", "book.png", "text.png")] * 5
    aside = items in (one_buffer, one_image_of_many_frames)
    shown = [on_paper(path) if aside else path for path in files[:4]]
    expected = [demo.ask(TITLE, picture) for picture in shown] * 5
    assert len(set(expected)) > 2
    found = {answer.item: answer for answer in demo.batch(items(files), progress=False)}
    assert [found[place] for place in range(len(files))] == expected


def test_items_of_a_batch_may_share_a_file_and_an_image(demo):
    pil = needs("PIL.Image")
    bare = io.BytesIO()
    pil.open(COVER).convert("RGB").save(bare, "DIB")
    with open(COVER, "rb") as file, pil.open(COVER) as image, pil.open(bare) as undecoded:
        for one in (file, image, undecoded):
            assert set(demo.batch([(TITLE, one)] * 40, progress=False)) == {COVER_ANSWER}


def test_a_batch_says_which_item_failed(demo):
    items = [(TITLE, COVER), (TITLE, "no-such.png"), (TITLE, COVER)]
    with pytest.raises(phi3v.PictureError) as raised:
        list(demo.batch(items, progress=False))
    assert raised.value.item == 1 and "item 1 of the batch" in raised.value.__notes__
    found = {one.item: one for one in demo.batch(items, progress=False, errors="return")}
    assert found[0] == found[2] == COVER_ANSWER and isinstance(found[1], phi3v.PictureError)
    with pytest.raises(TypeError, match="an item of a batch must be") as raised:
        list(demo.batch([TITLE, 5], progress=False))
    assert raised.value.__notes__ == ["item 1 of the batch"]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    cut = list(demo.batch(items[:1], schema=schema, max_new_tokens=1, errors="return", progress=False))
    assert isinstance(cut[0], phi3v.Phi3VError) and cut[0].item == 0


def test_an_item_of_a_wrong_type_is_an_item_that_failed(demo):
    class Broken:
        def read(self, size):
            raise ZeroDivisionError

    wrong = [5, (5, COVER), (TITLE, None), {"question": TITLE, "temperature": "hot"}, {"query": TITLE}, (TITLE, Broken())]
    causes = [TypeError] * 5 + [ZeroDivisionError]
    items = [(TITLE, COVER), *wrong, (TITLE, COVER)]
    found = {one.item: one for one in demo.batch(items, errors="return", progress=False)}
    assert found[0] == found[7] == COVER_ANSWER and sorted(found) == list(range(8))
    for place, cause in enumerate(causes, 1):
        failure = found[place]
        assert type(failure) is phi3v.Phi3VError and type(failure.__cause__) is cause
        assert str(failure) == (str(failure.__cause__) or "ZeroDivisionError")
        assert failure.__notes__ == [f"item {place} of the batch"]


def test_the_bar_of_a_batch(demo, capfd):
    assert len(list(demo.batch([TITLE, TITLE], progress=True))) == 2
    told = capfd.readouterr().err
    assert "2/2" in told and "left" in told
    list(demo.batch([TITLE], progress=None))
    assert capfd.readouterr().err == "", "nothing where nobody looks"


@pytest.mark.parametrize("pause", [0, 0.5])
def test_answers_may_be_left_to_another_thread(pause):
    code = f"""
import phi3v, threading, time
answers = phi3v.load().batch(["Who?"] * 100, progress=False, max_new_tokens=2)
next(answers)
def rest():
    threading.main_thread().join()
    time.sleep({pause})
    print(len(list(answers)))
threading.Thread(target=rest).start()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "99\n")


@pytest.mark.parametrize("started", [0, 1, 2])
def test_threads_that_cannot_all_be_started_leave_none_behind(demo, monkeypatch, started):
    begun = []

    def start(thread, start=threading.Thread.start):
        if thread.name.startswith("phi3v-"):
            if len(begun) == started:
                raise RuntimeError("can't start new thread")
            begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(demo.batch([TITLE], progress=False))
    assert len(begun) == started
    for thread in begun:
        thread.join(timeout=60)
        assert not thread.is_alive()
