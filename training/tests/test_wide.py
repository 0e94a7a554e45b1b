"""Wide pictures and prompts: what is drawn is what is answered, marks move with the picture, and prompts are those of the processor."""

from __future__ import annotations

import json
import random
import unittest
from pathlib import Path

import numpy as np
import torch

from drawing import wider
from drawing.canvas import FONT_ROOT, Canvas, font
from drawing.example import Example
from drawing.faces import FACES
from drawing.pages import page
from drawing.prompts import KINDS, prompt
from drawing.talks import MOST_PICTURES, conversation
from drawing.wear import textured, warped, worn
from drawing.wordings import GREETINGS, OPEN, SYSTEMS, TEMPLATES, all_wordings
from heldout import words
from network.model import MERGED
from samples.dataset import (
    CELL,
    FIELDS,
    FINE,
    FOUR_CROPS,
    LONG_ROWS,
    SHORT_ROWS,
    SIZES,
    SUB,
    TEXT,
    Shape,
    assemble,
    collate,
    guides_of,
    places_of,
    prepare,
    row_of,
    tokenizer,
)
from samples.feed import GROUPS, SHARES, Prompts
from samples.tokens import DECLINE, DECLINES, MISSING, UNREADABLE
from stages.stage2 import held_out, right_of
from stages.start import from_folder, pieces_of

DEMO = Path(__file__).resolve().parents[2] / "crates/phi3v/src/demo"
PICTURES = {"cover": wider.cover, "chart": wider.chart, "text": wider.text, "sign": wider.sign, "receipt": wider.receipt}


def copied(example: Example) -> list[tuple[str, str]]:
    """Each copied character of an answer, and what its mark says."""
    found = []
    for text, pointer in example.parts:
        if pointer is not None and len(pointer.marks) == len(text):
            marks = example.canvases[pointer.image].marks
            found += [(char, marks[m].what) for char, m in zip(text, pointer.marks, strict=True)]
    return found


class Pictures(unittest.TestCase):
    def test_answers_are_copied_from_what_is_drawn(self) -> None:
        for name, make in PICTURES.items():
            for seed in range(8):
                example = make(random.Random(f"{name} {seed}"))
                pairs = copied(example)
                self.assertGreater(len(pairs), 0)
                for char, drawn in pairs:  # what joins lines and columns points at the character that follows it
                    self.assertTrue(char == drawn or char in " \n", (name, seed, example.answer))

    def test_a_seed_draws_the_same(self) -> None:
        for kind in KINDS:
            one, two = (prompt(random.Random(f"same {kind}"), wider.wide_source, kind, 1) for _ in range(2))
            self.assertEqual((one.question, one.answer, one.system), (two.question, two.answer, two.system))
            self.assertEqual([c.image.tobytes() for c in one.canvases], [c.image.tobytes() for c in two.canvases])

    def test_marks_move_with_the_picture(self) -> None:
        canvas = Canvas.blank(400, 300, (255, 255, 255))
        canvas.shape("circle", "black", (90, 80), 40, (0, 0, 0))
        for seed in range(6):
            moved = warped(random.Random(seed), canvas, 5, 0.02)
            y, x = np.nonzero(np.asarray(moved.image)[..., 0] < 128)
            x0, y0, x1, y1 = moved.marks[0].box
            self.assertLess(abs(x.mean() - (x0 + x1) / 2) + abs(y.mean() - (y0 + y1) / 2), 2)
            self.assertNotEqual(moved.marks[0].box, canvas.marks[0].box)

    def test_wear_and_textures_keep_the_size_and_the_contrast(self) -> None:
        for seed in range(12):
            rng = random.Random(seed)
            canvas = Canvas.blank(200, 150, (240, 240, 240))
            textured(rng, canvas, (0, 0, 0))
            self.assertGreater(np.asarray(canvas.image).mean(), 120)
            self.assertEqual(worn(rng, canvas).image.size, (200, 150))

    def test_slanted_labels_stand_where_they_are_marked(self) -> None:
        canvas = Canvas.blank(300, 300, (255, 255, 255))
        canvas.slanted((200, 100), "....H", font(FACES[0], 30), (0, 0, 0), 45)
        x0, y0, x1, y1 = canvas.marks[-1].box
        there = np.asarray(canvas.image)[round(y0) : round(y1), round(x0) : round(x1), 0]
        self.assertLess(there.min(), 60)
        self.assertGreater((there < 128).sum(), 0.5 * (np.asarray(canvas.image)[..., 0] < 128).sum())

    def test_faces_are_there_and_of_all_kinds(self) -> None:
        self.assertGreaterEqual(len(set(FACES)), 20)
        self.assertFalse([face for face in FACES if not (FONT_ROOT / face).exists()])

    def test_wide_pages_have_small_and_large_letters(self) -> None:
        heights = [m.box[3] - m.box[1] for seed in range(6) for m in page(random.Random(seed), True)[1] if m.line >= 0]
        self.assertLess(min(heights), 14)
        self.assertGreater(max(heights), 50)


