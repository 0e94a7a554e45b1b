"""Makes testdata/tiny/tokenizer.json and testdata/text.json.

The tokenizer has the structure of the Phi-3-vision one (BPE with byte fallback, the same normaliser, template and
decoder, the same added tokens with the same flags) on a vocabulary of 512 trained on the sentences below. The expected
ids come from the public `tokenizers` package; the processor's rules for images are written out in `processor_ids`.

    pip install tokenizers==0.19.1
    python scripts/reference/tokenizer_fixture.py
"""

import json
import re
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

VOCAB_SIZE = 512
TESTDATA = Path(__file__).resolve().parents[2] / "testdata"

# Words of the tasks a picture model is asked to do, so that the merges are about them.
SENTENCES = """
The title of the book is "Rivers" and the author is Ann Miller.
Help me get the title and author information of this book?
Could you please introduce this stock to me? The stock price is rising from Monday to Friday.
What is difference in this two images? The first image shows three red circles, the second image shows two blue squares.
What is written here? The text says: open daily from 9 to 17.
Describe this chart. The chart shows sales by month; the highest is March with 42, the lowest is June with 7.
You are a helpful assistant. The picture shows a line chart with five points, and the values are falling.
The answer is a number between 0 and 100. Please give the name and the date as {"name": "...", "date": "..."}.
""".strip().splitlines()

# (content, rstrip, special), in the order of their ids at the end of the vocabulary.
ADDED_AT_END = (
    [("<|endoftext|>", False, True), ("<|assistant|>", True, True)]
    + [(f"<|placeholder{i}|>", True, True) for i in range(1, 5)]
    + [("<|system|>", False, True), ("<|end|>", False, True)]
    + [(f"<|placeholder{i}|>", True, True) for i in range(5, 7)]
    + [("<|user|>", False, True)]
    + [(f"<|placeholder{i}|>", True, True) for i in range(7, 40)]
    + [("<|image|>", True, True)]
)


def added_token(token_id, content, rstrip, special):
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": rstrip,
        "normalized": False,
        "special": special,
    }


