"""What the GPU trains on: every kind of block is rendered, and the whole model's losses of it are numbers (here on a processor)."""

from __future__ import annotations

import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from gpu.feeds import KINDS, PAGE, Wide
from gpu.render import BLOCK, Orders, parts_of, render
from gpu.run import MIX, Optimizer, Plan, Rows, Run, Whole
from network.model import GRID
from stages.stage2 import trained

DEMO = Path(__file__).resolve().parents[2] / "crates/phi3v/src/demo"


def block(kind, feed) -> list[torch.Tensor]:
    """A rendered block."""
    parts = parts_of(np.zeros(BLOCK, np.uint8), kind)
    render(feed, kind, parts, 1.0)
    return [torch.from_numpy(part) for part in parts]


class Blocks(unittest.TestCase):
    def test_every_kind_can_be_trained_on(self) -> None:
        torch.manual_seed(1)
        feed = Orders(MIX, True, False, 0).feed(3)
        self.assertIsInstance(feed, Wide)
        stock = SimpleNamespace(device=torch.device("cpu"), mixed=lambda: torch.autocast("cpu", torch.bfloat16))
        whole = Whole(None, stock, DEMO)
        seen = []
        for kind in (replace(k, count=2) for k in KINDS if k is not PAGE):
            tiles, records = block(kind, feed)
            features = torch.randn(2, kind.tiles, GRID * GRID, 128) if kind.tiles else None
            self.assertEqual(tiles.any().item(), kind.tiles > 0)
            with stock.mixed():
                losses = whole.losses(Rows(kind, records, features), kind.name in ("one", "two"))
            self.assertTrue(all(loss.isfinite() for loss in losses))
            seen.append(kind.name)
        sum(losses).backward()
        self.assertEqual(len(seen), len(KINDS) - 1)

    def test_pages_are_wide(self) -> None:
        _, marks, tables = block(PAGE, Orders(MIX, True, False, 0).feed(4))
        self.assertTrue(marks.flatten(1).any(1).all() and tables.any())

    def test_a_stopped_run_goes_on(self) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(Path(folder), 1.0, 4, 1e-3, 1, 0.01, True, DEMO)
            stock = SimpleNamespace(device=torch.device("cpu"))
            model = Whole(None, stock, DEMO).model
            optimizer, run = Optimizer(model, trained(model)), Run(plan)
            self.assertEqual((run.part, run.saved), (0, {}))
            sum(p.square().sum() for p in model.parameters()).backward()
            optimizer.step(1e-3)
            run.save(2, optimizer)
            run.log.close()
            other = Whole(None, stock, DEMO).model
            again, later = Optimizer(other, trained(other)), Run(plan)
            later.load(2, again)
            later.log.close()
            self.assertEqual((later.part, again.steps), (2, 1))
            for a, b in zip(model.parameters(), other.parameters(), strict=True):
                self.assertTrue(torch.equal(a, b))
            self.assertTrue(torch.equal(optimizer.second, again.second))


if __name__ == "__main__":
    unittest.main()
