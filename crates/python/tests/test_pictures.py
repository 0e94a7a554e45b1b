"""Pictures of every kind that Python has: the command line's pixels, or the right exception."""

import base64
import io
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import deque
from pathlib import Path

import phi3v
import pytest
from conftest import COVER, EXAMPLES, REPOSITORY, needs
from phi3v import _phi3v
from phi3v._options import split
from phi3v._pictures import prepare, several

PICTURES = sorted(path for path in (REPOSITORY / "testdata" / "images").iterdir() if path.suffix != ".json")
processor = _phi3v.open_processor("demo")


def seen(picture, **options):
    """What the model sees of a picture."""
    read = prepare(processor.picture, picture, split(options).reading)
    return read.size, read.grid, bytes(read.pixel_values(read.tiles))


def test_several_pictures_are_all_that_can_be_iterated():
    paths = [str(COVER), EXAMPLES / "text.png"]
    for kind in (list, tuple, iter, deque, lambda paths: dict(enumerate(paths)).values()):
        assert several(kind(paths)) == paths
        assert len(phi3v.tokenize_cost(kind(paths))) == 2
    assert several(set(paths[:1])) == paths[:1]
    with open(COVER, "rb") as file:
        for one in (*paths, b"", bytearray(), memoryview(b""), io.BytesIO(), file, None, {"bytes": b"", "path": None}):
            assert several(one) == [one]
    array = needs("numpy").zeros((2, 2), "uint8")
    with needs("PIL.Image").open(COVER) as image:
        image.load = None  # nothing is to be decoded yet
        for one in (array, image):
            assert len(several(one)) == 1 and several(one)[0] is one


@pytest.mark.parametrize("reference", [False, True], ids=["as_seen", "reference"])
@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_every_kind_has_the_pixels_of_the_file(path, reference):
    expected = seen(path, reference=reference)
    data = path.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for picture in (str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), url):
        assert seen(picture, reference=reference) == expected
    with open(path, "rb") as file:
        file.read(5)  # it is read from its beginning, whoever looked at it before
        assert seen(file, reference=reference) == expected
        assert seen(file, reference=reference) == expected
    pil = needs("PIL.Image")
    with pil.open(path) as image:
        assert seen(image, reference=reference) == expected, "opened"
        assert seen(image, reference=reference) == expected, "opened, and asked about again"
        image.load()
        assert seen(image, reference=reference) == expected, "loaded"
    with pil.open(io.BytesIO(data)) as image:
        assert seen(image, reference=reference) == expected, "opened from a file object"


# What Pillow gives no other pixels of than phi3v does, where the file is out of reach.
AS_PILLOW = [
    "turned.jpg", "turned.png", "turned.tif", "rgba.png", "rgb_clear.png", "palette_clear.png", "gray16.png",
    "gray_alpha.png", "gray.jpg", "rgb.png", "cmyk.jpg", "palette.gif", "bits.png", "lossless_alpha.webp", "clear.gif",
]  # fmt: skip


@pytest.mark.parametrize("reference", [False, True], ids=["as_seen", "reference"])
@pytest.mark.parametrize("name", AS_PILLOW)
def test_an_image_whose_file_is_out_of_reach_is_read_by_the_same_rules(name, reference):
    pil = needs("PIL.Image")
    path = REPOSITORY / "testdata" / "images" / name
    with pil.open(io.BytesIO(path.read_bytes())) as image:
        image.load()
        assert seen(image, reference=reference) == seen(path, reference=reference)


def test_an_image_that_was_drawn_upon_is_seen_so(tmp_path):
    pil = needs("PIL.Image")
    with pil.open(COVER) as image:
        image.putpixel((5, 5), (1, 2, 3))
        image.save(tmp_path / "drawn.png")
        assert seen(image) == seen(tmp_path / "drawn.png") != seen(COVER)
    with pil.open(COVER) as image:
        image.thumbnail((100, 100))
        image.save(tmp_path / "small.png")
        assert seen(image) == seen(tmp_path / "small.png")
    with pil.open(COVER) as image:
        turned = image.rotate(90, expand=True)
    turned.save(tmp_path / "turned.png")
    assert seen(turned) == seen(tmp_path / "turned.png")
    with pil.open(REPOSITORY / "testdata" / "images" / "animated.gif") as image:
        image.seek(1)
        image.convert("RGB").save(tmp_path / "second.png")
        assert seen(image, reference=True) == seen(tmp_path / "second.png")


MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I F I;16 I;16B".split()


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_is_read(mode):
    pil = needs("PIL.Image")
    ramp = pil.linear_gradient("L").resize((40, 30))
    via = {"La": "LA", "PA": "P", "RGBa": "RGBA", "LAB": None, "I;16B": "I", "I;16": "I", "HSV": "RGB"}.get(mode, mode)
    image = pil.new(mode, (40, 30)) if via is None else ramp.convert(via).convert(mode)
    assert seen(image)[0] == (40, 30)
    if mode == "La":  # of which the reference's convert("RGB") makes nothing either
        with pytest.raises(phi3v.PictureError):
            seen(image, reference=True)
    else:
        assert seen(image, reference=True)[0] == (40, 30)
    if mode in ("L", "RGB", "CMYK", "1"):
        assert seen(image, reference=True) == seen(image)
        np = needs("numpy")
        assert seen(image) == seen(np.asarray(image.convert("RGB")))


def test_arrays(tmp_path):
    np, pil = needs("numpy"), needs("PIL.Image")
    random = np.random.default_rng(1)
    rgb = random.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    pil.fromarray(rgb).save(tmp_path / "rgb.png")
    assert seen(rgb) == seen(tmp_path / "rgb.png")
    assert seen(np.asfortranarray(rgb)) == seen(rgb) == seen(rgb[::-1][::-1]), "whatever its strides"
    gray = rgb[:, :, 0]
    pil.fromarray(gray).save(tmp_path / "gray.png")
    with pytest.warns(PendingDeprecationWarning, match="matrix"):
        matrix = np.asmatrix(gray)
    assert seen(gray) == seen(gray[:, :, None]) == seen(matrix) == seen(tmp_path / "gray.png")
    rgba = random.integers(0, 256, (50, 70, 4), dtype=np.uint8)
    pil.fromarray(rgba).save(tmp_path / "rgba.png")
    for reference in (False, True):
        assert seen(rgba, reference=reference) == seen(tmp_path / "rgba.png", reference=reference)


def test_any_array_is_a_picture_or_the_right_exception():
    np, hypothesis = needs("numpy"), needs("hypothesis")
    st = hypothesis.strategies

    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(
        st.lists(st.integers(0, 9), max_size=4), st.sampled_from(["uint8", "int8", "float32", "bool", "uint16", "O"])
    )
    def check(shape, dtype):
        array = np.zeros(shape, dtype)
        if dtype != "uint8":
            with pytest.raises(TypeError, match="must hold uint8"):
                seen(array)
        elif len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)) or 0 in shape[:2]:
            with pytest.raises(phi3v.PictureError):
                seen(array)
        else:
            assert seen(array)[0] == (shape[1], shape[0])

    check()


def test_any_damage_is_a_picture_or_the_right_exception():
    hypothesis = needs("hypothesis")
    st = hypothesis.strategies
    files = [path.read_bytes() for path in PICTURES]

    @hypothesis.settings(max_examples=150, deadline=None)
    @hypothesis.given(st.sampled_from(files), st.floats(0, 1), st.integers(0, 255), st.booleans())
    def check(data, place, value, cut):
        at = int(place * (len(data) - 1))
        data = data[:at] if cut else data[:at] + bytes([value]) + data[at + 1 :]
        for picture in (data, io.BytesIO(data)):
            try:
                seen(picture)
            except phi3v.PictureError as error:
                assert str(error)

    check()


def test_any_text_is_a_picture_or_the_right_exception():
    hypothesis = needs("hypothesis")

    @hypothesis.settings(max_examples=60, deadline=None)
    @hypothesis.given(hypothesis.strategies.text().map(lambda text: f"data:{text}") | hypothesis.strategies.text())
    def check(text):
        with pytest.raises((phi3v.PictureError, UnicodeEncodeError)):
            seen(text)

    check()