def train():
    """Vocabulary and merges: words only meet at U+2581, as in a SentencePiece vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    control = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(ADDED_AT_END),
        special_tokens=control,
        initial_alphabet=[chr(c) for c in range(0x21, 0x7F)] + list("\u2581\u00e9\u00fc\u65e5\u672c"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def tokenizer_json():
    vocab, merges = train()
    first = len(vocab)
    assert first + len(ADDED_AT_END) == VOCAB_SIZE, first
    added = [added_token(0, "<unk>", False, True), added_token(1, "<s>", False, True), added_token(2, "</s>", True, False)]
    added += [added_token(first + i, *token) for i, token in enumerate(ADDED_AT_END)]
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    second = [{"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text] + second,
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


TEXTS = [
    "", "\n", " ", "  ", "\n\n", "Hello", " Hello", "  Hello world ", "\tTab", "a\r\nb", "What is written here?",
    "<|user|>\nWhat is this?<|end|>\n<|assistant|>\n",
    "<|system|>\nYou are a helpful assistant.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n",
    "<|user|> Hi <|end|> <|assistant|> ok", "<|user|>\n\nHi<|end|>\n\n<|assistant|>\n\nok", "<|assistant|>   \n\t I am here",
    "<|end|><|end|>", "a<|endoftext|>b", "<s>Hello</s>  x <s> y", "a<unk>b", "<|image|>\n x", "<|image_1|>\nWhat?",
    "<|placeholder39|>  x", "<|placeholder40|>", "<|image", "|>", "<|USER|>", "<|user|>\u00a0x", "<|assistant|>\u00a0x",
    "<|assistant|>\u3000x", "<|assistant|>\u200bx", "<|assistant|>\u0085x", "<|assistant|>\u001cx", "\u65e5\u672c\u8a9e",
    "caf\u00e9 na\u00efve \u00fc", "e\u0301", "\U0001f600", "\U0001f468\u200d\U0001f469 family", "\x00nul", "\u2581under\u2581score",
    " \u2581 ", "1234567890", '{"a": [1, 2.5e-3, null]}', "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\ufeffBOM", "x     y",
]

ASK = "<|user|>\n{}<|end|>\n<|assistant|>\n"
PROMPTS = [
    ("one", ASK.format("<|image_1|>\nWhat is written here?"), [13]),
    ("two", ASK.format("<|image_1|>\n<|image_2|>\n What is difference in this two images?"), [5, 7]),
    ("swapped", ASK.format("<|image_2|>\n<|image_1|>\nCompare."), [5, 7]),
    ("adjacent", ASK.format("<|image_1|><|image_2|>What?"), [2, 1]),
    ("tag_only", "<|image_1|>", [3]),
    ("tag_at_end", "What? <|image_1|>", [3]),
    ("spaces_around", ASK.format(" <|image_1|> What?"), [3]),
    ("leading_zero", ASK.format("<|image_01|>\nWhat?"), [3]),
    ("unicode_digit", ASK.format("<|image_\uff11|>\nWhat?"), [3]),
    ("second_turn", "<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n" + ASK.format("<|image_1|>\nWhat?"), [3]),
    ("after_assistant", "<|user|>\nHi<|end|>\n<|assistant|>\n<|image_1|>\nx", [3]),
    ("repeated", ASK.format("<|image_1|>\nand again <|image_1|>\nWhat?"), [3]),
    ("no_image", ASK.format("<|image_1|>\nWhat?"), []),
    ("gap", ASK.format("<|image_1|>\n<|image_3|>\nWhat?"), [3, 3]),
    ("from_zero", ASK.format("<|image_0|>\nWhat?"), [3]),
    ("too_few_tags", ASK.format("<|image_1|>\nWhat?"), [3, 3]),
    ("too_many_tags", ASK.format("<|image_1|>\n<|image_2|>\nWhat?"), [3]),
    ("no_tag", ASK.format("What?"), [3]),
]


def processor_ids(tokenizer, text, num_img_tokens):
    """Ids of a raw prompt, or None where the processor refuses it: every chunk between image tags is tokenized alone
    (and so begins with <s>), image i stands as -i repeated num_img_tokens[i - 1] times."""
    if not num_img_tokens:
        return tokenizer.encode(text).ids
    chunks = [tokenizer.encode(chunk).ids for chunk in re.split(r"<\|image_\d+\|>", text)]
    numbers = [int(number) for number in re.findall(r"<\|image_(\d+)\|>", text)]
    unique = sorted(set(numbers))
    if unique != list(range(1, len(unique) + 1)) or len(unique) != len(num_img_tokens):
        return None
    ids = list(chunks[0])
    for number, chunk in zip(numbers, chunks[1:]):
        ids += [-number] * num_img_tokens[number - 1] + chunk
    return ids


def decode_lists(tokenizer):
    """Id lists whose text depends on neighbours: split characters, broken characters, skipped tokens in between."""
    space, newline, smile = tokenizer.token_to_id("\u2581"), 3 + 10, [3 + b for b in "\U0001f600".encode()]
    end, word = tokenizer.token_to_id("<|end|>"), tokenizer.encode("The image", add_special_tokens=False).ids
    return [
        [1] + word, word, [space, newline] + word, smile, smile[:2], smile[:2] + word, smile + smile[:3],
        smile[:2] + [end] + smile[2:], [newline] + smile[:1] + word, [space], [space, space], [3 + 0x20] + word,
        word + [end], [end] + word, [2] + word, [0] + word, [newline, newline], [],
    ]


def main():
    (TESTDATA / "tiny").mkdir(parents=True, exist_ok=True)
    path = TESTDATA / "tiny" / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(path))
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    cases = {
        "tokenizer": [
            {"text": text, "ids": (ids := tokenizer.encode(text).ids), "decoded": tokenizer.decode(ids, skip_special_tokens=False),
             "decoded_skip_special": tokenizer.decode(ids)} for text in TEXTS
        ],
        "decode": [
            {"ids": ids, "decode": tokenizer.decode(ids, skip_special_tokens=False), "decode_skip": tokenizer.decode(ids)}
            for ids in decode_lists(tokenizer)
        ],
        "processor": [
            {"name": name, "text": text, "num_img_tokens": counts, "ids": processor_ids(tokenizer, text, counts)}
            for name, text, counts in PROMPTS
        ],
    }
    # One line per case, so that a change shows as one.
    sections = [
        f'"{name}": [\n' + ",\n".join(json.dumps(case, ensure_ascii=True) for case in section) + "\n]"
        for name, section in cases.items()
    ]
    (TESTDATA / "text.json").write_text("{" + ",\n".join(sections) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
