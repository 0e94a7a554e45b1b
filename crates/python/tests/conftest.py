"""What several tests need."""

import json
import os
import signal
from pathlib import Path

import phi3v
import phi3v.transformers
import pytest

# what a user has set would choose another model and device than a test means, and so would the best that there is
os.environ.pop("PHI3V_MODEL", None)
os.environ["PHI3V_DEVICE"] = os.environ.get("PHI3V_TEST_DEVICE", "cpu")
# who is offline for other programs' sake is not for the tests' own hubs
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(name, None)
# what a test asks of this machine it asks without a proxy
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"

# a shell that starts the tests beside itself (`&`) has them ignore Ctrl-C, and with them what they start
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = REPOSITORY / "examples"
TINY = REPOSITORY / "testdata" / "tiny"
COVER = EXAMPLES / "cover.png"
TITLE = "Help me get the title and author information of this book?"
COVER_ANSWER = 'The title of the book is "Summer Garden" and the author is Anna Porter.'


def cases() -> list[dict]:
    """The questions about the examples, with their answers."""
    return json.loads((EXAMPLES / "answers.json").read_text())


def shared(path: str) -> Path:
    """Reference material that is not ours to publish; skips where it is absent, unless PHI3V_SHARED wants it."""
    given = os.environ.get("PHI3V_SHARED")
    found = Path(given or REPOSITORY.parent / "shared") / path
    if not found.exists():
        if given:
            pytest.fail(f"{found} is not there, and PHI3V_SHARED says that it should be")
        pytest.skip(f"SKIPPED: {found} is not there; set PHI3V_SHARED to the folder of reference material")
    return found


def needs(module: str):
    """A module that phi3v can do without."""
    return pytest.importorskip(module, reason=f"SKIPPED: needs {module}")


@pytest.fixture(scope="session")
def demo() -> phi3v.Model:
    """The built-in model."""
    return phi3v.load()


@pytest.fixture(scope="session")
def endless(tmp_path_factory) -> Path:
    """The folder of a random model whose answers never end: the logits of the ids that would end them are 0."""
    folder = tmp_path_factory.mktemp("endless")
    for file in TINY.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    stops = phi3v.transformers.AutoTokenizer.from_pretrained(str(TINY))._inner.stop_ids
    for path in folder.glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        head = json.loads(data[8:start]).get("lm_head.weight")
        if head is not None:
            width = head["shape"][1] * 2
            for id in {*stops, 2}:
                at = start + head["data_offsets"][0] + id * width
                data[at : at + width] = bytes(width)
            path.write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def talker(endless) -> phi3v.Model:
    """A random model whose answers never end."""
    return phi3v.load(str(endless), context=30000)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Goldens of the reference implementation."""
    return shared("reference/golden")