def test_truncated_pictures_are_refused():
    pil = needs("PIL.Image")
    for name in ("rgb.png", "420.jpg", "rgb.bmp", "palette.gif", "lossy.webp", "rgb.tif"):
        data = (REPOSITORY / "testdata" / "images" / name).read_bytes()
        for length in (0, 1, 40, len(data) // 2):
            with pytest.raises(phi3v.PictureError):
                seen(data[:length])
        try:
            image = pil.open(io.BytesIO(data[: len(data) // 2]))
        except OSError:
            continue
        with pytest.raises(phi3v.PictureError):
            seen(image)


@pytest.mark.parametrize("format", ["JPEG", "MPO"])
def test_what_pillow_fills_up_of_a_truncated_picture_is_taken(format, monkeypatch):
    pil, files = needs("PIL.Image"), needs("PIL.ImageFile")
    file = io.BytesIO()
    with pil.open(COVER) as image:
        shown = image.convert("RGB")
    more = {"save_all": True, "append_images": [pil.new("RGB", shown.size, "blue")]} if format == "MPO" else {}
    shown.save(file, format, **more)
    truncated = file.getvalue()[: len(file.getvalue()) // 2]

    def opened():
        image = pil.open(io.BytesIO(truncated))
        assert image.format == format
        return image

    with pytest.raises(phi3v.PictureError, match="truncated"):
        seen(opened())
    monkeypatch.setattr(files, "LOAD_TRUNCATED_IMAGES", True)
    assert seen(opened()) == seen(opened().convert("RGB"))


def test_what_is_no_picture_is_refused_by_its_type():
    for nothing in (None, 5, 5.0, object(), {"path": "a.png"}, {1, 2}, [COVER], True):
        with pytest.raises(TypeError, match="a picture must be a path, bytes"):
            seen(nothing)


def test_files_that_cannot_be_read():
    closed = open(COVER, "rb")
    closed.close()
    with pytest.raises(phi3v.PictureError, match="closed file"):
        seen(closed)
    for encoding in ("latin-1", "utf-8"):
        with open(COVER, encoding=encoding) as text, pytest.raises(TypeError, match="bytes, not str: open it with 'rb'"):
            seen(text)

    class Broken(io.RawIOBase):
        def read(self, size=-1):
            raise OSError("The disk is on fire.")

    with pytest.raises(phi3v.PictureError, match="cannot read the file: the disk is on fire$"):
        seen(Broken())
    with pytest.raises(phi3v.PictureError, match="is a directory"):
        seen(EXAMPLES)

    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return bytes(min(size, 1 << 20))

    with pytest.raises(phi3v.PictureError, match="the limit is 5000000"):
        seen(Endless(), max_image_bytes=5_000_000)


def is_closed(ask):
    with pytest.raises(phi3v.PictureError) as raised:
        ask()
    return str(raised.value) == "the image was closed" and raised.value.hint == "ask within its with block, or about a copy of it"


@pytest.mark.parametrize("name", ["rgb.png", "420.jpg", "rgb.bmp", "palette.gif", "animated.gif", "lossy.webp", "rgb.tif"])
def test_an_image_that_was_closed_is_told_so(name):
    pil = needs("PIL.Image")
    path = REPOSITORY / "testdata" / "images" / name
    for reference in (False, True):
        with pil.open(path) as image:
            expected = seen(image, reference=reference)
        if name != "lossy.webp":  # which Pillow has read when it opens it
            assert is_closed(lambda image=image, reference=reference: seen(image, reference=reference))
        with pil.open(path) as image:
            image.load()
        assert seen(image, reference=reference)[:2] == expected[:2], "Pillow has its pixels"
        image.close()
        assert is_closed(lambda image=image, reference=reference: seen(image, reference=reference))


@pytest.mark.parametrize("raised", [AssertionError(), KeyError("tile"), struct.error("unpack requires 4 bytes")])
def test_whatever_pillow_raises_is_a_picture_that_cannot_be_read(raised, monkeypatch):
    pil = needs("PIL.Image")

    def load(self, *arguments, **named):
        raise raised

    with pil.open(io.BytesIO(COVER.read_bytes()[:5000])) as image:
        monkeypatch.setattr(type(image), "load", load)
        with pytest.raises(phi3v.PictureError, match="^the image: (?!cannot read)"):
            seen(image)
    image = pil.new("RGB", (5, 5))
    monkeypatch.setattr(type(image), "convert", load)
    with pytest.raises(phi3v.PictureError, match="^cannot read the image: .") as told:
        seen(image)
    assert told.value.__cause__ is raised


def test_pictures_with_transparency_and_orientation_differ_between_the_modes():
    for name in ("turned.jpg", "rgba.png", "gray16.png"):
        path = REPOSITORY / "testdata" / "images" / name
        assert seen(path) != seen(path, reference=True)


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_a_turned_photograph_of_whatever_colours_is_seen_upright(mode):
    pil = needs("PIL.Image")
    pixels = pil.effect_noise((40, 24), 90).convert("RGB")
    pixels.paste((200, 30, 60), (0, 0, 12, 7))
    exif = pil.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pixels.convert(mode).save(file, "JPEG", exif=exif)
    for reference in (False, True):
        image = pil.open(io.BytesIO(file.getvalue()))
        image.load()
        assert image.mode == mode
        upright = image if reference else image.transpose(pil.Transpose.ROTATE_270)
        assert seen(image, reference=reference) == seen(upright.convert("RGB"), reference=reference)


def test_costs(demo):
    both = phi3v.tokenize_cost([COVER, EXAMPLES / "chart.png"])
    assert both.tokens == sum(cost.tokens for cost in both) and both.tiles == sum(cost.tiles for cost in both)
    (one,) = phi3v.tokenize_cost(COVER, num_crops=16)
    height, width = one.grid
    assert one.tiles == 1 + height * width and one.tokens == one.tiles * 144 + 1 + (height + 1) * 12
    assert one.distinct_tiles <= one.tiles
    assert demo.tokenize_cost(COVER, detail="low").tokens == demo.tokenize_cost(COVER).tokens == 313
    assert phi3v.tokenize_cost([]).tokens == 0


def test_files_with_strange_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-", "a b.png", "日本.png", "data.png"):
        Path(name).write_bytes(COVER.read_bytes())
        assert seen(name) == seen(Path(name)) == seen(COVER)
    with tempfile.TemporaryFile() as file:
        file.write(COVER.read_bytes())
        assert seen(file) == seen(COVER)


def test_pictures_come_from_hosts_that_were_allowed():
    with pytest.raises(phi3v.PictureError, match="not fetched"):
        seen("http://localhost:1/a.png")
    with pytest.raises(phi3v.PictureError, match="outside the public internet"):
        seen("http://localhost:1/a.png", allow_hosts="localhost:1")
    with pytest.raises(phi3v.PictureError, match="this host"):
        seen("http://localhost:1/a.png", allow_hosts=["images.example.org"])


DOCUMENTS = REPOSITORY / "testdata" / "documents"


def test_a_document_is_its_pages():
    path = DOCUMENTS / "shapes.pdf"
    sizes = [(cost.width, cost.height) for cost in phi3v.tokenize_cost(path, num_crops=1)]
    assert sizes == [(237, 336), (336, 237), (336, 237)]
    url = "data:application/pdf;base64," + base64.b64encode(path.read_bytes()).decode()
    for document in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), url):
        costs = phi3v.tokenize_cost(document, num_crops=1)
        assert [(cost.width, cost.height) for cost in costs] == sizes
        for pages, expected in [(2, sizes[1:2]), ("2-", sizes[1:]), ("3,1", [sizes[2], sizes[0]])]:
            costs = phi3v.tokenize_cost(document, num_crops=1, pages=pages)
            assert [(cost.width, cost.height) for cost in costs] == expected
    both = phi3v.tokenize_cost([COVER, path], num_crops=1, pages=1)
    assert len(both) == 2, "a picture has no pages to choose from"
    tiff = DOCUMENTS / "pages.tif"
    assert len(phi3v.tokenize_cost(tiff)) == 1
    assert [cost.width for cost in phi3v.tokenize_cost(tiff, pages="2-")] == [30, 20]


def test_pages_of_what_has_none_are_warned_of():
    pil = needs("PIL.Image")
    with pil.open(COVER) as image:
        pixels = image.convert("RGB")
    for picture in (COVER, COVER.read_bytes(), pixels):
        with pytest.warns(UserWarning, match="is one picture, of which pages chooses nothing") as warned:
            phi3v.tokenize_cost(picture, pages="2-")
        assert [warning.filename for warning in warned] == [__file__]


def test_pages_that_are_not_there_or_none():
    path = DOCUMENTS / "shapes.pdf"
    with pytest.raises(phi3v.PictureError, match="there is no page 9, the document has 3") as raised:
        phi3v.tokenize_cost(path, pages=9)
    assert raised.value.hint == "its pages are 1 to 3"
    for pages in ("0", "a", "3-1", 0):
        with pytest.raises(phi3v.OptionError, match="1-3,7,10-"):
            phi3v.tokenize_cost(path, pages=pages)
    with pytest.raises(TypeError, match="pages must be an int"):
        phi3v.tokenize_cost(path, pages=1.5)
    with pytest.raises(phi3v.PictureError, match="password"):
        phi3v.tokenize_cost(DOCUMENTS / "password.pdf")
    with pytest.raises(phi3v.PictureError, match="never|could not be|damaged"):
        phi3v.tokenize_cost(b"%PDF-1.7 nothing")


def test_a_document_of_many_pages_asks_for_a_choice():
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 90 90] >>"
    kids = b" ".join(b"%d 0 R" % number for number in range(3, 20))
    contents = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count 17 >>" % kids, *[page] * 17]
    objects = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, content) for number, content in enumerate(contents, 1))
    document = b"%PDF-1.7\n" + objects + b"trailer\n<< /Root 1 0 R >>\n"
    with pytest.raises(phi3v.PictureError, match="17 pages, and 16 at most are looked at together") as raised:
        phi3v.tokenize_cost(document)
    assert raised.value.hint == "choose pages, as 1-16"
    assert len(phi3v.tokenize_cost(document, pages="1-16", num_crops=1)) == 16


