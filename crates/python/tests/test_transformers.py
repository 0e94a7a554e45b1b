"""The surface of transformers: the cookbook's cells, and what they may be asked."""

import http.server
import io
import json
import threading
from pathlib import Path

import phi3v
import pytest
from conftest import COVER_ANSWER, EXAMPLES, REPOSITORY, TINY, TITLE, needs
from phi3v.transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    TextIteratorStreamer,
    TextStreamer,
    set_seed,
)

np = needs("numpy")
PROMPT = f"<|user|>\n<|image_1|>\n{TITLE}<|end|>\n<|assistant|>\n"
GREEDY = {"max_new_tokens": 100}


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained("demo", trust_remote_code=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained("demo", trust_remote_code=True, torch_dtype="auto", device_map="cuda")


@pytest.fixture(scope="module")
def endless_model(endless):
    return AutoModelForCausalLM.from_pretrained(str(endless), torch_dtype="float32", context=8000)


@pytest.fixture(scope="module")
def endless_processor(endless):
    return AutoProcessor.from_pretrained(str(endless))


def pictures(*names):
    pil = needs("PIL.Image")
    return [pil.open(io.BytesIO((EXAMPLES / name).read_bytes())) for name in names]


def test_the_cells_of_the_cookbook(processor, model):
    inputs = processor(PROMPT, *pictures("cover.png"), return_tensors="pt").to("cuda:0")
    ids = model.generate(**inputs, max_new_tokens=1000, eos_token_id=processor.tokenizer.eos_token_id)
    assert ids[:, : inputs["input_ids"].shape[1]].tolist() == inputs["input_ids"].tolist()
    ids = ids[:, inputs["input_ids"].shape[1] :]
    response = processor.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]
    assert response == COVER_ANSWER


def test_what_the_processor_makes(processor):
    prompt = PROMPT.replace("<|image_1|>", "<|image_2|>\n<|image_1|>")
    inputs = processor(prompt, pictures("left.png", "right.png"), return_tensors="np")
    assert list(inputs) == ["input_ids", "attention_mask", "pixel_values", "image_sizes"]
    ids, sizes = inputs.input_ids, inputs["image_sizes"]
    assert ids.dtype == np.int64 and ids.shape == inputs.attention_mask.shape and inputs.attention_mask.all()
    assert inputs.pixel_values.dtype == np.float32
    assert inputs.pixel_values.shape == (2, processor.num_crops + 1, 3, 336, 336)
    assert sizes.shape == (2, 2) and (sizes % 336 == 0).all()
    for number in (1, 2):
        height, width = sizes[number - 1] // 336
        assert (ids == -number).sum() == (height * width + 1) * 144 + 1 + (height + 1) * 12
    assert ids[0].tolist().index(-2) < ids[0].tolist().index(-1)
    text = processor("Hello", return_tensors="np")
    assert list(text) == ["input_ids", "attention_mask"] and text.input_ids[0, 0] == processor.tokenizer.bos_token_id
    with pytest.raises(AttributeError, match="there is no pixel_values"):
        _ = text.pixel_values


def test_generate_reads_the_pixel_values_that_it_is_given(processor, model):
    """Not a picture that was remembered: other values are another picture."""
    cover, other = (processor(PROMPT, image, return_tensors="np") for image in pictures("cover.png", "text.png"))
    given = {**cover, "pixel_values": other["pixel_values"]}
    assert decoded(processor, model.generate(**given, **GREEDY), cover) != COVER_ANSWER
    given = {**cover, "pixel_values": np.asfortranarray(cover["pixel_values"].astype(np.float64))}
    assert decoded(processor, model.generate(**given, **GREEDY), cover) == COVER_ANSWER
    lists = {name: values.tolist() for name, values in cover.items()}
    assert decoded(processor, model.generate(**lists, **GREEDY), cover) == COVER_ANSWER


