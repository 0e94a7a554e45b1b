"""What is advised where something fails."""

import os
import re
import subprocess
import sys

import phi3v
import pytest
from conftest import COVER, TINY, TITLE

# flags, and what is said where they are
OF_THE_COMMAND_LINE = r"--\w|phi3v (ask|batch|chat|decide) |of ask comes"


def test_hints_are_of_python_and_not_of_the_command_line(demo, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for call, error, hint in [
        (lambda: demo.ask(TITLE, "my photo.jpg"), phi3v.PictureError, "check the path"),
        (lambda: demo.ask(TITLE, "photo.jpg"), phi3v.PictureError, "check the path"),
        (lambda: demo.ask(TITLE, tmp_path), phi3v.PictureError, "give its pictures; Model.batch asks about many"),
        (lambda: demo.ask(TITLE, "data:image/png;base64,%%"), phi3v.PictureError, "write it as data:image/png;base64,"),
        (
            lambda: demo.ask(TITLE, "data:image/png;base64," + "A" * 400, max_image_bytes=200),
            phi3v.PictureError,
            "scale the picture down, or raise max_image_bytes",
        ),
        (lambda: phi3v.load(COVER), phi3v.ModelError, "load a model by its name, and give it the picture with a question"),
        (lambda: phi3v.load(tmp_path / "config.json"), phi3v.ModelError, f"give its folder, {tmp_path}"),
        (lambda: phi3v.load(threads=100_000), phi3v.OptionError, ""),
        (lambda: phi3v.load(context=10**9), phi3v.Phi3VError, ""),
        (lambda: demo.ask(TITLE, COVER, max_new_tokens=10**9), phi3v.RoomError, ""),
        (lambda: demo.ask(TITLE, COVER, max_new_tokens=0), phi3v.OptionError, ""),
        (lambda: demo.ask(TITLE, COVER, max_pixels=5), phi3v.PictureError, "scale the picture down, or raise the limit"),
        (lambda: demo.ask(TITLE, COVER, num_crops=0), phi3v.OptionError, "Phi-3-vision was trained with 16"),
        (lambda: demo.decide(TITLE, choices=["only"]), phi3v.OptionError, ""),
        (
            lambda: demo.decide(TITLE, choices=["a", "b"], calibration="/nope"),
            phi3v.OptionError,
            "check the path",
        ),
    ]:
        with pytest.raises(error) as raised:
            call()
        told = raised.value.hint or ""
        assert told.startswith(hint), told
        assert not re.search(OF_THE_COMMAND_LINE, told), told


def test_a_disk_without_room_for_a_quantized_model_is_told(tmp_path):
    code = f"""
import phi3v
try:
    phi3v.load({str(TINY)!r}, quant="q8")
except phi3v.Phi3VError as error:
    print(error, error.hint)
"""
    mount = 'mount -t tmpfs -o size=1m none "$PHI3V_CACHE"'
    environment = {**os.environ, "PHI3V_CACHE": str(tmp_path)}

    def small(*command):
        words = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)

    try:
        small("true").check_returncode()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"SKIPPED: a full disk needs unshare and tmpfs: {error}")
    done = small(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the quantized model takes "), done.stdout
    assert "free some space, or name a folder on another disk in PHI3V_CACHE" in done.stdout
    assert not re.search(OF_THE_COMMAND_LINE, done.stdout), done.stdout
