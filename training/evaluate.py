"""Scores the demo checkpoint on pictures from a seed that training never uses.

    evaluate.py --write DIR                      render the cases: PNG files and cases.jsonl
    evaluate.py --cases DIR --binary phi3v       ask the binary (greedy, by its server) and score its answers
    evaluate.py --cases DIR --state stage2.pt    the same with the plain-torch model

An answer counts when every fact it has to name is right: title and author; all nine facts of a chart;
both pictures' count, colour and shape and what differs; all lines of a text; that it declines.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from asking import Served, turns_of
from drawing.canvas import Canvas, to_tile
from drawing.example import Example
from drawing.tasks import MAKERS, decline
from network.model import Phi3V, patches_of
from samples.dataset import LONG_ROWS, end_id, prompt_chunks, tokenizer
from samples.tokens import DECLINES
from stages.export import load_student

EVAL_SEED = 990_000_000  # the seeds are texts with it; training's are small numbers
TARGETS = {"cover": 0.90, "chart": 0.85, "pair": 0.90, "text": 0.85, "decline": 0.95}
COVER = re.compile(r'^The title of the book is "(.*)" and the author is (.*)\.$', re.S)
SPELLED = ("cover", "text", "sign", "receipt", "face", "size", "closer")  # tasks whose answers are copied letters


def case(task: str, index: int) -> Example:
    """Case `index` of a task."""
    rng = random.Random(f"{EVAL_SEED}/{task}/{index}")
    return decline(rng, held=True) if task == "decline" else MAKERS[task](rng)


def write(folder: Path, count: int) -> None:
    """Renders `count` cases of each task."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.jsonl").open("w") as out:
        for task in MAKERS:
            for i in range(count):
                example = case(task, i)
                names = []
                for n, canvas in enumerate(example.canvases):
                    names.append(f"{task}{i:03}_{n}.png")
                    canvas.image.save(folder / names[-1])
                line = {
                    "task": task, "images": names, "question": example.question,
                    "answer": example.answer, "facts": example.facts,
                }
                print(json.dumps(line, ensure_ascii=False), file=out)


def distance(a: str, b: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
    return row[-1]


def right(answer: str, wanted: str | None, form: bool = False) -> bool:
    """Whether the answer names everything right; the wording is fixed, so that is equality. None: it has to decline; `form`: both are JSON."""
    if wanted is None:
        return answer.strip() in DECLINES
    if form:
        try:
            return json.loads(answer) == json.loads(wanted)
        except json.JSONDecodeError:
            return False
    return answer.strip() == wanted.strip()


def letters(answer: str, task: str) -> str:
    """What an answer copied from its picture: a cover's title and author, all of a text."""
    if task != "cover":
        return answer.strip()
    found = COVER.match(answer.strip())
    return "\n".join(found.groups()) if found else ""


def score(cases: list[dict], answers: list[list[str]]) -> dict[str, dict[str, float]]:
    """Per task, and per part of a task where cases tell their part: share of right answers; the character error of covers and texts."""
    table: dict[str, dict[str, float]] = defaultdict(lambda: {"cases": 0, "right": 0})
    errors: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for case, given in zip(cases, answers, strict=True):
        rows = [case["task"]] + ([f"{case['task']}/{case['of']}"] if "of" in case else [])
        for turn, answer in zip(turns_of(case), given, strict=True):
            for row in rows:
                table[row]["cases"] += 1
                table[row]["right"] += right(answer, turn["answer"], "schema" in case)
            if case["task"] in SPELLED:
                wanted = letters(turn["answer"], case["task"])
                errors[case["task"]][0] += distance(letters(answer, case["task"]), wanted)
                errors[case["task"]][1] += len(wanted)
    for task, row in table.items():
        row["share"] = round(row["right"] / row["cases"], 4)
        if task in errors:
            row["character_error"] = round(errors[task][0] / errors[task][1], 4)
    return table


class TorchAnswerer:
    """Greedy answers of the plain-torch model at num_crops 1, to cases of one turn."""

    def __init__(self, model: Phi3V) -> None:
        self.model = model

    def answers(self, case: dict, folder: Path) -> list[str]:
        """The answer to a case, in a list."""
        if len(turns_of(case)) > 1 or {"system", "schema", "detail"} & set(case):
            raise ValueError("the plain-torch model takes one question; ask a binary instead")
        return [self.answer([folder / name for name in case["images"]], case["question"])]

    @torch.no_grad()
    def answer(self, images: list[Path], question: str, most: int = 120) -> str:
        """The answer to a question about pictures."""
        pictures = None
        if images:
            tiles = [to_tile(Canvas(Image.open(p).convert("RGB")))[0] for p in images]
            features = self.model.tower(patches_of(torch.from_numpy(np.stack(tiles))))
            pictures = self.model.model.vision_embed_tokens(features).flatten(0, 1)
        ids: list[int] = []
        for n, chunk in enumerate(prompt_chunks(question, len(images))):
            ids += [-n] * LONG_ROWS if n else []
            ids += chunk
        start = len(ids)
        while len(ids) - start < most:
            x = self.model.embed(torch.tensor([ids]), pictures)
            hidden, _ = self.model.decode(x, torch.arange(len(ids)), len(ids) - 1)
            ids.append(int(self.model.lm_head(hidden[0, -1]).argmax()))
            if ids[-1] == end_id():
                break
        return tokenizer().decode(ids[start:])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="render the cases into this folder")
    parser.add_argument("--count", type=int, default=300, help="cases of each task")
    parser.add_argument("--cases", type=Path, help="folder with rendered cases")
    parser.add_argument("--binary", help="phi3v binary to ask")
    parser.add_argument("--state", type=Path, help="stage3.pt or stage2.pt for the plain-torch model")
    parser.add_argument("--every", type=int, default=1, help="ask only every so-manyth case")
    parser.add_argument("--answers", type=Path, help="keep the answers in this JSON lines file")
    parser.add_argument("more", nargs="*", help="further arguments for phi3v serve, after --")
    args = parser.parse_args()
    if args.cases and not (args.binary or args.state):
        parser.error("--cases needs --binary or --state")
    if args.write:
        write(args.write, args.count)
    if not args.cases:
        return
    cases = [json.loads(line) for line in (args.cases / "cases.jsonl").read_text().splitlines()][:: args.every]
    if args.binary:
        with Served(args.binary, args.more) as served:
            answers = ask_all(served, cases, args)
    else:
        answers = ask_all(TorchAnswerer(load_student(args.state)), cases, args)
    table = score(cases, answers)
    for task, row in table.items():
        print(f"{task:28} {json.dumps(row)}" + (f" target {TARGETS[task]}" if set(table) == set(TARGETS) else ""))


def ask_all(asked: Served | TorchAnswerer, cases: list[dict], args: argparse.Namespace) -> list[list[str]]:
    """All answers of all cases, kept in a file if wanted."""
    if args.answers:
        args.answers.unlink(missing_ok=True)
    answers = []
    for case in cases:
        answers.append(asked.answers(case, args.cases))
        if args.answers:
            with args.answers.open("a") as out:
                print(json.dumps({**case, "got": answers[-1]}, ensure_ascii=False), file=out)
    return answers


if __name__ == "__main__":
    main()
