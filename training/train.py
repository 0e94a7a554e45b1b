"""Trains the demo checkpoint: pages, tower, answers, export. One command.

    python training/train.py --work /tmp/demo --out crates/phi3v/src/demo [--gpu] [--wide] [--start FOLDER]

On two processors times are minutes of each core. With --gpu it takes nine minutes on one NVIDIA GPU. If it was stopped, run it again with the same
--work: it goes on from the last save (stage 3 on processors from its start). With --start it trains a finished checkpoint further: on processors its
decoder, --tune-minutes long, on a GPU everything. --wide draws pictures as users bring them (on processors only with --start, whose tower learns
to read them first, --tower-minutes long).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# One thread a worker; freed memory is kept, for fresh pages cost more than the sums made on them.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
}


def step(module: str, *arguments: str) -> None:
    """Runs one module of this folder and stops on failure."""
    command = [sys.executable, "-m", module, *arguments]
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run(command, check=True, env={**os.environ, **SETTINGS, "PYTHONPATH": str(HERE)})


PLAIN = 0.53  # of the minutes of stage 1 without attention


def tower(work: Path, minutes: float, pages: int) -> None:
    """Stage 1 in two parts with `stages/strengthen.py` between; in the second the heads attend as they do in use."""
    plain, state = work / "stage1_plain.pt", work / "stage1.pt"
    told = ("--work", str(work), "--pages", str(pages))
    if not plain.exists():
        step("stages.stage1", *told, "--minutes", str(round(PLAIN * minutes, 2)))
        state.rename(plain)
    if not state.exists():
        step("stages.strengthen", str(work), str(plain), str(state))
    step("stages.stage1", *told, "--minutes", str(minutes), "--attend")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for pages, states and logs (1 GB)")
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint goes")
    parser.add_argument("--stage1-minutes", type=float, default=25)
    parser.add_argument("--stage2-minutes", type=float, default=96)
    parser.add_argument("--stage3-minutes", type=float, default=8)
    parser.add_argument("--start", type=Path, help="a checkpoint folder to begin from")
    parser.add_argument("--tower-minutes", type=float, default=35, help="with --start and --wide on processors")
    parser.add_argument("--tune-minutes", type=float, default=60, help="with --start on processors")
    parser.add_argument("--peak", type=float, default=4e-4, help="highest learning rate with --start on processors")
    parser.add_argument("--teacher", type=Path, help="the checkpoint that --start was trained from: what it says is kept, and it is averaged with")
    parser.add_argument("--share", type=float, default=0.8, help="of the tuned weights in what comes out")
    parser.add_argument("--workers", type=int, default=2, help="processes with --start on processors")
    parser.add_argument("--wide", action="store_true", help="pictures as users bring them")
    parser.add_argument("--gpu", action="store_true", help="all stages on one GPU, in --gpu-minutes")
    parser.add_argument("--gpu-minutes", type=float, default=8.85)
    parser.add_argument("--pages", type=int, default=1500, help="of stage 1 on two processors; three times as many wide pictures for --tower-minutes")
    args = parser.parse_args()
    if args.wide and not (args.gpu or args.start):
        parser.error("--wide on processors needs --start: two cores do not see enough to learn wide pictures from nothing")
    if args.teacher and (args.gpu or not args.start):
        parser.error("--teacher needs --start on processors")
    teacher = args.teacher or args.start
    more = [*(("--start", str(args.start)) if args.start else ()), *(("--wide",) if args.wide else ())]
    if args.gpu:
        step("gpu.run", "--work", str(args.work), "--minutes", str(args.gpu_minutes), *more)
    elif args.start:
        further(args, teacher)
    else:
        on_processors(args)
    if args.start and not args.gpu:
        step("stages.export", str(args.work / "mean.pt"), str(args.out), "--start", str(teacher), "--share", str(args.share))
    else:
        step("stages.export", str(args.work / "stage3.pt"), str(args.out))
    step("curves", str(args.work), str(args.work / "curves.png"))


def further(args: argparse.Namespace, teacher: Path) -> None:
    """A finished checkpoint on processors: its tower if pictures are wide, then its decoder."""
    told, start = ("--work", str(args.work), "--workers", str(args.workers)), args.start
    if args.wide:
        seeing = args.work / "seeing"
        if not (seeing / "model.safetensors").exists():
            times = ("--minutes", str(args.tower_minutes), "--pages", str(3 * args.pages))
            step("stages.widen", *told, "--start", str(start), "--out", str(seeing), *times)
        start = seeing
    wide = ("--wide",) if args.wide else ()
    times = ("--minutes", str(args.tune_minutes), "--peak", str(args.peak))
    step("stages.tune", *told, "--start", str(start), "--teacher", str(teacher), *times, *wide)


def on_processors(args: argparse.Namespace) -> None:
    """All stages on two processors."""
    tower(args.work, args.stage1_minutes, args.pages)
    step("stages.stage2", "--work", str(args.work), "--minutes", str(args.stage2_minutes))
    step("stages.crops", "--work", str(args.work), "--minutes", str(args.stage3_minutes))


if __name__ == "__main__":
    main()
