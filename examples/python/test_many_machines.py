"""The scripts of this folder on one machine: two Ray nodes, a server, a data set of pictures. Run by
scripts/test-many-machines."""

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1]
QUESTION = "What is written here?"
PICTURES = 200


# what a user has set would choose another model and device than the tests mean
os.environ.pop("PHI3V_MODEL", None)
os.environ["PHI3V_DEVICE"] = os.environ.get("PHI3V_TEST_DEVICE", "cpu")


def needs(module):
    """A module, without which a test is skipped, or fails where PHI3V_NEEDS_RAY wants it."""
    if os.environ.get("PHI3V_NEEDS_RAY", "0") != "0":
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"SKIPPED: needs {module}")


@pytest.fixture(scope="session")
def known():
    """The answers to QUESTION about the example pictures that are asked about."""
    import phi3v

    model = phi3v.load()
    return {name: str(model.ask(QUESTION, EXAMPLES / name)) for name in ("text.png", "cover.png", "chart.png")}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, known):
    """A folder of pictures, one of them damaged, and what is said of each."""
    folder, expected = tmp_path_factory.mktemp("pictures"), {}
    names = list(known)
    for number in range(PICTURES):
        name = names[number % len(names)]
        path = folder / f"{number:03}.png"
        data = (EXAMPLES / name).read_bytes()
        damaged = number == 77
        path.write_bytes(data[:200] if damaged else data)
        expected[str(path)] = None if damaged else known[name]
    return folder, expected


@pytest.fixture(scope="session")
def server():
    """The address of a server of the demo model."""
    command = [sys.executable, "-m", "phi3v", "serve", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if found := re.search(r"listens at (http://\S+)", line):
            break
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    yield found[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


@pytest.fixture(scope="module")
def cluster():
    """Two Ray nodes of this machine."""
    needs("ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    cluster.add_node(num_cpus=4)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def rows(folder):
    """The rows of all Parquet files of a folder."""
    parquet = needs("pyarrow.parquet")
    return [row for file in sorted(Path(folder).rglob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def check(found, expected):
    """Nothing is lost, nothing is there twice, and every answer is right."""
    assert Counter(row["path"] for row in found) == Counter(expected.keys())
    for row in found:
        answer = expected[row["path"]]
        assert (row["answer"] or None) == answer, row
        if "error" in row:
            assert bool(row["error"]) == (answer is None), row


def kill_an_actor_when(folder, killed):
    """Kills the process of one actor with a model as soon as answers are written."""
    from ray.util.state import list_actors

    while not killed.is_set():
        alive = [actor for actor in list_actors() if actor.state == "ALIVE" and "Asker" in actor.class_name]
        if len(alive) >= 2 and any(Path(folder).glob("*.parquet")):
            os.kill(alive[0].pid, signal.SIGKILL)
            killed.set()
        time.sleep(0.05)


def test_ray_loses_nothing_when_a_worker_is_killed(cluster, pictures, tmp_path):
    import ray_folder

    folder, expected = pictures
    killed = threading.Event()
    killer = threading.Thread(target=kill_an_actor_when, args=(tmp_path, killed))
    killer.start()
    try:
        ray_folder.main(str(folder), str(tmp_path), QUESTION)
    finally:
        was_killed = killed.is_set()
        killed.set()
        killer.join()
    assert was_killed, "no worker was killed while there was work"
    check(rows(tmp_path), expected)


def test_ray_goes_on_with_what_has_no_answer(cluster, pictures, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray_folder

    folder, expected = pictures
    some = [path for number, path in enumerate(expected) if number % 4]
    table = {"path": some, "answer": [expected[path] for path in some]}
    table["error"] = [None if answer else "damaged" for answer in table["answer"]]
    pq.write_table(pa.table(table), tmp_path / "before.parquet")
    whole = (tmp_path / "before.parquet").read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    ray_folder.main(str(folder), str(tmp_path), QUESTION)
    check(rows(tmp_path), expected)
    assert (tmp_path / "before.parquet").read_bytes() == whole
    ray_folder.main(str(folder), str(tmp_path), QUESTION)
    check(rows(tmp_path), expected)


def test_ray_reads_parquet(cluster, pictures, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray_folder

    _, expected = pictures
    paths = list(expected)[:40]
    (tmp_path / "in").mkdir()
    data = [Path(path).read_bytes() for path in paths]
    for part in (0, 1):
        half = slice(20 * part, 20 * part + 20)
        pq.write_table(pa.table({"path": paths[half], "bytes": data[half]}), tmp_path / "in" / f"{part}.parquet")
    ray_folder.main(str(tmp_path / "in"), str(tmp_path / "out"), QUESTION)
    check(rows(tmp_path / "out"), {path: expected[path] for path in paths})


def test_ray_asks_a_server(cluster, server, pictures, tmp_path):
    needs("aiohttp")
    import ray_server

    folder, expected = pictures
    ray_server.main(str(folder), str(tmp_path), QUESTION, server)
    check(rows(tmp_path), expected)


def test_daft_asks_a_server(server, pictures, tmp_path):
    needs("daft")
    needs("openai")
    import daft_folder

    folder, expected = pictures
    daft_folder.main(f"{folder}/*.png", str(tmp_path), QUESTION, server)
    found = [{**row, "path": row["path"].removeprefix("file://")} for row in rows(tmp_path)]
    check(found, expected)


def test_datasets_map_a_folder(known, tmp_path, monkeypatch):
    needs("datasets")
    import datasets
    import datasets_folder

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for number in range(70):
        name = list(known)[number % 3]
        (tmp_path / "pictures").mkdir(exist_ok=True)
        data = (EXAMPLES / name).read_bytes()
        (tmp_path / "pictures" / f"{number:02}.png").write_bytes(data)
    datasets_folder.main(str(tmp_path / "pictures"), str(tmp_path / "answers"), QUESTION)
    found = datasets.load_from_disk(str(tmp_path / "answers"))
    assert len(found) == 70
    assert found["answer"] == [known[list(known)[number % 3]] for number in range(70)]
    assert set(found["error"]) == {None}


def test_the_scripts_have_40_lines_of_code_at_most():
    scripts = [path for path in Path(__file__).parent.glob("*_*.py") if not path.name.startswith("test_")]
    assert len(scripts) == 4
    for script in scripts:
        text = script.read_text()
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented) and ast.get_docstring(node)]
        docs = {line for node in nodes for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)}
        lines = [line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in docs]
        code = [line for line in lines if line and not line.startswith("#")]
        assert len(code) <= 40, f"{script.name} has {len(code)} lines of code"
