"""The held-out cases: they come out the same again, and nothing in them was trained on."""

from __future__ import annotations

import json
import random
import tempfile
import unittest
from pathlib import Path

import numpy as np

from asking import turns_of
from certainty import Judged, area, chosen, judged, table
from drawing.canvas import FONTS
from drawing.faces import FACES as TRAINED
from drawing.questions import CHART, COVER, HELD, PAIR, PLAIN, TEXT, about_anything
from drawing.words import COMMON, FIRST_NAMES
from evaluate import right, score
from heldout import words
from heldout.cases import SETS, write
from heldout.charts import Chart, near, plausible
from heldout.paint import FACES
from heldout.scenes import pair, shapes
from samples.tokens import DECLINE


class Cases(unittest.TestCase):
    def test_a_seed_writes_the_same_cases(self) -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            for folder in (one, two):
                write(Path(folder), 1, 7)
            files = sorted(p.relative_to(one) for p in Path(one).rglob("*.*"))
            self.assertGreater(len(files), 20)
            for file in files:
                self.assertEqual((Path(one) / file).read_bytes(), (Path(two) / file).read_bytes(), file)
            for name, kinds in SETS.items():
                rows = [json.loads(line) for line in (Path(one) / name / "cases.jsonl").read_text().splitlines()]
                self.assertEqual([row["task"] for row in rows], list(kinds))
                for image in (image for row in rows for turn in turns_of(row) for image in turn["images"]):
                    self.assertTrue((Path(one) / name / image).exists())

    def test_nothing_was_trained_on(self) -> None:
        self.assertFalse(set(words.WORDS) & set(COMMON))
        self.assertFalse(set(words.FIRST) & set(FIRST_NAMES))
        trained = {question.lower().rstrip("?.!") for question in (*COVER, *CHART, *PAIR, *TEXT, *PLAIN, *HELD)}
        asked = [*words.OPEN, *words.GREETINGS, *words.CHATTER, *(q for some in words.WORDINGS.values() for q in some)]
        self.assertFalse([question for question in asked if question.lower().rstrip("?.!") in trained])
        rng = random.Random(5)
        made = {about_anything(rng).lower().rstrip("?") for _ in range(20_000)}
        self.assertFalse([question for question in (*asked, *HELD) if question.lower().rstrip("?.!") in made])
        families = {face.family.replace(" ", "").lower() for face in FACES}
        self.assertFalse([face for face in (*FONTS, *TRAINED) for family in families if family in face.lower()])

    def test_labels_of_a_chart_differ(self) -> None:
        for seed in range(60):
            for make in (near, plausible):
                labels = make(random.Random(seed))[1].labels
                self.assertEqual(len(set(labels)), len(labels))

    def test_twenty_faces_differ(self) -> None:
        self.assertEqual(len({face.name for face in FACES}), 20)

    def test_so_many_shapes_stand_apart(self) -> None:
        picture = shapes(random.Random(3), 4, "red", "circle", True)
        red = (picture[..., 0].astype(int) - picture[..., 1] > 100)
        starts = np.diff(red.any(0).astype(int), prepend=0) == 1
        self.assertTrue(1 <= starts.sum() <= 4)
        self.assertGreater(red.mean(), 0.05)

    def test_what_is_said_of_a_pair_and_of_a_chart(self) -> None:
        _, answer = pair(random.Random(2), True)
        self.assertRegex(answer, r"^First picture: \d \w+ \w+; second picture: \d \w+ \w+\. They (differ in .*|look the same)\.$")
        chart = Chart(True, "Oak", ["a", "b", "c"], [3.0, 9.0, 5.0], ["3%", "9%", "5%"])
        wanted = 'A bar chart titled "Oak". It starts at a (3%) and ends at c (5%). The lowest is a (3%) and the highest is b (9%). It is rising.'
        self.assertEqual(chart.answer, wanted)


class Scores(unittest.TestCase):
    def test_answers_are_judged_by_what_was_wanted(self) -> None:
        self.assertTrue(right(" Oak\n", "Oak"))
        self.assertFalse(right("Oaks", "Oak"))
        self.assertFalse(right("Oak", None))
        self.assertTrue(right("I am the small built-in demo model and can only read covers, charts, large text and simple shapes.", None))
        self.assertTrue(right('{"a": 1, "b": 2}', '{"b":2,"a":1}', form=True))
        self.assertFalse(right('{"a": 1', '{"a":1}', form=True))

    def test_turns_and_parts_are_counted(self) -> None:
        case = {"task": "talk", "of": "two", "answer": "x", "images": [], "question": "?", "turns": [{"answer": "y", "images": [], "question": "?"}]}
        table = score([case], [["x", "z"]])
        self.assertEqual((table["talk"]["cases"], table["talk"]["right"], table["talk/two"]["share"]), (2, 1, 0.5))


class Certainty(unittest.TestCase):
    def test_words_are_right_where_the_wanted_answer_has_them(self) -> None:
        said = [{"text": word, "p": 0.5} for word in "Open 1fouse now".split()]
        self.assertEqual([one.right for one in judged(said, "Open House now")], [True, False, True])
        self.assertEqual([one.right for one in judged(said, None)], [False] * 3)
        declined = [{"text": word, "p": 0.5} for word in DECLINE.split()]
        self.assertTrue(all(one.right for one in judged(declined, None)))

    def test_a_threshold_marks_few_right_words(self) -> None:
        some = [Judged(True, 0.99)] * 96 + [Judged(True, 0.82)] * 4 + [Judged(True, 0.88)] * 2 + [Judged(False, 0.84)] * 5
        self.assertEqual(chosen(table(some)), 0.85)
        self.assertEqual([row["found"] for row in table(some) if row["below"] == 0.85], [1.0])
        self.assertAlmostEqual(area(some), 98 / 102)


if __name__ == "__main__":
    unittest.main()
