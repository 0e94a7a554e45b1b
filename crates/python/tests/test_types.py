"""What a program's types are checked against."""

import re
from pathlib import Path

import phi3v.transformers
import pytest


@pytest.mark.parametrize("module", [phi3v, phi3v.transformers], ids=lambda module: module.__name__)
def test_every_public_name_is_in_use(module):
    text = Path(__file__).with_name("typed.py").read_text()
    used = set(re.findall(rf"\b{re.escape(module.__name__)}\.(\w+)", text))
    assert not set(module.__all__) - used
