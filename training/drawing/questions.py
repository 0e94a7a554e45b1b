"""Questions of the four tasks and questions that have to be declined."""

from __future__ import annotations

import random

from drawing.words import COMMON

COVER = (
    "Help me get the title and author information of this book?",
    "What is the title of this book?", "Who wrote this book?", "Who is the author of this book?",
    "What are the title and the author?", "Tell me the title and author of this book.",
    "Read the title and the author from this cover.", "What book is this?", "Which book is this?",
    "Give me the book's title and author.", "Can you tell me the title and the author of this book?",
    "What is the name of this book and who wrote it?", "title and author?",
    "Please extract the title and author from this book cover.", "Describe this book cover.",
)
CHART = (
    "Could you please introduce this stock to me?", "Describe this chart.",
    "Could you please describe this chart?", "What does this chart show?", "Explain this chart.",
    "Please describe the chart.", "Describe the chart in this picture.", "Summarise this chart.",
    "Tell me about this chart.", "What can you see in this chart?", "Is this stock rising or falling?",
    "Introduce this stock.", "Describe this graph.", "Please explain this graph to me.",
    "What are the lowest and highest values in this chart?", "How did this stock develop?",
)
PAIR = (
    "What is difference in this two images?", "What is the difference between these two images?",
    "What is the difference between these pictures?", "Compare these two pictures.",
    "Compare these two images.", "How do these two images differ?", "What differs in these two images?",
    "What are the differences between the two pictures?", "Describe the difference between the images.",
    "What changed between the two pictures?", "Tell me how these pictures differ.",
    "What is different in these images?",
)
TEXT = (
    "What is written here?", "Read the text in this picture.", "What does the text say?",
    "What text is in this image?", "Please read this.", "What does it say?", "Read this text.",
    "What is written in this picture?", "Can you read this for me?", "Transcribe the text.",
    "What does this sign say?", "OCR this image.", "Extract the text from this image.",
    "What is the text in this picture?", "Please transcribe this image.",
)