def decoded(processor, ids, inputs):
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_with_torch_the_arrays_are_torchs(processor, model):
    torch = needs("torch")
    inputs = processor(PROMPT, pictures("cover.png"), return_tensors="pt")
    arrays = processor(PROMPT, pictures("cover.png"), return_tensors="np")
    for name, values in inputs.items():
        assert isinstance(values, torch.Tensor) and (values.numpy() == arrays[name]).all(), name
    ids = model.generate(**inputs, **GREEDY)
    assert isinstance(ids, torch.Tensor) and decoded(processor, ids, inputs) == COVER_ANSWER
    new = ids[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(new, skip_special_tokens=True) == [COVER_ANSWER]
    # as a notebook casts what it moves to a card
    half = {**inputs, "pixel_values": inputs["pixel_values"].to(torch.bfloat16)}
    assert decoded(processor, model.generate(**half, **GREEDY), inputs) == COVER_ANSWER


def test_the_model_says_once_where_it_runs(capfd):
    model = AutoModelForCausalLM.from_pretrained("demo", _attn_implementation="eager", torch_dtype="bfloat16")
    assert model.cuda().to("cuda:0").eval().cpu() is model and model.device == "cpu"
    told = capfd.readouterr().err
    assert told.count("the model runs on the processor") == 1


def test_draws(endless_processor, endless_model):
    inputs = endless_processor("Tell me a story", return_tensors="np")
    asked = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 20, "max_new_tokens": 12}
    set_seed(3)
    first = endless_model.generate(**inputs, **asked, num_return_sequences=3)
    assert first.shape == (3, inputs["input_ids"].shape[1] + 12)
    assert len({tuple(row) for row in first.tolist()}) == 3
    assert (endless_model.generate(**inputs, **asked, num_return_sequences=3) != first).any()
    set_seed(3)
    assert (endless_model.generate(**inputs, **asked, num_return_sequences=3) == first).all()
    greedy = endless_model.generate(**inputs, max_new_tokens=12, temperature=0.7)
    assert (greedy == endless_model.generate(**inputs, max_length=greedy.shape[1], do_sample=False)).all()
    assert (endless_model.generate(**inputs, max_new_tokens=12, repetition_penalty=5.0) != greedy).any()


