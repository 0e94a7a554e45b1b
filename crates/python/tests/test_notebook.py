"""What a notebook shows, and the cookbook's notebook."""

import base64
import re

from conftest import COVER, EXAMPLES, TITLE, needs
from phi3v import Answer, Word


def test_the_cookbooks_notebook_shows_what_it_says(tmp_path):
    nbformat, nbclient = needs("nbformat"), needs("nbclient")
    needs("ipykernel")
    needs("requests")
    stored = nbformat.read(EXAMPLES / "cookbook.ipynb", as_version=4)
    run = nbformat.read(EXAMPLES / "cookbook.ipynb", as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(run, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    assert len(run.cells) > 8
    for cell, expected in zip(run.cells, stored.cells, strict=True):
        assert shown(cell) == shown(expected), cell.source
    assert sum(bool(shown(cell)) for cell in run.cells) == 6


def shown(cell):
    """What a cell has put out, but for notes on stderr."""
    outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    return [output.get("text") or output["data"]["text/plain"] for output in outputs]


def test_a_notebook_shows_an_answer_with_its_pictures(demo, monkeypatch):
    monkeypatch.setattr("phi3v._model.in_notebook", lambda: True)
    answer = demo.ask(TITLE, COVER)
    ((width, height, rgb),) = answer.thumbnails
    assert len(rgb) == width * height * 3 and max(width, height) == 112
    pil = needs("PIL.Image")
    with pil.open(COVER) as cover:
        small = cover.convert("RGB").resize((width, height), pil.Resampling.BOX)
        difference = sum(abs(a - b) for a, b in zip(small.tobytes(), rgb, strict=True)) / len(rgb)
    assert difference < 12, "it is the picture"
    html = answer._repr_html_()
    (data,) = re.findall("src='data:image/png;base64,([^']*)'", html)
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "Summer Garden" in html and f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens" in html
    assert not demo.ask("What is the capital of France?").thumbnails


def test_no_words_of_a_model_are_html():
    hostile = "<script>alert('1')</script> <img src=x onerror=alert(1)> & \"'"
    words = [Word("", hostile[:9], 0.99, 0.99), Word(" ", hostile[9:], 0.14, 0.4)]
    for finish_reason in ("stop", "<b>"):
        html = Answer(hostile, words=words, finish_reason=finish_reason)._repr_html_()
        assert set(re.findall("</?([a-z]+)", html)) == {"div", "p", "span"}
        assert "&lt;script&gt;" in html
    assert "title='14%'" in html, "unsure words are shaded"
    sure = Answer("Yes.", words=[Word("", "Yes.", 0.999, 0.999)])._repr_html_()
    assert "<span" not in sure
