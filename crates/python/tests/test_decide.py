"""Decisions: the likeliest of some answers."""

import json
import math
import pickle
import subprocess
import sys

import phi3v
import pytest
from conftest import EXAMPLES

SIGN = EXAMPLES / "text.png"
READ = "What is written here?"
CHOICES = ["Fresh Bread", "No Entry", "Garden Notes"]


def test_a_decision_is_the_likeliest_choice_and_knows_the_others(demo):
    decision = demo.decide(READ, SIGN, choices=CHOICES)
    assert isinstance(decision, str) and decision == "Fresh Bread"
    assert sum(decision.probabilities.values()) == pytest.approx(1)
    assert list(decision.probabilities) == CHOICES
    assert decision.probability == max(decision.probabilities.values())
    assert decision.covered == pytest.approx(sum(math.exp(score) for score in decision.logprobs.values()))
    assert decision.usage.image_tokens == demo.tokenize_cost(SIGN).tokens
    other = pickle.loads(pickle.dumps(decision))
    assert (other, other.probabilities, type(other)) == (decision, decision.probabilities, phi3v.Decision)


def test_decisions_are_those_of_the_command_line(demo):
    command = [sys.executable, "-m", "phi3v", "decide", "--json", str(SIGN), READ, "--choices", ",".join(CHOICES)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    decision = demo.decide(READ, SIGN, choices=CHOICES)
    for theirs in told["decisions"][0]["probabilities"]:
        assert decision.logprobs[theirs["choice"]] == theirs["logprob"]


def test_several_questions_share_the_pictures(demo):
    kinds = ["a sign", "a book"]
    several = demo.decide_all([READ, ("What is this?", kinds)], SIGN, choices=CHOICES)
    alone = [demo.decide(READ, SIGN, choices=CHOICES), demo.decide("What is this?", SIGN, choices=iter(kinds))]
    assert several == alone
    assert [one.logprobs for one in several] == [one.logprobs for one in alone]
    usage = several[0].usage
    assert usage.prompt_tokens - usage.cached_tokens < usage.image_tokens // 2 + 100


def words_of(model, file, **options):
    """What calibrations call a model, as it is told where one is for another."""
    write(file, model="other")
    with pytest.raises(phi3v.OptionError, match="the calibration is for other, and the model is ") as raised:
        model.decide(READ, SIGN, choices=CHOICES, calibration=file, **options)
    return str(raised.value).partition("and the model is ")[2]


def write(file, **changes):
    """A calibration of one question, changed in its whole or in its question."""
    quality = {"nll": 1.0, "ece": 0.1, "accuracy": 0.5}
    fitted = {"question": READ, "choices": CHOICES[::-1], "temperature": 10.0, "examples": 9}
    fitted |= {"before": quality, "after": quality}
    fitted |= {name: changes.pop(name) for name in list(changes) if name in fitted or name == "unknown"}
    written = {"phi3v_calibration": 1, "model": "demo", "questions": [fitted]} | changes
    file.write_text(json.dumps(written))


def test_a_calibration_spreads_or_sharpens(demo, tmp_path):
    file = tmp_path / "calibration.json"
    plain = demo.decide(READ, SIGN, choices=CHOICES)
    write(file, model=words_of(demo, file))
    for name in (file, str(file)):
        warm = demo.decide(READ, SIGN, choices=CHOICES, calibration=name)
        assert warm == plain and warm.logprobs == plain.logprobs
        weights = [math.exp((score - max(plain.logprobs.values())) / 10) for score in plain.logprobs.values()]
        assert list(warm.probabilities.values()) == pytest.approx([weight / sum(weights) for weight in weights])


def test_a_calibration_is_the_command_lines(demo, tmp_path):
    """What the one has fitted the other takes, and what the one refuses the other does too."""
    labels, file = tmp_path / "labels.jsonl", tmp_path / "calibration.json"
    label = {"prompt": READ, "choices": CHOICES}
    pictures = [("text.png", "Fresh Bread"), ("cover.png", "No Entry"), ("left.png", "Fresh Bread")]
    lines = [{"image": str(EXAMPLES / name), "answer": answer, **label} for name, answer in pictures]
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "phi3v"]
    subprocess.run([*command, "calibrate", labels, "--out", file], capture_output=True, check=True, timeout=300)
    asked = ["decide", "--json", SIGN, READ, "--choices", ",".join(CHOICES), "--calibration", file]
    told = json.loads(subprocess.run([*command, *asked], capture_output=True, check=True, timeout=300).stdout)
    decision = demo.decide(READ, SIGN, choices=CHOICES, calibration=file)
    for theirs in told["decisions"][0]["probabilities"]:
        assert decision.probabilities[theirs["choice"]] == pytest.approx(theirs["probability"], abs=1e-12)
    other = phi3v.load(dtype="f32")
    with pytest.raises(phi3v.OptionError, match="the calibration is for demo .*bf16.*, and the model is demo .*f32"):
        other.decide(READ, SIGN, choices=CHOICES, calibration=file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "demo"}, "is for demo, and the model is demo \\("),
        ({"model": "demo (x)"}, "is for demo \\(x\\), and the model is demo \\("),
        ({"phi3v_calibration": 2}, "its version is 2, 1 is known"),
        ({"questions": []}, 'has no question "What is written here\\?"'),
        ({"choices": ["yes", "no"]}, 'has no question "What is written here\\?"'),
        ({"questions": 3}, "this is no calibration"),
        ({"temperature": 0}, "a temperature is 0.0, it must be 0.05 to 20"),
        ({"temperature": -1}, "a temperature is -1.0, it must be"),
        ({"temperature": 1e9}, "it must be 0.05 to 20"),
        ({"temperature": float("nan")}, "this is no calibration"),
        ({"temperature": "1"}, "this is no calibration"),
        ({"unknown": 1}, "this is no calibration"),
    ],
)
def test_a_calibration_that_the_command_line_refuses_is_refused(demo, tmp_path, changes, words):
    file = tmp_path / "calibration.json"
    write(file, **{"model": words_of(demo, file), **changes})
    with pytest.raises(phi3v.OptionError, match=words):
        demo.decide(READ, SIGN, choices=CHOICES, calibration=file)