def test_an_answer_ends_at_ids_that_are_asked_for(endless_processor, endless_model):
    inputs = endless_processor("Tell me a story", return_tensors="np")
    prompt = inputs["input_ids"].shape[1]
    free = endless_model.generate(**inputs, max_new_tokens=30)[0, prompt:].tolist()
    end = free[9]
    expected = free[: free.index(end) + 1]
    for ends in (end, [end, 5]):
        found = endless_model.generate(**inputs, max_new_tokens=30, eos_token_id=ends)
        assert found[0, prompt:].tolist() == expected
    assert endless_model.generate(**inputs, max_new_tokens=5)[0, prompt:].tolist() == free[:5]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_beams": 4}, phi3v.UnsupportedError, "generate has no num_beams=4"),
        ({"logits_processor": [1]}, phi3v.UnsupportedError, "generate has no logits_processor"),
        ({"output_scores": True}, phi3v.UnsupportedError, "generate has no output_scores=True"),
        ({"num_return_sequences": 2}, phi3v.OptionError, "num_return_sequences is 2"),
        ({"do_sample": True, "temperature": 0}, phi3v.OptionError, "temperature is 0"),
        ({"do_sample": True, "temperature": 9.0}, phi3v.OptionError, "temperature is 9, it must be from 0 to 2"),
        ({"max_new_tokens": None, "max_length": 1}, phi3v.OptionError, "max_length is 1"),
        ({"max_new_tokens": 0}, phi3v.OptionError, "max_new_tokens is 0"),
        ({"max_new_tokens": -1}, phi3v.OptionError, "max_new_tokens is -1"),
        ({"max_new_tokens": 1 << 70}, phi3v.OptionError, "max_new_tokens is"),
        ({"max_new_tokens": None, "max_length": -1}, phi3v.OptionError, "max_length is -1"),
        ({"num_return_sequences": -2}, phi3v.OptionError, "num_return_sequences is -2"),
        ({"do_sample": True, "top_k": -1}, phi3v.OptionError, "top_k is -1"),
        ({"position_ids": np.array([[0, 1, 2]])}, phi3v.UnsupportedError, "generate has no position_ids=<ndarray>"),
        ({"use_cache": np.array([1, 2])}, phi3v.UnsupportedError, "generate has no use_cache=<ndarray>"),
        ({"attention_mask": np.zeros((1, 3))}, phi3v.UnsupportedError, "attention_mask hides"),
        ({"pixel_values": np.zeros((1, 2, 3, 336, 336))}, phi3v.OptionError, "without image_sizes"),
        (
            {"pixel_values": np.zeros((1, 2, 3, 5, 5)), "image_sizes": np.array([[336, 336]])},
            phi3v.OptionError,
            "pixel_values of shape",
        ),
        (
            {"pixel_values": np.zeros((1, 2, 3, 336, 336)), "image_sizes": np.array([[336, 672]])},
            phi3v.PictureError,
            "pixel values, not",
        ),
        (
            {"pixel_values": np.full((1, 2, 3, 336, 336), np.nan), "image_sizes": np.array([[336, 336]])},
            phi3v.PictureError,
            "not a number",
        ),
        (
            {"pixel_values": np.zeros((1, 2, 3, 336, 336)), "image_sizes": np.array([[336, -336]])},
            phi3v.OptionError,
            "a size is more than 0",
        ),
        (
            {"pixel_values": np.zeros((1, 2, 3, 336, 336)), "image_sizes": np.array([[336, 1 << 40]])},
            phi3v.OptionError,
            "image_sizes hold 1099511627776",
        ),
        (
            {"pixel_values": np.zeros((1, 2, 3, 336, 336)), "image_sizes": np.array([[336, np.nan]])},
            phi3v.OptionError,
            "image_sizes hold nan",
        ),
        ({"input_ids": np.ones((2, 3), int)}, phi3v.UnsupportedError, "are not one prompt"),
        ({"input_ids": np.array([[1, 10**9]])}, phi3v.OptionError, "beyond the vocabulary"),
        ({"input_ids": np.array([[1, 1 << 63]], np.uint64)}, phi3v.OptionError, "beyond the vocabulary"),
        ({"input_ids": np.array([[1, -1, -1]])}, phi3v.OptionError, "picture 1, but 0 were given"),
    ],
)
def test_what_generate_does_not_offer_raises(model, options, error, words):
    with pytest.raises(error) as raised:
        model.generate(**{"input_ids": np.array([[1, 15, 20]]), **GREEDY, **options})
    assert words in str(raised.value)
    assert isinstance(raised.value, (NotImplementedError, ValueError))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 1.5}, "max_new_tokens must be an int, not float"),
        ({"max_new_tokens": "3"}, "max_new_tokens must be an int, not str"),
        ({"do_sample": True, "temperature": "hot"}, "temperature must be a float, not str"),
        ({"repetition_penalty": [1]}, "repetition_penalty must be a float, not list"),
    ],
)
def test_what_has_a_wrong_type_is_named(model, options, words):
    with pytest.raises(TypeError, match=words):
        model.generate(input_ids=np.array([[1, 15, 20]]), **{**GREEDY, **options})


def cached(folder, **commits):
    """A hub's cache with the tiny model at these revisions."""
    for revision, commit in commits.items():
        repo = folder / "models--org--tiny"
        (repo / "refs").mkdir(parents=True, exist_ok=True)
        (repo / "refs" / revision).write_text(commit * 40)
        snapshot = repo / "snapshots" / (commit * 40)
        snapshot.mkdir(parents=True)
        for file in TINY.iterdir():
            (snapshot / file.name).write_bytes(file.read_bytes())


