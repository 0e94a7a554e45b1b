"""Asks a phi3v binary over its server: one process for all questions, conversations and forms included."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

LISTENS = re.compile(r"listens at (http://\S+)")
MOST_TOKENS = 200  # the longest right answer has 110


def turns_of(case: dict) -> list[dict]:
    """All turns of a case."""
    return [case, *case.get("turns", [])]


class Served:
    """A running `phi3v serve`; use it in a `with` statement."""

    def __init__(self, binary: str, more: list[str]) -> None:
        command = [binary, "serve", "--port", "0", *more]
        quiet = {**os.environ, "RUST_LOG": "off"}  # nobody reads its log further than the address
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=quiet)
        for line in self.process.stderr or ():
            if found := LISTENS.search(line):
                self.address = found[1]
                self._wait()
                return
        raise RuntimeError(f"{' '.join(command)} ended with {self.process.wait()} before it listened")

    def _wait(self) -> None:
        """Returns once the model is loaded."""
        for _ in range(600):
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{self.address}/ready", timeout=10):
                return
            time.sleep(0.1)
        self.process.terminate()
        raise RuntimeError("the server was not ready within a minute")

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()

    def answers(self, case: dict, folder: Path) -> list[str]:
        """The answers to all turns of a case."""
        return [choice["message"]["content"] for choice in self.choices(case, folder)]

    def choices(self, case: dict, folder: Path, **more: object) -> list[dict]:
        """The server's choices for all turns of a case, greedy; each turn knows the model's own earlier answers. `more` goes with each request."""
        messages = [{"role": "system", "content": case["system"]}] if "system" in case else []
        found = []
        for turn in turns_of(case):
            parts = [self._picture(folder / name, case.get("detail")) for name in turn["images"]]
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": turn["question"]}]})
            body: dict[str, object] = {"messages": messages, "temperature": 0, "max_tokens": MOST_TOKENS, **more}
            if "schema" in case:
                body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": case["schema"]}}
            found.append(self._post(body))
            messages.append({"role": "assistant", "content": found[-1]["message"]["content"]})
        return found

    @staticmethod
    def _picture(path: Path, detail: str | None) -> dict[str, object]:
        url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}

    def _post(self, body: dict[str, object]) -> dict:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.address}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)["choices"][0]
