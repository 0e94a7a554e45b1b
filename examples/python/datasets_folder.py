"""Asks a question about every picture of a Hugging Face data set, here of a folder, and saves the set with the answers.

    python datasets_folder.py PICTURES ANSWERS "What is written here?" [MODEL]
"""

import sys
from typing import Any

import phi3v
from datasets import Dataset, Image, load_dataset
from datasets.fingerprint import Hasher


def ask_all(pictures: Dataset, question: str, model: phi3v.Model) -> Dataset:
    """The data set with the columns answer and error."""

    def ask(batch: dict[str, list[Any]]) -> dict[str, list[str | None]]:
        # undecoded, a picture is {"bytes": ..., "path": ...}, one of both, and phi3v decodes it
        items = [(question, image["bytes"] or image["path"]) for image in batch["image"]]
        told: dict[str, list[str | None]] = {"answer": [None] * len(items), "error": [None] * len(items)}
        for result in model.batch(items, errors="return", progress=False):
            told["answer" if isinstance(result, phi3v.Answer) else "error"][result.item] = str(result)
        return told

    undecoded = pictures.cast_column("image", Image(decode=False))
    # by its name, since a model cannot be hashed; so that the same question is found in the cache
    fingerprint = Hasher.hash([undecoded._fingerprint, question, model.name])
    # in this process: the model has all cores already, and answers 16 together
    return undecoded.map(ask, batched=True, batch_size=64, new_fingerprint=fingerprint)


def main(pictures: str, answers: str, question: str, model: str = "demo") -> None:
    """Asks about every picture of the folder."""
    folder = load_dataset("imagefolder", data_dir=pictures, split="train")
    ask_all(folder, question, phi3v.load(model)).save_to_disk(answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