OPENERS = [AutoModelForCausalLM.from_pretrained, AutoProcessor.from_pretrained, AutoTokenizer.from_pretrained]


@pytest.mark.parametrize("open_model", OPENERS, ids=["model", "processor", "tokenizer"])
def test_where_a_model_comes_from_is_followed(open_model, tmp_path, monkeypatch):
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "hf_environment")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
        cache = tmp_path / "cache"
        cached(cache, v2="b")
        for here in (str(cache), cache):
            assert open_model("org/tiny", revision="v2", cache_dir=here)
        assert open_model("org/tiny", revision="v2", cache_dir=cache, local_files_only=True, token="hf_a")
        for options in ({"cache_dir": cache}, {"cache_dir": cache, "revision": "v3"}, {"revision": "v2"}):
            with pytest.raises(phi3v.ModelError, match="local_files_only forbids to download it") as raised:
                open_model("org/tiny", local_files_only=True, **options)
            assert "local_files_only" in raised.value.hint
        assert asked == []
        for token, sent in [("hf_given", "hf_given"), (None, "hf_environment"), (True, "hf_environment"), (False, None)]:
            with pytest.raises(phi3v.ModelError):
                open_model("org/tiny", cache_dir=cache, revision="v3", token=token, local_files_only=False)
            path, header = asked.pop()
            assert header == (sent and f"Bearer {sent}") and path.endswith("/org/tiny/revision/v3")
            asked.clear()
        server.shutdown()
    with pytest.raises(phi3v.OptionError, match="leave one|names a revision"):
        open_model("org/tiny@v1", revision="v2")
    with pytest.raises(phi3v.ModelError, match="there is no model"):
        open_model("org/tiny", revision="../main")
    for options, words in [
        ({"revision": 5}, "revision must be a str, not int"),
        ({"token": 5}, "token must be a str or a bool, not int"),
        ({"local_files_only": 1}, "local_files_only must be a bool, not int"),
    ]:
        with pytest.raises(TypeError, match=words):
            open_model("demo", **options)
    with pytest.raises(phi3v.UnsupportedError, match="from_pretrained has no subfolder='a'"):
        open_model("demo", subfolder="a")
    assert open_model("demo", trust_remote_code=True, revision="main", use_fast=True)


@pytest.mark.parametrize("open_model", OPENERS, ids=["model", "processor", "tokenizer"])
def test_a_folder_may_be_a_path(open_model):
    assert open_model(TINY) and open_model(TINY, revision=None)
    with pytest.raises(phi3v.ModelError, match="no-such-folder"):
        open_model(TINY / "no-such-folder")
    for wrong in (5, b"demo", None):
        with pytest.raises(TypeError, match="a model's name must be a str or a path, not "):
            open_model(wrong, revision="main")


def test_what_from_pretrained_does_not_offer_raises():
    for options, words in (
        ({"load_in_4bit": True}, "from_pretrained has no load_in_4bit=True"),
        ({"torch_dtype": "float16"}, "torch_dtype is float16"),
        ({"dtype": "int8"}, "torch_dtype is int8"),
    ):
        with pytest.raises(phi3v.UnsupportedError) as raised:
            AutoModelForCausalLM.from_pretrained("demo", **options)
        assert words in str(raised.value)
    with pytest.raises(phi3v.ModelError):
        AutoProcessor.from_pretrained("no-such-model")
    with pytest.raises(phi3v.OptionError):
        AutoProcessor.from_pretrained("demo", num_crops=0)


def test_what_the_processor_does_not_offer_raises(processor):
    (cover,) = pictures("cover.png")
    for words in ("<|image_2|>", "no picture", "<|image_1|><|image_1|>"):
        with pytest.raises(phi3v.OptionError):
            processor(words, cover)
    with pytest.raises(phi3v.UnsupportedError, match="one prompt"):
        processor(["a", "b"])
    with pytest.raises(phi3v.UnsupportedError, match="return_tensors is tf"):
        processor("a", return_tensors="tf")
    with pytest.raises(phi3v.UnsupportedError, match="not truncated"):
        processor("a", truncation=True)


