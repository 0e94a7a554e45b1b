"""Asks a question about every picture of a folder, on all machines of a Ray cluster, and writes the answers as Parquet.
Run again, it goes on with the pictures that have no answer yet. In place of the folder there may be Parquet files with
the columns path and bytes.

    python ray_folder.py PICTURES ANSWERS "What is written here?" [MODEL]
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import phi3v
import pyarrow.parquet
import ray


class Asker:
    """A model that has a machine with all its cores."""

    def __init__(self, question: str, model: str) -> None:
        self.question, self.model = question, phi3v.load(model)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        items = [(self.question, data.as_py()) for data in batch["bytes"]]
        told: dict[str, list[str | None]] = {"answer": [None] * len(items), "error": [None] * len(items)}
        for result in self.model.batch(items, errors="return", progress=False):
            told["answer" if isinstance(result, phi3v.Answer) else "error"][result.item] = str(result)
        return pyarrow.table({"path": batch["path"], **{name: pyarrow.array(told[name], pyarrow.string()) for name in told}})


def answered(folder: Path) -> Iterator[str]:
    """The pictures with an answer. A file that was being written when the machine stopped is removed."""
    for file in folder.glob("*.parquet"):
        try:
            yield from pyarrow.parquet.read_table(file, columns=["path"])["path"].to_pylist()
        except (OSError, pyarrow.ArrowInvalid):
            file.unlink()


def main(pictures: str, answers: str, question: str, model: str = "demo") -> None:
    """Asks about what has no answer yet."""
    Path(answers).mkdir(parents=True, exist_ok=True)
    done, small = set(answered(Path(answers))), {"num_cpus": 0.1}
    if list(Path(pictures).glob("*.parquet")):
        rows = ray.data.read_parquet(pictures, columns=["path", "bytes"], **small)
        rows = rows.filter(lambda row: row["path"] not in done, **small)
    else:
        paths = sorted(str(path.resolve()) for path in Path(pictures).rglob("*") if path.is_file())
        if not (left := [path for path in paths if path not in done]):
            return
        rows = ray.data.read_binary_files(left, include_paths=True, **small)
    machines = [node["Resources"]["CPU"] for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
    rows.map_batches(
        Asker, fn_constructor_args=(question, model), batch_size=32, batch_format="pyarrow", concurrency=len(machines),
        num_cpus=0.6 * min(machines),  # more than half, so that no machine gets two; Ray reads with the rest
    ).write_parquet(answers, ray_remote_args=small)


if __name__ == "__main__":
    ray.init(ignore_reinit_error=True)
    main(*sys.argv[1:])
