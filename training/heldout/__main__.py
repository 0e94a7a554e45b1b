"""python -m heldout --write DIR: renders the held-out cases (training/README.md)."""

from __future__ import annotations

import argparse
from pathlib import Path

from heldout.cases import write

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, required=True, help="folder for near/ and plausible/")
    parser.add_argument("--count", type=int, default=44, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write(args.write, args.count, args.seed)