def test_streamers_are_called(processor, model, capfd):
    inputs = processor(PROMPT, pictures("cover.png"), return_tensors="np")
    model.generate(**inputs, **GREEDY, streamer=TextStreamer(processor, skip_prompt=True, skip_special_tokens=True))
    assert capfd.readouterr().out == COVER_ANSWER + "\n"
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=60)
    thread = threading.Thread(target=lambda: model.generate(**inputs, **GREEDY, streamer=streamer))
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert len(pieces) > 5 and "".join(pieces) == COVER_ANSWER

    class Heard:
        def __init__(self):
            self.values, self.ended = [], 0

        def put(self, value):
            self.values.append(value)

        def end(self):
            self.ended += 1

    heard = Heard()
    ids = model.generate(**inputs, **GREEDY, streamer=heard)
    assert heard.ended == 1 and heard.values[0].tolist() == inputs["input_ids"].tolist()
    assert [int(value[0]) for value in heard.values[1:]] == ids[0, inputs["input_ids"].shape[1] :].tolist()


def test_the_tokenizer(processor):
    tokenizer = AutoTokenizer.from_pretrained("demo")
    ids = tokenizer.encode("Hello, world!")
    assert ids[0] == tokenizer.bos_token_id and tokenizer.encode("Hello, world!", add_special_tokens=False) == ids[1:]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Hello, world!"
    assert tokenizer.decode([-1, -1, *ids[1:]]) == "Hello, world!"
    assert tokenizer.batch_decode(np.array([ids, ids]), skip_special_tokens=True) == ["Hello, world!"] * 2
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert tokenizer.convert_ids_to_tokens([tokenizer.eos_token_id]) == ["<|endoftext|>"]
    assert tokenizer("Hello", return_tensors="np")["input_ids"].shape == (1, len(tokenizer("Hello")["input_ids"]))
    assert len(tokenizer) == tokenizer.vocab_size > max(ids)
    text = "Well , I do n't know ."
    ids = tokenizer.encode(text)
    assert processor.decode(ids, skip_special_tokens=True) == text
    assert processor.decode(ids, True, clean_up_tokenization_spaces=True) == "Well, I don't know."
    messages = [{"role": "user", "content": "<|image_1|>\n" + TITLE}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == PROMPT
    # the template has no <s>, and transformers adds none
    told = tokenizer.encode(PROMPT.removesuffix("<|assistant|>\n"), add_special_tokens=False)
    assert tokenizer.apply_chat_template(messages) == told and tokenizer.bos_token_id not in told
    arrays = tokenizer.apply_chat_template(messages, return_tensors="np")
    assert arrays.tolist() == [told]
    assert tokenizer.convert_ids_to_tokens([-1, 1 << 40]) == [None, None]
    with pytest.raises(phi3v.UnsupportedError, match="it must be text"):
        tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])


def test_pixels_are_the_references(processor):
    """The colour under transparency, orientation ignored."""
    pil = needs("PIL.Image")
    for name in ("rgba.png", "turned.jpg", "gray16.png"):
        path = REPOSITORY / "testdata" / "images" / name
        with pil.open(path) as image:
            ours = processor("<|image_1|>", image, return_tensors="np")["pixel_values"]
            theirs = processor("<|image_1|>", image.convert("RGB"), return_tensors="np")["pixel_values"]
            assert (ours == theirs).all(), name


GOLDEN_CASES = [
    "text1", "text_unicode", "seed1_nc4", "seed2_nc4", "seed3_nc4", "seed1_nc1", "three_nc1", "seed1_nc16", "seed2_nc16",
]  # fmt: skip