class Questions(unittest.TestCase):
    def test_there_are_hundreds_and_none_of_the_held_out_ones(self) -> None:
        held = {q.lower().rstrip("?.!") for q in (*words.OPEN, *words.GREETINGS, *words.SYSTEMS, *(q for w in words.WORDINGS.values() for q in w))}
        for task in TEMPLATES:
            asked = {q.lower().rstrip("?.!") for q in all_wordings(task)}
            self.assertGreater(len(asked), 300, task)
            self.assertFalse(asked & held)
        self.assertFalse({q.lower().rstrip("?.!") for q in (*OPEN, *GREETINGS, *SYSTEMS)} & held)

    def test_what_is_missing_is_said(self) -> None:
        said = {prompt(random.Random(seed), wider.plain_source, "missing", 1 + seed % 2).answer for seed in range(60)}
        self.assertEqual(said, {*MISSING.values(), UNREADABLE})
        self.assertTrue(said | {DECLINE} <= set(DECLINES))

    def test_forms_are_json(self) -> None:
        for seed in range(6):
            example = prompt(random.Random(seed), wider.plain_source, "form", 1)
            self.assertTrue(set(json.loads(example.answer)) in ({"title", "author"}, {"text"}))

    def test_each_way_to_decline_is_one_token(self) -> None:
        for said in DECLINES:
            ids = tokenizer().encode(said, add_special_tokens=False).ids
            self.assertEqual((len(ids), tokenizer().decode(ids)), (1, said))


