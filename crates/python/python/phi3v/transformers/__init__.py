"""The surface of Hugging Face's transformers that notebooks about Phi-3-vision use: with

    from phi3v.transformers import AutoModelForCausalLM, AutoProcessor

in place of the same from `transformers`, their cells run as they are. Arrays are numpy's, or torch's where torch is there
and "pt" was asked for. Pixels are the reference's. What is asked for and not offered raises `UnsupportedError`.
"""

from ._generate import set_seed
from ._model import AutoModelForCausalLM, Phi3VForCausalLM
from ._processor import AutoProcessor, BatchFeature, Phi3VProcessor
from ._streamers import TextIteratorStreamer, TextStreamer
from ._tokenizer import AutoTokenizer, Phi3VTokenizer

__all__ = [
    "AutoModelForCausalLM",
    "AutoProcessor",
    "AutoTokenizer",
    "BatchFeature",
    "Phi3VForCausalLM",
    "Phi3VProcessor",
    "Phi3VTokenizer",
    "TextIteratorStreamer",
    "TextStreamer",
    "set_seed",
]