# Off-topic questions: openings and matter are combined; the held-out ones use HELD only.
_PLAIN = """
What is the capital of France?|Who are you?|What is your name?|Tell me a joke.|Hello|Hi there!|Good morning.
How are you today?|What is the weather like?|Write a poem about the sea.|What time is it?|Who is the president?
Translate this sentence to German.|How do I cook rice?|What is 2 plus 2?|What is 17 times 23?|Solve this equation.
Can you help me with my homework?|Write a Python function that sorts a list.|What is machine learning?
Explain quantum physics.|Who won the world cup?|How far away is the moon?|What animal is this?|Is this a dog or a cat?
How many people are in this photo?|What is the person wearing?|Where was this photo taken?|Is it raining?
What breed is this dog?|Identify this plant.|What kind of car is that?|Is the man happy?|Write a story about a dragon.
What should I eat tonight?|Recommend a movie.|Sing a song.|How old are you?|Are you a robot?|Do you like music?
What languages do you speak?|Give me three tips for sleeping better.|How do I fix my bike?|What is the meaning of life?
Why is the sky blue?|How does a car engine work?|List five countries in Africa.|What is the tallest mountain?
Write an email to my boss.|Make a shopping list.|Plan a trip to Rome.|What is the population of Japan?
Who painted the Mona Lisa?|When did the war end?|How many legs does a spider have?|Convert 10 miles to kilometres.
What is the square root of 81?|Define gravity.|Spell the word necessary.|What rhymes with orange?|Thank you!|Bye
What emotion does this face show?|Is this food healthy?|How many calories does it have?|What street is this?
Which season is it in this picture?|What is the man doing?|Count the cars in this image.|Is there a cat in the picture?
What colour is the sky?|Who is in this picture?|What brand is this phone?|How do I get to the station?
Can dogs eat chocolate?|What is the speed of light?|How do I learn French?|Fix the bug in my code.|What is Rust?
Play some music.|Set an alarm for seven.|Order a pizza.|Call my mother.|Buy me a ticket.|test|asdf|ok|yes|no|why?
Is it safe to swim here?|What does this medicine do?|Give me legal advice.|Should I buy this house?|Who is your maker?
""".replace("\n", "|").split("|")
_HELD = """
What is the capital of Italy?|Who made you?|Tell me something funny.|Good evening!|What day is it today?
Write a haiku about winter.|What is 12 times 8?|How do I bake bread?|Who was the first person on the moon?
Explain how vaccines work.|What bird is this?|How many dogs are in this photo?|What is she holding?
Where is this beach?|Is it sunny?|What kind of flower is this?|Suggest a name for my cat.|How tall is the tower?
What is the largest ocean?|Write a letter to my friend.|Which planet is closest to the sun?|Define inflation.
How do magnets work?|What is deep learning?|How do I clean a keyboard?|Can you drive a car?|What is your favourite food?
Is this fruit ripe?|How old is this woman?|What is behind the tree?|Are there any birds in the picture?|See you later!
How do plants grow?|What is the currency of Japan?|Name three rivers in Europe.|When was the telephone invented?
Write a Java program.|How much does an elephant weigh?|Should I invest my money?|What is the fastest animal?
Plan my week.|Turn on the light.|Why do cats purr?|How do I tie a tie?|What is the boy doing?|Which sport is this?
""".replace("\n", "|").split("|")
_VERBS = "Write|Explain|Draw|Give me|Tell me about|Find|Make|Invent|Recommend|Show me|I want|I need|Do you know|Teach me|Sell me|Calculate|Help me with|Search for|Generate|Prove|Imagine|Remember".split("|")
_WHAT = "What is|Who is|Where is|Why is there|How big is|How many|When was|Is there|Do you see|Can you count|How do I use|What about|Are you|Have you seen|What colour is|How much is|Which is better,|Who likes|How do you make|Where can I buy".split("|")
_MATTER = """
the sun|a cat|the moon|my dog|a recipe for soup|an essay on freedom|the ocean|a house|my car|the internet|a tree|politics|football
a computer|the government|a love letter|mathematics|the French revolution|your training|a sandwich|the best phone|a black hole
people|children|the person on the left|the background|the food on the plate|a hat|birds|the street|the train station|chess|tennis
the tallest building|a password|my health|sleep|dinosaurs|the economy|a new job|the stars|a bicycle|cheese|coffee|rivers|dance
the engine|some flowers|a mountain|a holiday in Spain|the human brain|electricity|a song|history|biology|Chinese|the future
""".replace("\n", "|").split("|")
# Questions about anything, made of parts: what is asked for, how, of whom, and where or when
_THINGS = """
animal|city|country|year|month|hour|colour|number|fruit|vegetable|river|song|game|language|person|room|street|machine|tool|planet|season
dish|drink|brand|shop|team|player|king|building|bridge|insect|fish|horse|toy|dress|shoe|coat|train|ship|plane|road|island|lake|hill
doctor|teacher|child|friend|name|age|size|weight|speed|price|reason|answer|problem|idea|place|way|kind|part|side|end|effect|law
window|door|chair|lamp|phone|computer|key|bag|bottle|cup|plate|knife|garden|forest|desert|cloud|storm|wind|stone|fire|snow|rain
""".replace("\n", "|").split("|")
_ASKS = "What|Which|Whose|How much|How many|In which|At what|From which|What kind of|Which other".split("|")
_DOES = "is|was|are|do|does|did|can|could|will|should|has|had|would|may".split("|")
_WHOM = "this|that|it|he|she|they|you|we|I|there|the man|the woman|my brother|everyone|people|that one|these|your teacher".split("|")
_TAILS = "|now|here|again|in summer|on Monday|in the morning|next year|before lunch|from there|with me|for that|best|like|have|need|mean|cost|see|go|eat|on the left|over there|in front".split("|")
PLAIN = tuple(q for q in _PLAIN if q)
HELD = tuple(q for q in _HELD if q)
MATTER = tuple(m for m in _MATTER if m)
THINGS = tuple(t for t in _THINGS if t)


def off_topic(rng: random.Random) -> str:
    """A training question that has to be declined."""
    kind, mark = rng.random(), "?"
    if kind < 0.3:
        return varied(rng, rng.choice(PLAIN))
    if kind < 0.45:
        return varied(rng, about_anything(rng))
    if kind < 0.6:  # words in no order: whatever is not one of the tasks' questions is to be declined
        words = " ".join(rng.choice(COMMON) for _ in range(rng.randint(1, 6)))
        return varied(rng, f"{rng.choice(_WHAT + _VERBS)} {words}{rng.choice('?.')}")
    if rng.random() < 0.5:
        head, mark = rng.choice(_VERBS), "."
    else:
        head = rng.choice(_WHAT)
    return varied(rng, f"{head} {rng.choice(MATTER)}{mark}")


def about_anything(rng: random.Random) -> str:
    """A question about a thing that is none of the tasks' own, such as "Which fruit did he eat?"."""
    words = (rng.choice(_ASKS), rng.choice(THINGS), rng.choice(_DOES), rng.choice(_WHOM), rng.choice(_TAILS))
    if rng.random() < 0.3:
        words = (rng.choice(("Where", "When", "Why", "How", "Who")), rng.choice(_DOES), "the", rng.choice(THINGS), rng.choice(_TAILS))
    return " ".join(words).strip() + "?"


def varied(rng: random.Random, question: str) -> str:
    """The question, sometimes in lower case, without its mark, or with a courtesy."""
    if rng.random() < 0.12:
        question = question.lower()
    if rng.random() < 0.12:
        question = question.rstrip("?.!")
    if rng.random() < 0.05:
        question = f"Please {question[0].lower()}{question[1:]}"
    return question
