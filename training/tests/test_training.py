"""What training is made of holds together: drawing, the optimizer, and the whole command on a small scale."""

from __future__ import annotations

import json
import random
import runpy
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import torch
import torch.multiprocessing as mp
from safetensors import safe_open
from torch import nn

import train
from drawing.tasks import MAKERS
from network.model import GRID, PATCH, Config, Phi3V, patches_of
from network.rounding import coarse, q4
from optim.update import CLIP, Update, fill, flat, orthogonal
from samples.dataset import collate, sample, vocab_size
from stages.grow import grown
from stages.rounded import Batches, curvatures, matrices, rounded
from stages.start import from_folder

HERE = Path(__file__).resolve().parents[1]
DEMO = HERE.parent / "crates/phi3v/src/demo"


def exported(checkpoint: safe_open, name: str) -> torch.Tensor:
    """A checkpoint's tensor as it is after nothing was learnt."""
    return coarse(checkpoint.get_tensor(name).float()).bfloat16()


class Drawing(unittest.TestCase):
    def test_a_seed_draws_the_same_example(self) -> None:
        for task, make in MAKERS.items():
            first, second = (make(random.Random(f"test {task}")) for _ in range(2))
            self.assertEqual(first.answer, second.answer)
            for a, b in zip(first.canvases, second.canvases, strict=True):
                self.assertEqual(a.image.tobytes(), b.image.tobytes())

    def test_a_batch_holds_each_answer(self) -> None:
        rng = random.Random(7)
        batch = collate([sample("cover", rng) for _ in range(3)], True)
        self.assertEqual(len(batch.ids), 3)
        self.assertTrue(bool((batch.targets >= 0).any(1).all()))


