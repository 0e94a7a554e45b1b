"""Small PDF files for the tests of documents, written out byte by byte, and animations.

    pip install pillow==10.3.0           # for the animations
    python scripts/reference/document_fixtures.py testdata/documents

shapes.pdf       three pages with a text and a rectangle of a known place and colour: upright, wide, and turned by /Rotate
password.pdf     the same, encrypted (RC4, 128 bits); it opens with the password "secret"
no_password.pdf  the same, encrypted with an empty password, as files that only must not be printed are
words.pdf        two pages with a text in large letters each, which the demo model reads
endless.pdf      forms that draw each other ten times each, forty deep: more work than there is time
pages.tif        three pages, 40x30, 30x40 and 20x20, of one gray each: 10, 120 and 250
scenes.webp      red, blue, and blue with a white half, for two seconds each
blended.webp     six frames with transparency, of which parts change; blended.png has what Pillow reads of them, one below the other
"""

import hashlib
import pathlib
import struct
import sys
import zlib

from PIL import Image

PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
IDENTITY = hashlib.md5(b"phi3v").digest()


def rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


class Lock:
    """The standard security handler, revision 3 (ISO 32000-1, 7.6.3)."""

    def __init__(self, user: bytes, owner: bytes) -> None:
        key = hashlib.md5((owner + PADDING)[:32]).digest()
        for _ in range(50):
            key = hashlib.md5(key).digest()
        self.owner = self.layers(key, (user + PADDING)[:32])
        self.permissions = -4
        key = hashlib.md5(
            (user + PADDING)[:32] + self.owner + struct.pack("<i", self.permissions) + IDENTITY
        ).digest()
        for _ in range(50):
            key = hashlib.md5(key).digest()
        self.key = key
        self.user = self.layers(key, hashlib.md5(PADDING + IDENTITY).digest()) + bytes(16)

    @staticmethod
    def layers(key: bytes, data: bytes) -> bytes:
        for layer in range(20):
            data = rc4(bytes(byte ^ layer for byte in key), data)
        return data

    def encrypt(self, number: int, data: bytes) -> bytes:
        key = hashlib.md5(self.key + struct.pack("<I", number)[:3] + b"\0\0").digest()
        return rc4(key, data)

    def dictionary(self) -> bytes:
        return b"<< /Filter /Standard /V 2 /R 3 /Length 128 /P %d /O <%s> /U <%s> >>" % (
            self.permissions,
            self.owner.hex().encode(),
            self.user.hex().encode(),
        )


def stream(data: bytes, more: bytes = b"") -> bytes:
    return b"<< /Length %d %s>>\nstream\n%s\nendstream" % (len(data), more, data)


def file(objects: list[bytes], encrypt: bytes = b"") -> bytes:
    """A PDF of these objects, the first of which is its catalogue."""
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table, size, identity = len(out), len(objects) + 1, IDENTITY.hex().encode()
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R %s/ID [<%s> <%s>] >>\n" % (size, encrypt, identity, identity)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


SHAPES = [
    (b"[0 0 595.276 841.89]", b"q 1 0 0 rg 100 600 200 100 re f Q", b"", b"24 Tf 120 300 Td (Page one)"),
    (b"[0 0 841.89 595.276]", b"q 0 0 1 rg 400 100 300 50 re f Q", b"", b"24 Tf 120 300 Td (Page two)"),
    (b"[0 0 595.276 841.89]", b"q 0 0.5 0 rg 0 0 100 841.89 re f Q", b"/Rotate 90", b"24 Tf 120 300 Td (Page three)"),
]
WORDS = [
    (b"[0 0 360 270]", b"", b"", b"36 Tf 40 150 Td (Garden Notes)"),
    (b"[0 0 360 270]", b"", b"", b"36 Tf 40 150 Td (Team Plan)"),
]


def pages(described: list[tuple[bytes, bytes, bytes, bytes]], lock: Lock | None = None) -> bytes:
    """A PDF with pages of a size, shapes, further entries and a text each."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    for box, shape, more, text in described:
        content = b"%s BT /F %s Tj ET" % (shape, text)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox %s %s /Contents %d 0 R /Resources << /Font << /F 3 0 R >> >> >>"
            % (box, more, len(objects) + 2)
        )
        content = zlib.compress(content, 9)
        content = lock.encrypt(len(objects) + 1, content) if lock else content
        objects.append(stream(content, b"/Filter /FlateDecode "))
    kids = b" ".join(b"%d 0 R" % number for number in range(4, len(objects) + 1, 2))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(described), kids)
    return file(objects, b"/Encrypt %s " % lock.dictionary() if lock else b"")


def endless() -> bytes:
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 595 842] "
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /XObject << /X 5 0 R >> >> >>",
        stream(b"/X Do"),
    ]
    for number in range(6, 46):
        objects.append(stream(b"/X Do " * 10, form + b"/Resources << /XObject << /X %d 0 R >> >> " % number))
    return file([*objects, stream(b"0 0 9 9 re f", form)])


def tiff() -> bytes:
    out = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for width, height, gray in [(40, 30, 10), (30, 40, 120), (20, 20, 250)]:
        pixels = len(out)
        out += bytes([gray]) * (width * height)
        out[link : link + 4] = struct.pack("<I", len(out))
        tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, pixels), (277, 1), (278, height)]
        tags.append((279, width * height))
        out += struct.pack("<H", len(tags))
        for tag, value in tags:
            out += struct.pack("<HHII", tag, 4, 1, value)
        link = len(out)
        out += bytes(4)
    return bytes(out)


def scenes(path: pathlib.Path) -> None:
    """An animation: red, blue, and blue with a white half, each for two seconds."""
    red, blue = (Image.new("RGB", (64, 48), color) for color in ("#ff0000", "#0000ff"))
    half = blue.copy()
    half.paste("#ffffff", (0, 0, 32, 48))
    red.save(path, save_all=True, append_images=[blue, half], duration=2000, lossless=True)


def blended(path: pathlib.Path) -> None:
    """An animation with transparency, whose frames change in parts, lossless and lossy; and its frames by Pillow."""
    frames = []
    for step in range(6):
        frame = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
        frame.paste((255, 200 - 30 * step, 0, 255), (3 * step, 5, 3 * step + 12, 20))
        frame.paste((0, 60, 200, 128), (20, 2 * step, 36, 2 * step + 9))
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 40, 300, 100, 100, 70], allow_mixed=True)
    with Image.open(path) as image:
        read = Image.new("RGBA", (40, 30 * image.n_frames))
        for number in range(image.n_frames):
            image.seek(number)
            read.paste(image.convert("RGBA"), (0, 30 * number))
    read.save(path.with_suffix(".png"), optimize=True)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shapes.pdf").write_bytes(pages(SHAPES))
    (folder / "password.pdf").write_bytes(pages(SHAPES, Lock(b"secret", b"owner")))
    (folder / "no_password.pdf").write_bytes(pages(SHAPES, Lock(b"", b"owner")))
    (folder / "words.pdf").write_bytes(pages(WORDS))
    (folder / "endless.pdf").write_bytes(endless())
    (folder / "pages.tif").write_bytes(tiff())
    scenes(folder / "scenes.webp")
    blended(folder / "blended.webp")


if __name__ == "__main__":
    main()
