"""Make the small pictures of testdata/images and the results the reference's libraries give for them.

    pip install pillow==10.3.0 numpy==1.26.4 torch==2.4.1
    python scripts/reference/image_fixtures.py testdata/images    (with libjpeg-turbo's cjpeg on the path)

Writes one picture per format and kind, and expected.json:
    size, reference     width, height and SHA-256 of Pillow's convert("RGB")
    seen_size, seen     the same as people see it: EXIF orientation, transparency on white, 16-bit gray as v >> 8
    hd                  per num_crops: size (w, h) and SHA-256 of the HD image of the reference pixels
    global              for num_crops 4: values of the global view at SPOTS, per colour, by torch's bicubic

The HD transform is written here after the paper and the published image processor, on Pillow's own resize.
"""

import hashlib
import io
import json
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
SPOTS = [(0, 0), (0, 335), (335, 0), (335, 335), (1, 100), (100, 1), (167, 168), (200, 77), (300, 301)]
rng = np.random.default_rng(336)


def picture(width, height, channels):
    """Smooth colours with some noise: compresses, and every filter has something to do."""
    coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), channels), dtype=np.uint8)
    planes = [np.asarray(Image.fromarray(coarse[:, :, c]).resize((width, height), 3)) for c in range(channels)]
    noise = rng.integers(-9, 10, (height, width, channels))
    return np.clip(np.stack(planes, 2).astype(int) + noise, 0, 255).astype(np.uint8)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def interlaced_png(pixels):
    """An Adam7 RGB picture, which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    rows = b""
    for x, y, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::dy, x::dx] if row.size)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def bmp(width, height, bits, compression, data, palette=b""):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


def rle8(indices):
    """Runs and literals of an 8-bit BMP, from the bottom row up."""
    out = b""
    for row in indices[::-1]:
        at = 0
        while at < len(row):
            run = 1
            while at + run < len(row) and row[at + run] == row[at] and run < 255:
                run += 1
            literal = min(5, len(row) - at)
            if run < 3 and literal >= 3:
                out += bytes([0, literal]) + row[at : at + literal].tobytes() + b"\0" * (literal % 2)
                at += literal
            else:
                out += bytes([run, row[at]])
                at += run
        out += b"\0\0"
    return out + b"\0\1"


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def cjpeg(image, *options):
    """Kinds of JPEG that Pillow does not write, by libjpeg-turbo's own program."""
    return subprocess.run(["cjpeg", *options], input=saved(image, "PPM"), capture_output=True, check=True).stdout


def coarse_steps(data):
    """A JPEG whose coefficients are multiplied by far more than they were divided by: its transform saturates."""
    data = bytearray(data)
    at = data.find(b"\xff\xdb")
    while at >= 0:
        data[at + 5 : at + 69] = bytes(1 + 254 * (i % 3 == 0) for i in range(64))
        at = data.find(b"\xff\xdb", at + 69)
    return bytes(data)