class Growing(unittest.TestCase):
    def test_a_grown_tower_tells_what_it_told(self) -> None:
        tower = from_folder(DEMO).phi.tower
        layers = tower.encoder.layers
        tower.encoder.layers = nn.ModuleList((*layers[:2], layers[-2], layers[-1]))
        side = GRID * PATCH
        pixels = torch.randint(0, 256, (2, side, side, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        with torch.no_grad():
            told = tower.pre_layrnorm(tower.embeddings(patches_of(pixels), torch.arange(GRID * GRID).expand(2, -1)))
            for layer in tower.encoder.layers[:-1]:
                told = layer(told)
            self.assertEqual(len(grown(tower).encoder.layers), len(layers))
            self.assertTrue(torch.equal(tower(patches_of(pixels)), told[:, 1:]))

    def test_coarse_numbers_are_bf16_without_the_last_four_bits(self) -> None:
        x = torch.randn(1000, generator=torch.Generator().manual_seed(2))
        rounded = coarse(x)
        self.assertFalse(bool((rounded.bfloat16().view(torch.int16) & 15).any()))
        self.assertTrue(torch.equal(rounded.bfloat16().float(), rounded))
        self.assertLessEqual(float(((rounded - x) / x).abs().max()), 1 / 16)
        self.assertEqual(coarse(torch.tensor([0.0, 1.0, 1.0625, -1.07])).tolist(), [0.0, 1.0, 1.125, -1.125])


class Optimizing(unittest.TestCase):
    def test_orthogonal_matrices_keep_lengths(self) -> None:
        torch.manual_seed(1)
        made = orthogonal(torch.randn(2, 16, 48))
        lengths = torch.linalg.svdvals(made)
        self.assertTrue(bool(((lengths > 0.6) & (lengths < 1.4)).all()), lengths)

    def test_steps_lower_a_loss_and_leave_resting_weights(self) -> None:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        moving = torch.cat([torch.full((p.numel(),), float("2" in n)) for n, p in model.named_parameters()])
        x, y = torch.randn(64, 8), torch.randn(64, 1)
        update, weights = Update(model, moving), flat(model)
        first, second, losses, before = torch.zeros_like(weights), torch.zeros_like(weights), [], weights.clone()
        for count in range(1, 60):
            fill(model, weights)
            model.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            losses.append(loss.item())
            grad = torch.cat([p.grad.flatten() for p in model.parameters()])
            grad *= min(1.0, CLIP / float(grad.norm()))
            step, momentum = update.moments(grad, first, second, count)
            update.matrices(momentum, step)
            update.apply(weights, step, 0.02)
        self.assertLess(losses[-1], 0.9 * losses[0])
        self.assertTrue(torch.equal(weights[moving == 0], before[moving == 0]))

    def test_q4_is_close_and_rounded_twice_the_same(self) -> None:
        torch.manual_seed(1)
        weight = torch.randn(4, 256)
        once = q4(weight)
        self.assertLess(float((once - weight).norm() / weight.norm()), 0.12)
        self.assertLess(float((q4(once) - once).norm() / once.norm()), 0.02)

    def test_rounding_by_columns_keeps_products_better_than_to_the_nearest(self) -> None:
        torch.manual_seed(1)
        weight, mixed_by = torch.randn(24, 64), torch.randn(64, 64)
        x = torch.randn(500, 64) @ mixed_by  # columns that go together
        made = rounded(weight, x.T @ x)
        self.assertTrue(torch.equal(coarse(made), made))
        wanted, (by_columns, nearest) = x @ weight.T, (float((x @ (w - weight).T).norm()) for w in (made, coarse(weight)))
        self.assertLess(by_columns, 0.7 * nearest)
        self.assertLess(by_columns, 0.05 * float(wanted.norm()))
        # where no column tells of another, there is nothing to make up for
        self.assertTrue(torch.equal(rounded(weight, torch.eye(64)), coarse(weight)))

    def test_what_is_rounded_is_the_decoder(self) -> None:
        student = from_folder(DEMO)
        names = [name for name, _ in matrices(student)]
        self.assertEqual(len(names), 4 * student.phi.config.num_hidden_layers + 1)
        found = curvatures(student, Batches(student, 3), 1)
        self.assertEqual(list(found), names)
        for (name, m), curvature in zip(matrices(student), found.values(), strict=True):
            self.assertEqual(curvature.shape, (m.in_features, m.in_features))
            self.assertGreater(float(curvature.diagonal().min()), 0, name)
            self.assertLessEqual(float((curvature - curvature.T).abs().max()), 1e-4 * float(curvature.abs().max()), name)


def stage(module: str, arguments: tuple[str, ...]) -> None:
    """What `python -m module` does, in this process."""
    torch.set_num_threads(1)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def forked(module: str, *arguments: str) -> None:
    """`train.step` in a copy of this process: a new one imports torch anew, which takes most of the seconds of a short stage."""
    job = mp.get_context("fork").Process(target=stage, args=(module, arguments))
    job.start()
    job.join()
    if job.exitcode:
        raise RuntimeError(f"{module} failed; its traceback is above")


def trained(*arguments: object) -> None:
    """The whole command, with its stages forked where a fork of this process can train: not on Windows, and not with a card."""
    can_fork = "fork" in mp.get_all_start_methods() and not torch.cuda.is_available()
    step = forked if can_fork else train.step
    with patch.object(sys, "argv", ["train.py", *map(str, arguments)]), patch.object(train, "step", step):
        train.main()


class Whole(unittest.TestCase):
    def test_train_writes_a_checkpoint_with_every_tensor(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            work, out = Path(folder, "work"), Path(folder, "out")
            minutes = ("--stage1-minutes", "0.1", "--stage2-minutes", "0.1", "--stage3-minutes", "0.05")
            trained("--work", work, "--out", out, "--pages", "16", *minutes)
            config = json.loads((out / "config.json").read_text())
            self.assertEqual(config["vocab_size"], vocab_size())
            with safe_open(out / "model.safetensors", "pt") as tensors:
                self.assertEqual(set(tensors.keys()), set(Phi3V(Config(vocab_size())).state_dict()))
            self.assertTrue((work / "curves.png").exists())

    def test_train_goes_on_from_a_checkpoint(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            work, out = Path(folder, "work"), Path(folder, "out")
            command = ["--work", work, "--out", out, "--start", DEMO, "--workers", "1", "--tune-minutes"]
            subprocess.run([sys.executable, HERE / "train.py", *command, "0.03"], check=True)
            trained(*command, "0.12")  # goes on from the first
            steps = [json.loads(line)["step"] for line in (work / "tune.jsonl").read_text().splitlines()]
            self.assertLess(0, steps[0])
            self.assertLess(steps[0], steps[-1])
            with safe_open(out / "model.safetensors", "pt") as new, safe_open(DEMO / "model.safetensors", "pt") as old:
                tower = "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.0.mlp.fc1.weight"
                projector = "model.vision_embed_tokens.img_projection.0.weight"
                for name in (tower, projector):
                    self.assertTrue(torch.equal(new.get_tensor(name), exported(old, name)))
                decoder = "model.layers.0.mlp.down_proj.weight"
                self.assertFalse(torch.equal(new.get_tensor(decoder), exported(old, decoder)))
            self.assertTrue((work / "curves.png").exists())

    def test_a_checkpoint_learns_to_see_wide_pictures(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            work, out = Path(folder, "work"), Path(folder, "out")
            minutes = ("--tower-minutes", "0.2", "--tune-minutes", "0.03", "--pages", "6")
            trained("--wide", "--start", DEMO, "--work", work, "--out", out, "--workers", "1", "--share", "1", *minutes)
            seeing = work / "seeing"
            with (
                safe_open(DEMO / "model.safetensors", "pt") as old,
                safe_open(seeing / "model.safetensors", "pt") as seen,
                safe_open(out / "model.safetensors", "pt") as new,
            ):
                tower = "model.vision_embed_tokens.img_processor.vision_model."
                written, held = (f"{tower}encoder.layers.0.{name}.weight" for name in ("mlp.fc1", "self_attn.q_proj"))
                self.assertFalse(torch.equal(exported(old, written), seen.get_tensor(written)))
                self.assertTrue(torch.equal(exported(old, held), seen.get_tensor(held)))
                self.assertTrue(torch.equal(seen.get_tensor(written), new.get_tensor(written)))
                decoder = "model.layers.0.mlp.down_proj.weight"
                self.assertTrue(torch.equal(exported(old, decoder), seen.get_tensor(decoder)))
                self.assertFalse(torch.equal(seen.get_tensor(decoder), new.get_tensor(decoder)))


if __name__ == "__main__":
    unittest.main()