@pytest.fixture(scope="module")
def golden_model(golden):
    return AutoModelForCausalLM.from_pretrained(str(golden / "tiny"), torch_dtype="float32", context=8000)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_ids_pixels_and_answers_are_the_goldens(golden: Path, golden_model, name):
    case = json.loads((golden / "model" / "cases.json").read_text())["cases"][name]
    processor = AutoProcessor.from_pretrained(str(golden / "tiny"), num_crops=case["num_crops"])
    pil = needs("PIL.Image")
    files = [(golden / "images" / file).read_bytes() for file in case["images"] or []]
    images = [pil.open(io.BytesIO(file)) for file in files]
    inputs = processor(case["text"], images or None, return_tensors="np")
    expected = [id for id, count in case["input_ids_rle"] for _ in range(count)]
    assert inputs["input_ids"][0].tolist() == expected
    if images:
        values = inputs["pixel_values"]
        assert list(values.shape) == case["pixel_values"]["shape"]
        assert inputs["image_sizes"].tolist() == case["image_sizes_hw"]
        assert values.astype(np.float64).mean() == pytest.approx(case["pixel_values"]["mean"], abs=1e-6)
        assert values.astype(np.float64).std(ddof=1) == pytest.approx(case["pixel_values"]["std"], abs=1e-6)
        first, last = values.reshape(-1)[:8], values.reshape(-1)[-8:]
        assert first.tolist() == pytest.approx(case["pixel_values"]["first8"], abs=1e-6)
        assert last.tolist() == pytest.approx(case["pixel_values"]["last8"], abs=1e-6)
    tokens, gaps = case["greedy_cache"], case["greedy_cache_gap"]
    ids = golden_model.generate(**inputs, max_new_tokens=len(tokens))[0, len(expected) :].tolist()
    # beyond a gap this small the last bits of a sum decide
    sure = next((place for place, gap in enumerate(gaps) if gap < 1e-3), len(tokens))
    assert sure > 4 and ids[:sure] == tokens[:sure]


def test_every_picture_has_the_goldens_statistics(golden: Path):
    pil = needs("PIL.Image")
    records = json.loads((golden / "preproc.json").read_text())
    for num_crops in (1, 4, 16):
        processor = AutoProcessor.from_pretrained(str(golden / "tiny"), num_crops=num_crops)
        for name, record in records.items():
            if not (golden / "images" / name).exists():
                continue
            with pil.open(golden / "images" / name) as image:
                inputs = processor("<|image_1|>", image, return_tensors="np")
            expected = record[f"nc{num_crops}"]
            assert list(inputs["pixel_values"].shape) == expected["pixel_values_shape"], name
            assert inputs["image_sizes"].tolist() == [expected["image_sizes_hw"]], name
            assert (inputs["input_ids"] == -1).sum() == expected["num_img_tokens"], name
            for tile, mean in zip(inputs["pixel_values"][0], expected["tile_mean"], strict=False):  # tiles of zeros follow
                assert tile.astype(np.float64).mean() == pytest.approx(mean, abs=2e-6), name
            values = inputs["pixel_values"][0, 0, 0, 0, :16]
            assert values.tolist() == pytest.approx(expected["global_first16_c0_row0"], abs=2e-6), name


def test_texts_have_the_goldens_ids(golden: Path):
    tokenizer = AutoTokenizer.from_pretrained(str(golden / "tiny"))
    cases = json.loads((golden / "text.json").read_text())
    for case in cases["tokenizer"]:
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decoded_skip_special"]
    for case in cases["chat_template"]:
        asked = {"add_generation_prompt": case["add_generation_prompt"]}
        prompt = tokenizer.apply_chat_template(case["messages"], tokenize=False, **asked)
        assert prompt == case["prompt"]
        assert [tokenizer.bos_token_id, *tokenizer.apply_chat_template(case["messages"], **asked)] == tokenizer.encode(prompt)
