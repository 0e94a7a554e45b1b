"""Hundreds of wordings for each task, questions that name no kind of picture, greetings and system prompts.

A task's wordings are templates whose slots, in braces, take any of SLOTS; `all_wordings` lists every one.
"""

from __future__ import annotations

import itertools
import random
import re

from drawing.questions import CHART, COVER, PAIR, TEXT, varied

SLOTS = {
    "tell": ("Tell me", "Give me", "Show me", "Find", "Extract", "Write down", "I need", "I want to know", "Can you tell me", "Could you give me", "Let me know"),
    "read": ("Read", "Read out", "Transcribe", "Copy", "Extract", "Get", "Recognise", "Write down", "Output", "Give me", "Show me", "I need", "Return"),
    "describe": ("Describe", "Explain", "Summarise", "Summarize", "Introduce", "Interpret", "Analyse", "Analyze", "Read", "Present", "Comment on", "Walk me through"),
    "compare": ("Compare", "Contrast", "Tell me the difference between", "List the differences between", "Find the differences between", "Describe the differences of"),
    "book": ("this book", "the book", "that book", "the book in the picture", "the book on this cover", "this cover", "the cover", "this novel"),
    "chart": ("this chart", "the chart", "this graph", "the graph", "this diagram", "this plot", "the bar chart", "the line chart", "this stock", "the figure"),
    "pair": ("the two pictures", "both pictures", "these two images", "both images", "these pictures", "the images", "image 1 and image 2", "picture one and picture two"),
    "text": ("the text", "this text", "all text", "the words", "the letters", "the writing", "what is written", "the sign", "this note", "the receipt", "every word"),
    "here": ("", " here", " in this picture", " in the image", " on this", " in the photo", " in this screenshot", " from this image"),
    "please": ("", ", please", " for me", " now", " briefly"),
}
COVERS = (
    "{tell} the title and the author of {book}{please}.", "{tell} the author and title of {book}.", "{tell} who wrote {book}.",
    "What is {book} called and who wrote it?", "What is the name of {book}?", "Who is the writer of {book}?", "Which title and author does {book} have?",
    "Read {book}{please}.", "{tell} the name of the author{here}.", "{tell} the book title{here}.", "Title and author of {book}?", "Author?", "Title?",
    "What's the title?", "Who's the author?", "Name the book and its author{please}.", "Which author wrote {book}?", "title, author",
)
CHARTS = (
    "{describe} {chart}{please}.", "What does {chart} tell us?", "What does {chart} say?", "What is in {chart}?", "What are the values in {chart}?",
    "Is {chart} rising or falling?", "How does {chart} change?", "What is the trend of {chart}?", "What is the highest value of {chart}?",
    "What is the lowest value in {chart}?", "{tell} the highest and the lowest value of {chart}{please}.", "How did {chart} go?", "Trend?",
    "Where does {chart} start and end?", "{tell} the facts of {chart}{please}.", "What's the minimum and the maximum in {chart}?", "What's going on in {chart}?",
)
PAIRS = (
    "{compare} {pair}{please}.", "How are {pair} different?", "What is the difference of {pair}?", "What differs between {pair}?", "Are {pair} the same?",
    "Are {pair} equal?", "Do {pair} differ?", "How do {pair} differ?", "What has changed between {pair}?", "What is different between {pair}?",
    "Which differences do you see in {pair}?", "Differences?", "What do {pair} show?", "How many shapes are in {pair}?", "What's different?",
)
TEXTS = (
    "{read} {text}{here}{please}.", "What does it say{here}?", "What is written{here}?", "What is the text{here}?", "Which words are{here}?",
    "Can you read this?", "Can you read {text}{here}?", "Could you read {text} for me?", "OCR", "OCR please", "Do OCR{here}.", "What does {text} say?",
    "Do you see any text{here}?", "Is there any text{here}?", "What is printed{here}?", "Text?", "Read it.", "Read this", "read", "What do the letters say?",
    "Read me {text}{here}.", "Convert the image to text.", "What words can you see{here}?", "What's the text?", "What's written{here}?", "Please OCR {text}.",
)
# Answered by what the picture is
OPEN = (
    "What is this?", "Describe the image.", "Describe this picture.", "What do you see?", "What can you see?", "What is in this picture?", "Describe it.",
    "What does this show?", "What is shown here?", "Explain this picture.", "Tell me about this image.", "Please describe the picture.", "Look at this.",
    "What's this?", "What's in the image?", "Describe", "And this?", "What about this one?", "Caption this image.", "What is it?", "Can you describe this?",
    "What is on this picture?", "Analyse this image.", "Summarise this image.", "Describe the photo.", "Give me a description of this picture.",
)
GREETINGS = tuple(
    "Hello!|Hi|Hey there|Good morning|Good evening, how are you?|Hallo!|Guten Morgen|Wie geht es dir?|Wer bist du?|Salut !|Bonsoir|Comment ça va ?|"
    "Buenos días|¿Cómo estás?|Quién eres|Buongiorno|Come ti chiami?|Olá|Bom dia|Tudo bem?|Hoi|Goedemorgen|Hej hej|God dag|Hei|Moi|Dzień dobry|Cześć|"
    "Dobrý den|Szia|Salam|Selam|Günaydın|Привет|Здравствуйте|Γειά σου|שלום|مرحبا|नमस्ते|你好|您好|こんにちは|안녕하세요|สวัสดี|Xin chào|Sawubona|Jambo|Aloha".split("|")
)
SYSTEMS = (
    "You are a helpful AI assistant.", "You are an assistant.", "Be brief.", "Answer in one sentence.", "You read pictures for people who cannot see them.",
    "You are an OCR engine.", "Answer in English.", "Do not make anything up.", "You are a friendly robot.", "Give short answers.", "Be precise.",
    "You are Phi, a model that sees.", "Reply with plain text.", "The user sends pictures.", "You help with reading.", "You never swear.", "Only tell the facts.",
)
_SLOT = re.compile(r"\{(\w+)\}")
TEMPLATES = {"cover": (COVERS, COVER), "chart": (CHARTS, CHART), "pair": (PAIRS, PAIR), "text": (TEXTS, TEXT)}


def all_wordings(task: str) -> list[str]:
    """Every wording of a task, those of `questions` included."""
    templates, old = TEMPLATES[task]
    found = list(old)
    for template in templates:
        for words in itertools.product(*(SLOTS[slot] for slot in _SLOT.findall(template))):
            left = iter(words)
            found.append(_SLOT.sub(lambda _, left=left: next(left), template))
    return found


def wording(rng: random.Random, task: str) -> str:
    """A question of a task: one of the older wordings, or a filled template."""
    templates, old = TEMPLATES[task]
    if rng.random() < 0.3:
        return varied(rng, rng.choice(old))
    return varied(rng, _SLOT.sub(lambda slot: rng.choice(SLOTS[slot[1]]), rng.choice(templates)))