def alpha_announced(data):
    """A lossy WebP whose header announces alpha, which it has not."""
    width, height = Image.open(io.BytesIO(data)).size
    sizes = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X\x0a\0\0\0\x10\0\0\0" + sizes + data[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def files():
    rgb = Image.fromarray(picture(53, 38, 3))
    tall = Image.fromarray(picture(20, 61, 3))
    rgba = Image.fromarray(picture(41, 30, 4), "RGBA")
    gray = Image.fromarray(picture(33, 27, 1)[:, :, 0])
    palette = rgb.quantize(37)
    bits = gray.convert("1")
    deep = Image.fromarray((picture(24, 31, 1)[:, :, 0].astype(np.uint16) * 257) ^ 0x5A)
    cmyk = Image.fromarray(picture(40, 29, 4), "CMYK")
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "rgb.png", saved(rgb, "PNG")
    yield "tall.png", saved(tall, "PNG")
    yield "rgba.png", saved(rgba, "PNG")
    yield "gray.png", saved(gray, "PNG")
    yield "gray_alpha.png", saved(rgba.convert("LA"), "PNG")
    yield "gray16.png", saved(deep, "PNG")
    yield "bits.png", saved(bits, "PNG")
    yield "palette.png", saved(palette, "PNG")
    yield "palette4.png", saved(rgb.quantize(16), "PNG", bits=4)
    yield "palette_clear.png", saved(palette, "PNG", transparency=bytes([0, 128, 255, 64]))
    yield "rgb_clear.png", saved(rgb, "PNG", transparency=rgb.getpixel((3, 3)))
    yield "turned.png", saved(rgb, "PNG", exif=turned)
    yield "interlaced.png", interlaced_png(np.asarray(rgb))
    for name, options in {
        "420": {"subsampling": 2}, "422": {"subsampling": 1}, "444": {"subsampling": 0},
        "progressive": {"progressive": True}, "restart": {"restart_marker_blocks": 2}, "turned": {"exif": turned},
    }.items():
        yield f"{name}.jpg", saved(rgb, "JPEG", quality=85, **options)
    yield "gray.jpg", saved(gray, "JPEG")
    yield "cmyk.jpg", saved(cmyk, "JPEG")
    yield "lossy.webp", saved(rgb, "WEBP", quality=80)
    yield "lossless.webp", saved(rgb, "WEBP", lossless=True)
    yield "lossy_alpha.webp", saved(rgba, "WEBP", quality=80)
    yield "lossless_alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True)
    yield "turned.webp", saved(rgb, "WEBP", lossless=True, exif=turned)
    yield "animated.webp", saved(rgba, "WEBP", save_all=True, append_images=[rgba.transpose(0)], quality=80)
    yield "palette.gif", saved(palette, "GIF")
    yield "clear.gif", saved(palette, "GIF", transparency=5)
    yield "interlaced.gif", saved(palette, "GIF", interlace=1)
    yield "animated.gif", saved(rgb, "GIF", save_all=True, append_images=[rgb.transpose(0)])
    for name, image in {"rgb": rgb, "rgba": rgba, "gray": gray, "palette": palette, "bits": bits}.items():
        yield f"{name}.bmp", saved(image, "BMP")
    table = rng.integers(0, 256, 1024, dtype=np.uint8).tobytes()
    yield "rle8.bmp", bmp(33, 27, 8, 1, rle8(np.asarray(gray) // 64), table)
    yield "rgb555.bmp", bmp(20, 9, 16, 0, rng.integers(0, 256, 20 * 9 * 2, dtype=np.uint8).tobytes())
    for name, image, compression in [
        ("rgb", rgb, None), ("rgb_lzw", rgb, "tiff_lzw"), ("rgb_deflate", rgb, "tiff_adobe_deflate"),
        ("gray_packbits", gray, "packbits"), ("palette", palette, "tiff_lzw"), ("rgba", rgba, "tiff_lzw"),
        ("cmyk", cmyk, "packbits"), ("gray16", deep, None), ("fax", bits, "group4"), ("rgb_jpeg", rgb, "jpeg"),
    ]:
        yield f"{name}.tif", saved(image, "TIFF", compression=compression)
    yield "turned.tif", saved(rgb, "TIFF", exif=turned)
    yield "arithmetic.jpg", cjpeg(rgb, "-arithmetic", "-restart", "1")
    yield "arithmetic_progressive.jpg", cjpeg(rgb, "-arithmetic", "-progressive")
    yield "saturated.jpg", coarse_steps(saved(rgb, "JPEG", quality=100))
    yield "alpha_flag.webp", alpha_announced(saved(rgb, "WEBP", quality=80))


def as_seen(data):
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.format != "TIFF":  # Pillow turns those by itself
        image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        values = np.asarray(image.convert("RGBA")).astype(int)
        color, alpha = values[:, :, :3], values[:, :, 3:]
        return Image.fromarray(((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))
    return image.convert("RGB")


def hd_transform(image, num_crops):
    portrait = image.width < image.height
    if portrait:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    ratio = image.width / image.height
    scale = 1
    while scale * math.ceil(scale / ratio) <= num_crops:
        scale += 1
    width = (scale - 1) * 336
    height = int(width / ratio)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    padded = Image.new("RGB", (width, math.ceil(height / 336) * 336), (255, 255, 255))
    padded.paste(resized, (0, (padded.height - height) // 2))
    return padded.transpose(Image.Transpose.TRANSPOSE) if portrait else padded


def global_view(hd):
    values = (np.asarray(hd).astype(np.float32) / np.float32(255) - MEAN) / STD
    tensor = torch.from_numpy(values).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(tensor, size=(336, 336), mode="bicubic", align_corners=False)[0]


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    expected = {"spots": SPOTS, "files": {}}
    for name, data in files():
        (folder / name).write_bytes(data)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        seen = as_seen(data)
        entry = {"size": image.size, "reference": digest(image), "seen_size": seen.size, "seen": digest(seen)}
        if name.endswith(".png"):
            hds = {num_crops: hd_transform(image, num_crops) for num_crops in (1, 4, 6)}
            entry["hd"] = {str(n): {"size": hd.size, "sha256": digest(hd)} for n, hd in hds.items()}
            view = global_view(hds[4])
            entry["global"] = [[float(view[c, y, x]) for y, x in SPOTS] for c in range(3)]
        expected["files"][name] = entry
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
