"""Many questions at once: pictures are read ahead, the engine runs up to 16 answers together, and each comes as it ends."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, wait
from queue import SimpleQueue
from threading import Event, Lock, Thread, main_thread
from threading import enumerate as threads
from typing import Any

from ._answer import Answer
from ._bar import Bar
from ._errors import GivenUp, Phi3VError
from ._phi3v import Answers, CancelFlag, Ended

# Up to 16 answers run together, and the pictures of as many wait: each picture takes some megabytes until it is encoded.
_IN_FLIGHT = 32
# Pictures that are read at one time, beside the engine, which has the cores.
_READERS = 2
# Seconds between two looks whether the program ends.
_LOOK = 0.1

Submit = Callable[[Answers, CancelFlag, int], None]
"""Reads an item's pictures, unless that is given up, and sends its question with the key."""
Take = Callable[[Any], Submit]
"""Takes an item as it is now: its iterable may change what the item holds once it is asked for the next."""
Finish = Callable[[Ended], Answer]
"""Makes an answer of what came back."""


def run(
    answers: Answers, items: Iterable[Any], take: Take, finish: Finish, *, errors: str, progress: bool | None
) -> Iterator[Answer | Phi3VError]:
    """The answers to `items`, in the order in which they end."""
    total = len(items) if isinstance(items, Sized) else None
    numbered = enumerate(items)
    reading: dict[Future[None], int] = {}
    cancel = CancelFlag()
    readers, more = _Readers(cancel), True
    try:
        with Bar(total, progress) as bar:
            while True:
                # where the threads that read are not
                answers.check_process()
                # what has failed is read no more, and has to come out before others are taken
                while (
                    more
                    and len(reading) < 2 * _IN_FLIGHT
                    and sum(not future.done() for future in reading) + len(answers) < _IN_FLIGHT
                ):
                    index, item = next(numbered, (None, None))
                    if index is None:
                        more = False
                        continue
                    try:
                        started = readers.start(take(item), answers, index)
                    except Exception as error:
                        started = Future()
                        started.set_exception(error)
                    reading[started] = index
                for index, result in _ended(answers, reading, finish):
                    told = _failure(result, index) if isinstance(result, Exception) else result
                    # what is given up with the program is no item's failure, and ends all
                    if isinstance(result, Exception) and (errors == "raise" or isinstance(result, GivenUp)):
                        raise result
                    bar.step()
                    yield told
                if not more and not reading and not len(answers):
                    return
    finally:
        cancel.set()
        answers.cancel()
        readers.end()
        answers.cancel()


class _Own(Thread):
    """A thread of a batch, which waits for others and is none that a program goes on for."""


class _Readers:
    """Threads that read pictures. An executor's would be waited for at the program's end before anybody could give up what
    they wait for; these give up where the first thread has ended and no other is left that the program waits for."""

    def __init__(self, cancel: CancelFlag) -> None:
        self._cancel, self._over = cancel, Event()
        # nothing is given to readers that have been told to end
        self._giving = Lock()
        self._given: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._threads = [_Own(target=self._watch, name="phi3v-watch")]
        self._threads += [_Own(target=self._read, name="phi3v-pictures") for _ in range(_READERS)]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # the system has no more of them
            self._over.set()
            raise

    def start(self, submit: Submit, answers: Answers, key: int) -> Future[None]:
        """Has a thread do it. What comes of it is `GivenUp` once the program ends."""
        started: Future[None] = Future()
        with self._giving:
            if self._over.is_set():
                started.set_exception(_given_up())
            else:
                self._given.put((started, lambda: submit(answers, self._cancel, key)))
        return started

    def end(self) -> None:
        """Waits for what has begun, and drops what has not."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        while (given := self._given.get()) is not None:
            started, work = given
            try:
                if self._over.is_set():
                    raise _given_up()
                work()
            except BaseException as error:
                started.set_exception(error)
            else:
                started.set_result(None)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK) and _goes_on():
            pass
        with self._giving:
            self._over.set()
            self._cancel.set()
            for _ in range(_READERS):
                self._given.put(None)


def _goes_on() -> bool:
    """Whether the program has a thread that may ask for more: whoever began a batch may leave its answers to another."""
    return main_thread().is_alive() or any(
        thread.is_alive() and not thread.daemon and not isinstance(thread, _Own) for thread in threads()
    )


def _given_up() -> GivenUp:
    return GivenUp("the batch is given up: the program ends")


def _failure(error: Exception, index: int) -> Phi3VError:
    """What became of an item that failed, which knows its place; `error` tells it too."""
    failure = error if isinstance(error, Phi3VError) else Phi3VError(str(error) or type(error).__name__)
    if failure is not error:
        failure.__cause__ = error
        failure.add_note(f"item {index} of the batch")
    error.add_note(f"item {index} of the batch")
    failure.item = index
    return failure


def _ended(
    answers: Answers, reading: dict[Future[None], int], finish: Finish
) -> Iterator[tuple[int, Answer | Exception]]:
    """What has ended since the last time; waits for the first where nothing has."""
    if not len(answers) and reading:
        wait(reading, return_when=FIRST_COMPLETED)
    for future in [future for future in reading if future.done()]:
        index = reading.pop(future)
        error = future.exception()
        if isinstance(error, Exception):
            yield index, error
        elif error is not None:
            raise error
    ended = answers.next(False)
    if isinstance(ended, Ended):
        try:
            yield ended.key, finish(ended)
        except Exception as error:
            yield ended.key, error


def item(entry: Any) -> tuple[str | None, Any, Mapping[str, Any]]:
    """The question, the pictures and the options of an item of a batch. A preset has a question of its own."""
    if isinstance(entry, str):
        return entry, (), {}
    if isinstance(entry, Mapping):
        options = dict(entry)
        return options.pop("question", None), options.pop("images", ()), options
    if isinstance(entry, tuple) and len(entry) == 2:
        return entry[0], entry[1], {}
    raise TypeError(
        "an item of a batch must be a question, (question, images) or a dict with question, images and options, "
        f"not {type(entry).__name__}"
    )
