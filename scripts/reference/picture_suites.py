"""Compare the pixels of whole folders of pictures with Pillow's.

    pip install pillow==10.3.0
    cargo build --release -p phi3v --example pixels
    python scripts/reference/picture_suites.py target/release/examples/pixels FOLDER...

Every file that begins like a PNG, JPEG, WebP, GIF, BMP or TIFF is read by both, in the reference's way. Prints a line
per file that is not the same in both, then the counts:
    equal           the same size and pixels, to the byte
    differ          other pixels; with the share of pixels and the largest difference
    refused here    read by Pillow alone, with our reason
    refused there   read by phi3v alone, with Pillow's reason
    refused         by both; not printed
"""

import io
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

from PIL import Image, ImageChops

MARKS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def is_picture(data):
    return data.startswith(MARKS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def by_pillow(data):
    """The picture and nothing, or nothing and the reason."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.convert("RGB"), None
    except Exception as error:  # Pillow raises of every kind
        return None, f"{type(error).__name__}: {error}"


def by_phi3v(program, path):
    run = subprocess.run([program, path], capture_output=True)
    if run.returncode == 0:
        return Image.open(io.BytesIO(run.stdout)).convert("RGB"), None
    return None, run.stderr.decode(errors="replace").strip()


def compare(ours, theirs):
    if ours.size != theirs.size:
        return "differ", f"sizes {ours.size} here and {theirs.size} there"
    difference = ImageChops.difference(ours, theirs)
    if difference.getbbox() is None:
        return "equal", ""
    most = ImageChops.lighter(ImageChops.lighter(*difference.split()[:2]), difference.split()[2])
    counts = most.histogram()
    share = 100 * sum(counts[1:]) / (ours.width * ours.height)
    return "differ", f"{share:.3g} % of the pixels, by {most.getextrema()[1]} at most"


def outcome(program, path, data):
    (theirs, their_reason), (ours, our_reason) = by_pillow(data), by_phi3v(program, path)
    if ours and theirs:
        return compare(ours, theirs)
    if theirs:
        return "refused here", our_reason
    if ours:
        return "refused there", their_reason
    return "refused", ""


def main(program, folders):
    warnings.simplefilter("ignore")
    counts = Counter()
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file()):
        data = path.read_bytes()
        if not is_picture(data):
            continue
        kind, reason = outcome(program, path, data)
        counts[kind] += 1
        if kind not in ("equal", "refused"):
            print(f"{kind}: {path}: {reason}", flush=True)
    print(f"{counts.total()} pictures:", ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
