"""The faces of the wider pictures: regular, bold, italic, serif, fixed width and condensed, all from Debian's free fonts."""

from __future__ import annotations

import random
from functools import lru_cache

from drawing.canvas import FONT_ROOT, FONTS

# Debian's package of each folder
PACKAGES = {
    "dejavu": "fonts-dejavu-core fonts-dejavu-extra", "liberation": "fonts-liberation",
    "freefont": "fonts-freefont-ttf", "open-sans": "fonts-open-sans", "lato": "fonts-lato",
}
UPRIGHT = (
    "dejavu/DejaVuSans.ttf", "dejavu/DejaVuSans-Bold.ttf", "dejavu/DejaVuSansCondensed.ttf", "liberation/LiberationSans-Regular.ttf",
    "liberation/LiberationSans-Bold.ttf", "open-sans/OpenSans-Regular.ttf",
    "open-sans/OpenSans-Semibold.ttf", "lato/Lato-Regular.ttf", "lato/Lato-Bold.ttf", "lato/Lato-Light.ttf",
)
SLANTED = ("dejavu/DejaVuSans-Oblique.ttf", "liberation/LiberationSans-Italic.ttf", "liberation/LiberationSerif-Italic.ttf", "lato/Lato-Italic.ttf")
SERIF = (
    "dejavu/DejaVuSerif.ttf", "dejavu/DejaVuSerif-Bold.ttf", "dejavu/DejaVuSerifCondensed.ttf", "liberation/LiberationSerif-Regular.ttf",
    "liberation/LiberationSerif-Bold.ttf", "freefont/FreeSerif.ttf", "freefont/FreeSerifBold.ttf",
)
FIXED = ("dejavu/DejaVuSansMono.ttf", "dejavu/DejaVuSansMono-Bold.ttf", "liberation/LiberationMono-Regular.ttf", "freefont/FreeMonoBold.ttf")
FACES = UPRIGHT + SLANTED + SERIF + FIXED


@lru_cache(maxsize=1)
def check() -> None:
    """Raises unless all faces are installed."""
    missing = {PACKAGES[face.split("/")[0]] for face in FACES if not (FONT_ROOT / face).exists()}
    if missing:
        raise RuntimeError(f"faces to train on are missing: apt-get install {' '.join(sorted(missing))}")


def any_face(rng: random.Random) -> str:
    """One of the two plain faces a quarter of the time, else any."""
    check()
    return rng.choice(FONTS if rng.random() < 0.25 else FACES)