def broken_page():
    """A PDF with a red area, and a picture that cannot be decoded."""
    contents = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /XObject << /I 5 0 R >> >> >>",
    ]
    drawn = b"1 0 0 rg 0 0 600 400 re f q 100 0 0 100 50 600 cm /I Do Q"
    picture = b"/Type /XObject /Subtype /Image /Width 8 /Height 8 /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /JPXDecode"
    for words, data in [(b"", drawn), (picture, b"no picture at all")]:
        contents.append(b"<< %s /Length %d >>\nstream\n%s\nendstream" % (words, len(data), data))
    objects = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, content) for number, content in enumerate(contents, 1))
    return b"%PDF-1.7\n" + objects + b"trailer\n<< /Root 1 0 R >>\n"


def test_what_is_missing_on_a_page_is_warned_of(demo, recwarn):
    told = "could not be drawn, and is missing"
    for ask in (lambda: phi3v.tokenize_cost(broken_page()), lambda: demo.ask("What?", broken_page(), max_new_tokens=1)):
        with pytest.warns(UserWarning, match=told) as warned:
            ask()
        assert [warning.filename for warning in warned] == [__file__]
    phi3v.tokenize_cost(DOCUMENTS / "shapes.pdf")
    assert not recwarn.list


def test_the_model_reads_the_page_that_was_chosen(demo):
    for page, written in [(1, "Garden Notes"), (2, "Team Plan")]:
        choices = ["Garden Notes", "Team Plan"]
        decision = demo.decide("What is written here?", DOCUMENTS / "words.pdf", choices=choices, pages=page)
        assert decision == written
    answers = list(demo.batch([{"question": "What is written here?", "images": DOCUMENTS / "words.pdf", "pages": 2}]))
    assert len(answers) == 1
    chat = demo.chat(DOCUMENTS / "words.pdf", pages=1)
    assert str(chat.ask("What is written here?")) == str(
        demo.ask("What is written here?", DOCUMENTS / "words.pdf", pages=1)
    )


