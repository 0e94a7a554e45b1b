"""The processor's tokenizer."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import _phi3v
from .._errors import UnsupportedError
from .._model import model_name
from ._arrays import array, ids, kind, numpy
from ._hub import hub

# What clean_up_tokenization_spaces takes the space before out of.
_CLEAN = (".", "?", "!", ",")
_CLEAN_WORDS = {" ' ": "'", " n't": "n't", " 'm": "'m", " 's": "'s", " 've": "'ve", " 're": "'re"}


class Phi3VTokenizer:
    """Text to ids and back, by the checkpoint's tokenizer.json."""

    def __init__(self, inner: _phi3v.Processor) -> None:
        self._inner = inner

    bos_token = "<s>"
    eos_token = "<|endoftext|>"
    pad_token = "<|endoftext|>"
    unk_token = "<unk>"

    @property
    def bos_token_id(self) -> int:
        """The id that begins a text."""
        return self._inner.bos_id

    @property
    def eos_token_id(self) -> int:
        """The id of `<|endoftext|>`. Answers end at `<|end|>` as well, whatever is asked for."""
        return self._inner.stop_ids[1]

    @property
    def pad_token_id(self) -> int:
        """The id that fills shorter answers."""
        return self.eos_token_id

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._inner.vocab_size

    def __len__(self) -> int:
        return self._inner.vocab_size

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text, in which special tokens are read; `<s>` first, unless `add_special_tokens` is False."""
        found = self._inner.encode(text)
        return found if add_special_tokens else found[1:]

    def __call__(
        self, text: str | Sequence[str], add_special_tokens: bool = True, return_tensors: Any = None
    ) -> dict[str, Any]:
        """`input_ids` and `attention_mask` of a text, or of several as lists."""
        if not isinstance(text, str):
            if return_tensors is not None:
                raise UnsupportedError("several texts are not padded to one array", "leave return_tensors out")
            many = [self.encode(one, add_special_tokens) for one in text]
            return {"input_ids": many, "attention_mask": [[1] * len(one) for one in many]}
        found = self.encode(text, add_special_tokens)
        if return_tensors is None:
            return {"input_ids": found, "attention_mask": [1] * len(found)}
        asked, rows = kind(return_tensors), numpy().array([found], dtype="int64")
        return {"input_ids": array(rows, asked), "attention_mask": array(numpy().ones_like(rows), asked)}

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Text of a list of ids. Ids of pictures give nothing."""
        text = self._inner.decode(ids(token_ids), skip_special_tokens)
        return _cleaned(text) if clean_up_tokenization_spaces else text

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> list[str]:
        """Texts of several lists of ids."""
        return [self.decode(one, skip_special_tokens, clean_up_tokenization_spaces) for one in sequences]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """The id of a token, or those of several; None of what is none."""
        if isinstance(tokens, str):
            return self._inner.token_id(tokens)
        return [self._inner.token_id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> Any:
        """The token of an id, or those of several; None of what is none."""
        if isinstance(ids, int):
            return self._inner.token(ids)
        return [self._inner.token(int(id)) for id in ids]

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        return_tensors: Any = None,
    ) -> Any:
        """The prompt of messages with `role` and `content`, by the checkpoint's template: as ids, or as text where
        `tokenize` is False. Pictures stand in the content as `<|image_1|>`. The template has no `<s>`, and the ids none
        either, as the reference's."""
        prompt = ""
        for message in conversation:
            content = message["content"]
            if not isinstance(content, str):
                raise UnsupportedError(
                    f"a message's content is {type(content).__name__}, it must be text",
                    "write pictures into it as <|image_1|>",
                )
            prompt += f"<|{message['role']}|>\n{content}<|end|>\n"
        if add_generation_prompt and conversation and conversation[-1]["role"] != "assistant":
            prompt += "<|assistant|>\n"
        if not tokenize:
            return prompt
        found = self.encode(prompt, add_special_tokens=False)
        if return_tensors is None:
            return found
        return array(numpy().array([found], dtype="int64"), kind(return_tensors))


def _cleaned(text: str) -> str:
    for mark in _CLEAN:
        text = text.replace(f" {mark}", mark)
    for before, after in _CLEAN_WORDS.items():
        text = text.replace(before, after)
    return text


class AutoTokenizer:
    """Opens tokenizers by their model's name."""

    @staticmethod
    def from_pretrained(model_id: str | os.PathLike[str], *, trust_remote_code: bool = True, **options: Any) -> Phi3VTokenizer:
        """The tokenizer of the model of that name, which is downloaded where need be. No code of it is run. `revision`,
        `token`, `cache_dir` and `local_files_only` are followed."""
        name = model_name(model_id)
        return Phi3VTokenizer(_phi3v.open_processor(name, hub(name, options)))
