"""Words, names and numbers for the rendered pictures: dictionary words and made-up ones."""

from __future__ import annotations

import random

# The characters the checkpoint can read. The space separates words inside a line.
ALPHABET = (
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    " &'-.,:!?%$"
)

COMMON = """
the and of in to a my our no new old red blue green white black gold dark light last first lost
long short deep high low wild quiet silent hidden broken little great small big hot cold warm dry
river mountain garden house forest ocean island winter summer spring autumn night day morning
evening dawn moon sun star sky rain snow wind storm fire water stone glass iron silver paper
letter book story song dance music dream memory secret shadow mirror window door road bridge
tower castle city village market station train ship boat horse bird fox wolf bear lion tiger
cat dog fish tree leaf flower rose apple lemon bread honey salt sugar coffee tea wine kitchen
table chair lamp clock key box ring crown sword king queen prince child mother father sister
brother friend stranger doctor teacher painter writer sailor soldier hunter baker farmer pilot
guide art science history nature number point line circle square time year week hour minute
world earth map journey travel voyage return escape chase search promise choice chance change
peace war power truth beauty hope love fear anger joy sorrow pride faith luck fate heart mind
hand eye voice face name word home school office street corner valley desert beach harbour
cloud thunder lightning engine machine robot rocket planet galaxy signal code data model
learning design simple modern ancient digital open sale menu today tomorrow welcome hello
thank please stop start exit enter push pull free closed notice warning daily special offer
price total report meeting agenda project team plan budget growth review summary result goal
""".split()

FIRST_NAMES = """
Anna Ben Carla David Elena Felix Grace Hugo Irene Jack Karin Leo Maria Nora Oscar Paul Quinn Rosa
Simon Tara Umar Vera Walter Xenia Yusuf Zoe Amir Bella Chen Dora Emil Fiona George Hanna Ivan
Julia Kofi Lena Marco Nina Olga Peter Ruth Sami Tom Ursula Victor Wendy Yara Zack
""".split()

_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kn pl pr qu sc sh sk sl sp st th tr x y".split()
_VOWELS = "a e i o u a e i o ai au ea ee ei oa oo ou y".split()
_CODAS = ["", "", "", "", "n", "r", "l", "s", "t", "m", "d", "k", "nd", "rt", "st", "ck", "ll", "ng", "x", "mp"]


def made_up(rng: random.Random, longest: int = 9) -> str:
    """A pronounceable lower-case word of 1 to 3 syllables, at most `longest` letters."""
    while True:
        word = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
            for _ in range(rng.choice((1, 2, 2, 2, 3)))
        )
        if 3 <= len(word) <= longest:
            return word


def scramble(rng: random.Random, longest: int = 8) -> str:
    """Letters in no order at all, so that reading cannot lean on spelling."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, longest)))


def word(rng: random.Random, longest: int = 9) -> str:
    """A lower-case word: from the list, made up, or scrambled."""
    kind = rng.random()
    if kind < 0.35:
        found = rng.choice(COMMON)
        return found if len(found) <= longest else made_up(rng, longest)
    return made_up(rng, longest) if kind < 0.9 else scramble(rng, min(longest, 8))


def cased(rng: random.Random, text: str) -> str:
    """Mostly Title Case, sometimes all upper or all lower case."""
    kind = rng.random()
    if kind < 0.2:
        return text.upper()
    return text.capitalize() if kind < 0.75 else text


def number(rng: random.Random) -> str:
    """A whole number, a percentage, a price, a year or a decimal."""
    kind = rng.random()
    if kind < 0.5:
        return str(rng.randint(0, 10 ** rng.randint(1, 4)))
    if kind < 0.65:
        return f"{rng.randint(0, 100)}%"
    if kind < 0.75:
        return f"${rng.randint(1, 999)}"
    return str(rng.randint(1900, 2049)) if kind < 0.9 else f"{rng.randint(0, 99)}.{rng.randint(0, 99)}"


def page_word(rng: random.Random) -> str:
    """One blank-free item of a page full of text."""
    kind = rng.random()
    if kind < 0.25:
        return number(rng)
    if kind < 0.32:
        return "".join(rng.choice(ALPHABET.replace(" ", "")) for _ in range(rng.randint(1, 7)))
    text = cased(rng, word(rng))
    if rng.random() < 0.12:
        text += rng.choice(".,:!?")
    if rng.random() < 0.06:
        text = rng.choice((f"{text}-{word(rng)}", f"{text}'s", f"& {text}"))
    return text


def plain_word(rng: random.Random) -> str:
    """A lower-case word of at most seven letters: from the list or made up."""
    found = rng.choice(COMMON)
    return found if len(found) <= 7 and rng.random() < 0.5 else made_up(rng, 7)


def person(rng: random.Random) -> str:
    """An author's name: a first and a last name."""
    first = rng.choice(FIRST_NAMES) if rng.random() < 0.6 else made_up(rng, 6).capitalize()
    return f"{first} {made_up(rng, 7).capitalize()}"


def title(rng: random.Random) -> str:
    """A book title of one to three words in Title Case, mostly short."""
    return " ".join(plain_word(rng).capitalize() for _ in range(rng.choice((1, 1, 1, 2, 2, 2, 3))))