@pytest.mark.parametrize(("kind", "size"), [("heic", (96, 64)), ("avif", (64, 48))])
def test_photographs_of_phones(kind, size):
    path = REPOSITORY / "testdata" / kind / f"color_420.{kind}"
    expected = seen(path)
    assert expected[0] == size
    data = path.read_bytes()
    url = f"data:image/{kind};base64," + base64.b64encode(data).decode()
    for picture in (str(path), data, memoryview(data), io.BytesIO(data), url):
        assert seen(picture) == expected


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp"])
def test_a_frame_of_an_animation_is_the_one_that_pillow_is_at(name, tmp_path):
    pil = needs("PIL.Image")
    with pil.open(REPOSITORY / "testdata" / "images" / name) as image:
        first = seen(image)
        image.seek(1)
        second = image.convert("RGBA")
        second.save(tmp_path / "second.png")
        assert seen(image) == seen(tmp_path / "second.png") != first
        image.seek(0)
        assert seen(image) == first == seen(REPOSITORY / "testdata" / "images" / name)


def test_room_for_more_tiles_than_a_memory_has_is_an_error():
    read = prepare(processor.picture, COVER, split({}).reading)
    for tiles in (1 << 43, 1 << 62, (1 << 64) - 1):
        with pytest.raises(ValueError, match=f"^no memory holds {tiles} tiles$"):
            read.pixel_values(tiles)
    with pytest.raises(ValueError, match="the picture has 2 tiles, and room was asked for 1"):
        read.pixel_values(1)


