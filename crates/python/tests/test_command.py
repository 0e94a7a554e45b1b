"""The command that comes with the wheel, in the process of Python."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import phi3v
import pytest
from conftest import COVER, COVER_ANSWER, REPOSITORY, TITLE

MODULE = [sys.executable, "-m", "phi3v"]
SCRIPT = Path(sys.executable).with_name("phi3v")


def run(*words, command=MODULE, **options):
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=300, **options)


def commands():
    return [MODULE, [str(SCRIPT)]] if SCRIPT.exists() else [MODULE]


@pytest.mark.parametrize("command", commands(), ids=len)
def test_answers_as_the_binary_does(command):
    done = run("ask", COVER, TITLE, command=command)
    assert (done.returncode, done.stdout) == (0, COVER_ANSWER + "\n")
    assert "demo model" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["--nonsense"], 2),
        (["ask", "no-such.png", "What is this?"], 3),
        (["ask", "--model", "no-such-model", "What is this?"], 4),
        (["ask", "--context", "10", COVER, "What is this?"], 5),
    ],
)
def test_exit_codes_are_the_command_lines(words, code):
    done = run(*words)
    assert done.returncode == code, done.stderr
    if words == ["--version"]:
        assert done.stdout.startswith(f"phi3v {phi3v.__version__} (")


def test_a_name_that_is_no_utf8_reaches_the_command(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.png"
    try:
        Path(os.fsdecode(name)).write_bytes(COVER.read_bytes())
    except OSError:
        pytest.skip("SKIPPED: this file system takes no such name")
    done = subprocess.run([*MODULE, "ask", name, TITLE], capture_output=True, timeout=300)
    assert done.stdout.decode() == COVER_ANSWER + "\n"


@pytest.mark.parametrize("command", [*commands(), [sys.executable, "-P", "-m", "phi3v"]], ids=len)
def test_pages_are_drawn_by_the_installed_package(command, tmp_path):
    # -m alone takes what lies in the folder
    if command != MODULE:
        (tmp_path / "phi3v.py").write_text("raise SystemExit(1)")
    document = REPOSITORY / "testdata" / "documents" / "words.pdf"
    done = run("ask", document, "--pages", "1", "What is written here?", command=command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Garden Notes\n"), done.stderr


# The package found by its folder alone, in an interpreter that has not installed it.
FROM_FOLDER = f"""
import sys
sys.path.insert(0, {str(Path(phi3v.__file__).parents[1])!r})
import phi3v
for name in ("documents/shapes.pdf", "avif/turned.avif"):
    print([(cost.width, cost.height) for cost in phi3v.tokenize_cost({str(REPOSITORY / "testdata")!r} + "/" + name, num_crops=1)])
"""
DRAWN = "[(237, 336), (336, 237), (336, 237)]\n[(48, 64)]\n"


def bare():
    """An interpreter without the package."""
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([python, "-I", "-c", "import phi3v"], capture_output=True)
    if done.returncode == 0:
        pytest.skip("SKIPPED: needs an interpreter without phi3v")
    return python


def test_pages_are_drawn_where_only_the_importing_process_knows_the_package(tmp_path):
    for module in ("phi3v", "json"):  # of which another part must not come from the working folder
        (tmp_path / f"{module}.py").write_text("raise SystemExit(1)")
    command = [bare(), "-I", "-c", FROM_FOLDER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.stdout == DRAWN, done.stderr


@pytest.mark.parametrize("set_up", ["", "sys.frozen = True"], ids=["within a server", "frozen"])
def test_a_program_that_has_python_within_is_not_started_again(tmp_path, set_up):
    stub, started = tmp_path / "app", tmp_path / "started"
    stub.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    stub.chmod(0o755)
    code = f"import sys\nsys.executable = {str(stub)!r}\n{set_up}\n{FROM_FOLDER}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert not started.exists()
    if set_up:
        assert "PictureError" in done.stderr and "the process for it does not start: no interpreter" in done.stderr
        assert "hint: set sys.executable to an interpreter of Python" in done.stderr
    else:
        assert done.stdout == DRAWN, done.stderr


def test_of_a_virtual_environment_on_windows_the_interpreter_behind_its_launcher_is_started(tmp_path, monkeypatch):
    from phi3v import _worker

    base, launcher, chosen = tmp_path / "python.exe", tmp_path / "venv" / "python.exe", tmp_path / "other" / "python.exe"
    base.touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "_base_executable", str(base), raising=False)
    for is_launcher, executable, started in [(True, launcher, base), (True, chosen, chosen), (False, launcher, launcher)]:
        monkeypatch.setattr(_worker, "_IS_LAUNCHER", is_launcher)
        monkeypatch.setattr(sys, "executable", str(executable))
        assert _worker.interpreter() == str(started)


def test_an_interpreter_that_does_not_start_is_no_fault_of_the_file(tmp_path):
    stub = tmp_path / "python3"
    stub.write_text("#!/bin/sh\necho Error\n")
    stub.chmod(0o755)
    for python in (stub, tmp_path / "absent" / "python3"):
        code = f"import sys\nsys.executable = {str(python)!r}\n{FROM_FOLDER}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert "documents, HEIC and AVIF cannot be read: the process for it does not start: " in done.stderr
        assert "damaged" not in done.stderr


def test_ctrl_c_stops_an_answer(endless):
    words = ["ask", "--quiet", "--model", endless, "--context", "30000", "--max-new-tokens", "25000"]
    process = subprocess.Popen([*MODULE, *words, "Tell me a story"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, b"")


def test_ctrl_c_ends_a_server_in_order():
    server = subprocess.Popen([*MODULE, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if found := re.search(r"phi3v listens at (http://\S+)", line):
            break
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{found[1]}/ready", timeout=10) as ready:
                assert ready.status == 200
                break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    else:
        server.kill()
        pytest.fail(f"the server is not ready: {server.communicate()[1]}")
    server.send_signal(signal.SIGINT)
    _, rest = server.communicate(timeout=60)
    assert server.returncode == 0, rest


def test_a_command_that_takes_no_notice_of_ctrl_c_is_ended_by_it():
    process = subprocess.Popen([*MODULE, "bench"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)


def test_the_wheel_has_its_licences():
    try:
        files = importlib.metadata.distribution("phi3v").files
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("SKIPPED: needs an installed phi3v")
    told = {file.name: file.read_text("utf-8") for file in files if file.name in ("LICENSE", "THIRD-PARTY.txt")}
    assert told["LICENSE"] == (REPOSITORY / "LICENSE").read_text()
    assert "mozjpeg-sys" in told["THIRD-PARTY.txt"] and "re_rav1d" in told["THIRD-PARTY.txt"]


def test_importing_brings_nothing_heavy():
    heavy = ["numpy", "PIL", "asyncio", "concurrent.futures", "pydantic", "IPython", "inspect"]
    code = f"import sys, phi3v; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