def test_a_calibration_that_cannot_be_read_is_named(demo, tmp_path):
    for file in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(phi3v.OptionError, match=f"cannot read {file}: ") as raised:
            demo.decide(READ, SIGN, choices=CHOICES, calibration=file)
        assert raised.value.hint == "check the path"


@pytest.mark.parametrize(
    ("question", "options", "error", "words"),
    [
        ("Is it?", {"choices": ["yes"]}, phi3v.OptionError, "a question has 1 choice, it must have 2 to 255"),
        ("Is it?", {"choices": ["yes", " "]}, phi3v.OptionError, "choice 2 is empty"),
        ("Is it?", {"choices": ["yes", "yes "]}, phi3v.OptionError, "are the same answer"),
        (" ", {"choices": ["yes", "no"]}, phi3v.OptionError, "the question is empty"),
        ("Is it?", {"choices": "yes"}, TypeError, "choices must be several texts, not str"),
        ("Is it?", {"choices": [True, False]}, TypeError, "a choice must be a str, not bool"),
        (7, {"choices": ["yes", "no"]}, TypeError, "the question must be a str, not int"),
        ("Is it?", {"choices": ["a", "b"], "temperature": 1}, phi3v.OptionError, "temperature says nothing about decisions"),
        ("Is it?", {"choices": ["a", "b"], "top_q": 3}, TypeError, "there is no option top_q"),
        ("x " * 40000, {"choices": ["a", "b"]}, phi3v.RoomError, "exceed the context"),
    ],
)
def test_what_cannot_be_decided_is_said(demo, question, options, error, words):
    with pytest.raises(error, match=words):
        demo.decide(question, **options)


@pytest.mark.parametrize(
    ("questions", "error", "words"),
    [
        ([], phi3v.OptionError, "there is no question"),
        (["Is it?"], phi3v.OptionError, "no choices were given for 'Is it\\?'"),
        ("Is it?", TypeError, "the questions must be several, not str"),
        ([7], TypeError, "a question must be a str or \\(question, choices\\), not int"),
        ([("Is it?", "yes")], TypeError, "choices must be several texts, not str"),
    ],
)
def test_questions_that_cannot_be_decided_are_named(demo, questions, error, words):
    with pytest.raises(error, match=words):
        demo.decide_all(questions)