def test_limits_are_those_of_pixels_too():
    """Whatever a picture comes as: what its file is refused for, its pixels are not taken for."""
    np, pil = needs("numpy"), needs("PIL.Image")
    array = np.zeros((500, 600, 4), np.uint8)
    file = io.BytesIO()
    pil.fromarray(array[:, :, :3]).save(file, "PNG")

    def loaded():
        image = pil.open(io.BytesIO(file.getvalue()))
        image.load()
        return image

    pictures = [
        array,
        array[:, :, :3],
        array[:, :, 0],
        file.getvalue(),
        pil.open(io.BytesIO(file.getvalue())),
        loaded(),
        pil.fromarray(array),
        pil.new("CMYK", (600, 500)),
    ]
    for picture in pictures:
        for reference in (False, True):
            for options, words in [
                ({"max_pixels": 299_999}, "the picture is 600x500, that is 300000 pixels, the limit is 299999"),
                ({"max_side": 599}, "the picture is 600x500, the limit of a side is 599 pixels"),
            ]:
                with pytest.raises(phi3v.PictureError, match=words):
                    seen(picture, reference=reference, **options)
            assert seen(picture, max_pixels=300_000, max_side=600, reference=reference)[0] == (600, 500)


def test_a_file_beyond_a_limit_is_not_read_as_pixels():
    pil = needs("PIL.Image")
    for name, options, words in [
        ("animated.gif", {"max_frames": 1}, "has more than 1 frame, the limit"),
        ("rgb.png", {"max_image_bytes": 50}, "bytes, the limit is 50"),
    ]:
        path = REPOSITORY / "testdata" / "images" / name
        with pil.open(path) as opened, pil.open(io.BytesIO(path.read_bytes())) as of_bytes:
            for picture in (path, opened, of_bytes):
                with pytest.raises(phi3v.PictureError, match=words):
                    seen(picture, **options)


def test_no_more_of_a_file_is_read_than_a_picture_may_have(tmp_path):
    pil = needs("PIL.Image")
    data = COVER.read_bytes() + bytes(1 << 20)
    path = tmp_path / "long.png"
    path.write_bytes(data)

    class Counted(io.BytesIO):
        most = 0

        def read(self, size=-1):
            chunk = super().read(size)
            self.most = max(self.most, len(chunk))
            return chunk

    limit = len(data) - 5000
    words = f"has {limit + 1} bytes, the limit is {limit}"
    files = [Counted(data), Counted(data)]
    for file, picture in zip(files, (files[0], pil.open(files[1])), strict=True):
        file.most = 0
        with pytest.raises(phi3v.PictureError, match=words):
            seen(picture, max_image_bytes=limit)
        assert file.most <= limit + 1
    for loads in (False, True):
        with pil.open(path) as image:
            if loads:
                image.load()
            with pytest.raises(phi3v.PictureError, match=words):
                seen(image, max_image_bytes=limit)
            assert seen(image, max_image_bytes=len(data)) == seen(COVER)
    with pytest.raises(phi3v.PictureError, match=f"has {len(data)} bytes, the limit is {limit}"):
        seen(data, max_image_bytes=limit)


@pytest.mark.parametrize(
    ("name", "most"),
    [("max_pixels", 1 << 32), ("max_side", 1 << 20), ("max_image_bytes", 1 << 34), ("max_frames", (1 << 32) - 1)],
)
def test_limits_have_the_ranges_of_the_command_line(name, most):
    expected = seen(COVER)
    data = COVER.read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    with open(COVER, "rb") as file:
        for picture in (COVER, data, io.BytesIO(data), file, url):
            assert seen(picture, **{name: most}) == expected
    for beyond in (0, -1, most + 1, (1 << 63) - 1, 1 << 80):
        with pytest.raises(phi3v.OptionError, match=f"^{name} is {beyond}, it must be from 1 to {most}$"):
            seen(COVER, **{name: beyond})
    flag = f"--{name.replace('_', '-')}"
    command = [sys.executable, "-m", "phi3v", "ask", "no-such.png", "What is this?"]
    for number, told in [(most, "cannot read no-such.png"), (most + 1, "is not in ")]:
        done = subprocess.run([*command, f"{flag}={number}"], capture_output=True, text=True, timeout=300)
        assert told in done.stderr, done.stderr


