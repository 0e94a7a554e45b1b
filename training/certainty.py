"""Below which probability a word is to be called unsure: how many right and wrong words of held-out answers lie below each.

    certainty.py --binary phi3v --cases DIR [DIR ...] [-- further arguments for phi3v serve]

A word is right where it stands in the wanted answer at its place; an answer where the model had to decline has no right word, unless
it declines. An answer is taken as its least sure word. The threshold told is the largest below which at most FALSE_ALARMS of the right
ones lie; `phi3v::words::SURE_MIN` is the lower of those of words on the two sets of `heldout`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from asking import Served, turns_of
from evaluate import right
from samples.tokens import DECLINES

THRESHOLDS = tuple(step / 20 for step in range(4, 20))  # 0.2 to 0.95
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Judged:
    """A word or an answer: whether it is right, and how sure the model was of it."""

    right: bool
    p: float


def judged(words: list[dict], wanted: str | None) -> list[Judged]:
    """The words of an answer to which `wanted` is the right one, None to decline."""
    said = [word["text"] for word in words]
    if wanted is None:
        known = [" ".join(said) in DECLINES] * len(said)
    else:
        known = [False] * len(said)
        for start, _, size in SequenceMatcher(None, said, wanted.split(), autojunk=False).get_matching_blocks():
            known[start : start + size] = [True] * size
    return [Judged(good, word["p"]) for good, word in zip(known, words, strict=True)]


def table(all_of: list[Judged]) -> list[dict[str, float]]:
    """For each threshold: the share of right ones below (false alarms), of wrong ones below (found), and what these come to (F1)."""
    good, bad = ([one.p for one in all_of if one.right is which] for which in (True, False))
    rows = []
    for threshold in THRESHOLDS:
        alarms, found = (sum(p < threshold for p in of) for of in (good, bad))
        f1 = 2 * found / max(1, found + alarms + len(bad))
        rows.append({"below": threshold, "false_alarms": alarms / max(1, len(good)), "found": found / max(1, len(bad)), "f1": f1})
    return rows


def chosen(rows: list[dict[str, float]]) -> float:
    """The largest threshold with at most FALSE_ALARMS, or the least of all."""
    return max((row["below"] for row in rows if row["false_alarms"] <= FALSE_ALARMS), default=THRESHOLDS[0])


def area(all_of: list[Judged]) -> float:
    """The part of pairs of a right and a wrong one in which the right one is the surer."""
    good, bad = ([one.p for one in all_of if one.right is which] for which in (True, False))
    won = sum((a > b) + (a == b) / 2 for a in good for b in bad)
    return won / max(1, len(good) * len(bad))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--cases", type=Path, nargs="+", required=True, help="folders with cases.jsonl")
    parser.add_argument("--every", type=int, default=1, help="ask only every so-manyth case")
    parser.add_argument("more", nargs="*", help="further arguments for phi3v serve, after --")
    args = parser.parse_args()
    for folder in args.cases:
        words, answers = asked(args, folder)
        for name, all_of in (("words", words), ("answers", answers)):
            wrong, rows = sum(not one.right for one in all_of), table(all_of)
            print(f"{folder.name}: {len(all_of)} {name}, {wrong} wrong, area under the curve {area(all_of):.3f}; threshold {chosen(rows)}")
            for row in rows:
                print("  " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))


def asked(args: argparse.Namespace, folder: Path) -> tuple[list[Judged], list[Judged]]:
    """The words, and the answers with the least sure word of each, of all cases that want text."""
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()][:: args.every]
    words, answers = [], []
    with Served(args.binary, args.more) as served:
        for case in (case for case in cases if "schema" not in case):
            for turn, choice in zip(turns_of(case), served.choices(case, folder, include=["words"]), strict=True):
                found = judged(choice["words"], turn["answer"])
                words += found
                answers.append(Judged(right(choice["message"]["content"], turn["answer"]), min((one.p for one in found), default=1.0)))
    return words, answers


if __name__ == "__main__":
    main()