class Prompting(unittest.TestCase):
    def test_a_conversation_is_written_as_the_template_says(self) -> None:
        for seed in range(6):
            example = conversation(random.Random(seed), wider.plain_source)
            found = prepare(example, False)
            self.assertLessEqual(len(found.tiles), MOST_PICTURES)
            prompt_ = f"<|system|>\n{example.system}<|end|>\n" if example.system else ""
            for turn in example.turns:
                tags = "\0\n" * len(turn.canvases)
                prompt_ += f"<|user|>\n{tags}{turn.question}<|end|>\n<|assistant|>\n{turn.answer}<|end|>\n"
            chunks = [tokenizer().encode(chunk).ids for chunk in prompt_.removesuffix("<|end|>\n").split("\0")]
            self.assertEqual(found.text, [i for chunk in chunks for i in chunk])
            self.assertEqual(found.before, list(np.cumsum([len(chunk) for chunk in chunks[:-1]])))
            self.assertEqual(len(found.said), len(example.turns))
            for said in found.said:
                self.assertEqual(said.tokens[:-1], found.text[said.begin + 1 : said.begin + len(said.tokens)][: len(said.tokens) - 1])

    def test_a_second_question_looks_at_the_first_picture(self) -> None:
        rng = random.Random(1)
        while not (example := conversation(rng, wider.plain_source)).back:
            pass
        found = prepare(example, False)
        images = {look.image for look in found.said[-1].look if look is not None}
        self.assertTrue(images <= set(range(len(found.tiles) - example.back, len(found.tiles))))

    def test_small_letters_are_read_from_the_crops(self) -> None:
        small = large = 0
        for seed in range(12):
            example = wider.small_source(random.Random(f"crops {seed}"), "text")
            found = prepare(example, False, fine=True)
            self.assertEqual(found.large[0].shape, (672, 672, 3))
            looks = [look for look in found.said[0].look if look is not None]
            spots = [spot for g in guides_of(found) for spot in g.spots if spot]
            if all(look.fine for look in looks):
                self.assertTrue(all(SUB <= spot < TEXT for spot in spots))
            small, large = small + sum(look.fine for look in looks), large + sum(not look.fine for look in looks)
        self.assertGreater(small, 20)
        self.assertGreater(large, 20)

    def test_every_row_of_a_prompt_is_filled_once(self) -> None:
        before = torch.tensor([[3, 9], [4, 5]])
        for shape in (Shape(2), Shape(2, short=True), Shape(2, long=FOUR_CROPS)):
            places = places_of(before, 20, shape)
            rows = torch.cat((places.text, places.pictures.flatten(1)), 1).sort(1).values
            self.assertTrue(torch.equal(rows, torch.arange(20 + 2 * shape.rows).expand(2, -1)))
            self.assertEqual(places.pictures[1, 1, 0], 5 + shape.rows)
            positions = places.positions
            self.assertEqual(positions[0, -1], 19 + 2 * shape.long)
            if not shape.short:
                self.assertTrue(torch.equal(positions, torch.arange(positions.shape[1]).expand(2, -1)))

    def test_what_decides_an_answer_weighs_more(self) -> None:
        for kind, leading, weight in (("decline", 1, 8), ("text", 2, 4), ("cover", 2, 4)):
            found = prepare(prompt(random.Random(f"weights {kind}"), wider.plain_source, kind, 0), False)
            at = sum(SIZES[: list(FIELDS).index("weights")]) + found.said[0].begin
            self.assertEqual(found.record[at - 1 : at + leading + 1].tolist(), [1, *[weight] * leading, 1], kind)

    def test_names_mean_the_same_cell_at_any_size(self) -> None:
        found = prepare(wider.plain_source(random.Random(4), "text"), True, fine=True)
        record = torch.from_numpy(found.record)[None]
        first = found.said[0].look[1]
        for shape in (Shape(1), Shape(1, short=True), Shape(1, long=FOUR_CROPS)):
            batch = assemble(record, shape, len(found.text))
            start = found.before[0] + shape.rows - SHORT_ROWS + 1
            self.assertEqual(int(batch.guides["read"][1][0, 0, 0]), start + int(row_of(torch.tensor(first.cells[0]))))
        self.assertEqual((CELL, SUB, FINE, LONG_ROWS), (1, 1 + 4 * MERGED**2, 24, 313))

    def test_every_group_has_samples(self) -> None:
        prompts = Prompts(random.Random(5), wider.plain_source)
        for images in GROUPS:
            batch = collate(prompts.batch(images, 2), False)
            self.assertEqual(batch.cells.shape[1], images)
            self.assertEqual(set(SHARES), set(GROUPS))


class Starting(unittest.TestCase):
    def test_a_shipped_checkpoint_answers_after_the_vocabulary_has_grown(self) -> None:
        model, old = from_folder(DEMO), pieces_of(DEMO)
        now = tokenizer().get_vocab()
        self.assertFalse(set(old) - set(now))
        self.assertGreaterEqual(right_of(model, held_out("text", 8)[:8], False)[0], 0.75)


if __name__ == "__main__":
    unittest.main()
