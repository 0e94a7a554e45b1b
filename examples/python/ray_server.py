"""Asks a running `phi3v serve` a question about every picture of a folder, by Ray Data, and writes the answers as Parquet.

    python ray_server.py PICTURES ANSWERS "What is written here?" http://127.0.0.1:8000
"""

import base64
import sys
from typing import Any

import aiohttp
import ray
from ray.data.llm import HttpRequestProcessorConfig, build_processor

# Ray sends the requests of a batch one by one, so this many are in flight: as many as the server answers together.
IN_FLIGHT = 16


def patient() -> aiohttp.ClientSession:
    """A session without a time limit of its own, which would be 300 s: a request may wait its turn for longer."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))


def main(pictures: str, answers: str, question: str, server: str, model: str = "demo") -> None:
    """Asks about every picture."""

    def request(row: dict[str, Any]) -> dict[str, Any]:
        url = "data:image/png;base64," + base64.b64encode(row["bytes"]).decode()
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        payload = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
        return {"path": row["path"], "payload": payload}

    def told(row: dict[str, Any]) -> dict[str, str]:
        # a request that is refused comes back as a row as well
        response = row["http_response"]
        answer = response["choices"][0]["message"]["content"] if response.get("choices") else ""
        error = response["error"]["message"] if response.get("error") else ""
        return {"path": row["path"], "answer": answer, "error": error}

    config = HttpRequestProcessorConfig(
        url=f"{server}/v1/chat/completions",
        batch_size=4,
        concurrency=IN_FLIGHT,
        # Ray does not hear the server's Retry-After; it waits 1 s, 2 s, 4 s and so on
        max_retries=8,
        session_factory=patient,
        http_request_stage={"num_cpus": 0.1},
    )
    rows = ray.data.read_binary_files(pictures, include_paths=True).repartition(4 * IN_FLIGHT)
    build_processor(config, preprocess=request, postprocess=told)(rows).write_parquet(answers)


if __name__ == "__main__":
    ray.init(ignore_reinit_error=True)
    main(*sys.argv[1:])
