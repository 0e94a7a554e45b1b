"""Asks a running `phi3v serve` a question about every picture of a folder, by Daft's prompt(), and writes Parquet.

    python daft_folder.py "PICTURES/*.png" ANSWERS "What is written here?" http://127.0.0.1:8000
"""

import sys

import daft
import phi3v
from daft.ai.openai.provider import OpenAIProvider
from daft.functions import prompt


@daft.func
def refusal(picture: bytes) -> str:
    """Why a picture cannot be read; nothing where it can."""
    try:
        phi3v.tokenize_cost(picture, num_crops=1)
    except phi3v.PictureError as error:
        return str(error)
    return ""


def main(pictures: str, answers: str, question: str, server: str, model: str = "demo") -> None:
    """Asks about every picture that can be read: to Daft one refused request is a failure of all that it runs with."""
    provider = OpenAIProvider(base_url=f"{server}/v1", api_key="none", timeout=3600, max_retries=8)
    asked = prompt(
        [daft.lit(question), daft.col("bytes")],
        provider=provider,
        model=model,
        use_chat_completions=True,
        temperature=0,
    )
    frame = daft.from_glob_path(pictures).select("path").with_column("bytes", daft.col("path").download())
    frame = frame.with_column("error", refusal(daft.col("bytes")))
    read = frame.where(daft.col("error") == "").with_column("answer", asked)
    refused = frame.where(daft.col("error") != "").with_column("answer", daft.lit(""))
    columns = ["path", "answer", "error"]
    read.select(*columns).concat(refused.select(*columns)).write_parquet(answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