def head(side):
    """A PNG of so many rows and columns, and none of their pixels."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("side", "limits", "words"),
    [
        (1 << 20, {"max_pixels": 2**63 - 1, "max_side": 2**63 - 1}, "OptionError max_pixels is 9223372036854775807, it must"),
        (
            1 << 16,  # 12.9 GB, where a process may have 8
            {"max_pixels": 1 << 32, "max_side": 1 << 20},
            "RoomError the picture: there is no memory for 12884901888 bytes of the picture's pixels",
        ),
    ],
)
def test_a_head_that_states_a_huge_picture_ends_no_process(side, limits, words):
    if side == 1 << 16 and sys.platform != "linux":
        pytest.skip("SKIPPED: needs Linux' limit on the memory of a process")
    code = f"""
import phi3v, sys
if sys.platform == "linux":
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    phi3v.tokenize_cost({head(side)!r}, **{limits})
except phi3v.Phi3VError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(words), done


def test_pillow_decodes_nothing_of_what_is_beyond_a_limit(tmp_path):
    pil = needs("PIL.Image")
    for name in ("a.ppm", "a.png", "a.webp"):
        pil.new("RGB", (60, 50)).save(tmp_path / name)
        with pil.open(tmp_path / name) as image:
            image.load = lambda: pytest.fail("it was decoded")
            with pytest.raises(phi3v.PictureError, match="the limit is 2999"):
                seen(image, max_pixels=2999)


def test_what_has_no_pixels_is_told_so():
    np, pil = needs("numpy"), needs("PIL.Image")
    for picture in (np.zeros((0, 5, 3), np.uint8), np.zeros((0, 5, 4), np.uint8), pil.new("RGB", (5, 0))):
        with pytest.raises(phi3v.PictureError, match="the picture is 5x0, a side must be 1 pixel or more") as raised:
            seen(picture)
        assert raised.value.hint == "look how it was made: a part cut out beyond a picture's edge has no pixels"


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_page_that_pillow_has_turned_is_not_turned_again(compression, tmp_path):
    pil = needs("PIL.Image")
    ramp = pil.linear_gradient("L")
    first, second = ramp.resize((40, 30)).convert("RGB"), ramp.resize((30, 60)).convert("RGB")
    second.encoderinfo = {"tiffinfo": {274: 6}, "compression": compression}
    path = tmp_path / "pages.tif"
    first.save(path, save_all=True, append_images=[second], compression=compression)
    expected = tmp_path / "second.png"
    second.transpose(pil.Transpose.ROTATE_270).save(expected)
    for loads in (False, True):
        with pil.open(path) as image:
            image.seek(1)
            if loads:
                image.load()
            assert seen(image) == seen(expected)
            assert seen(image)[0] == (60, 30)
    (page,) = phi3v.tokenize_cost(path, pages=2)
    assert (page.width, page.height) == (60, 30)


@pytest.mark.parametrize("name", ["turned", "mirrored", "alpha", "cropped", "gray", "color_420", "sequence"])
def test_an_avif_that_pillow_has_opened_is_decoded_by_phi3v(name):
    pil = needs("PIL.Image")
    if not needs("PIL.features").check("avif"):
        pytest.skip("SKIPPED: this Pillow reads no AVIF")
    path = REPOSITORY / "testdata" / "avif" / f"{name}.avif"
    expected = seen(path)
    with pil.open(path) as image:
        assert seen(image) == expected, "opened"
        image.load()
        assert seen(image) == expected, "loaded"
    with pil.open(io.BytesIO(path.read_bytes())) as image:
        assert seen(image) == expected, "opened from a file object"
        image.load()
        image.seek(0)
        if name != "cropped":  # which Pillow leaves whole
            assert seen(image)[0] == expected[0], "its file is out of reach"


@pytest.mark.parametrize("name", ["turned", "color_420", "alpha"])
def test_a_heic_that_pillow_has_opened_is_decoded_by_phi3v(name):
    pil = needs("PIL.Image")
    needs("pillow_heif").register_heif_opener()
    path = REPOSITORY / "testdata" / "heic" / f"{name}.heic"
    expected = seen(path)
    for opened in (path, io.BytesIO(path.read_bytes())):
        with pil.open(opened) as image:
            assert image.format == "HEIF" and seen(image) == expected
    with pil.open(path) as image:
        image.load()
        assert seen(image) == expected, "loaded"
