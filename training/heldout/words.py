"""Words, names and questions of the held-out cases; a test holds that the training's lists have none of the words and questions."""

from __future__ import annotations

import random

WORDS = """
anchor apricot arrow attic autograph avenue bakery balcony banjo barrel basket beacon blanket blossom bonfire botanist bracelet
breeze brick bucket butterfly cabin camel candle canvas canyon carpet castaway cellar cherry chimney cinnamon circus citizen
cobalt comet compass copper coral cottage cradle crimson crystal curtain dancer detective diamond dolphin dragon drum eagle echo
ember emerald errand fable falcon feather fiddle flame flute fog fountain fragment frontier gallery ginger glacier gravel
guitar hammer harvest hazel heron horizon hunger hurricane icicle index ink ivory ivy jacket jasmine jewel jungle kettle kite
knight ladder lagoon lantern lavender legend lighthouse lilac linen lobster locket magnet maple marble meadow melody mermaid mint
mosaic moss mustard needle nest nettle oak oasis olive orchard orchid otter oyster paddle palace parade parrot pebble pencil
pepper pillow pirate plaza plum pocket pottery prairie pumpkin puzzle quarry quilt rabbit railway raven reef ribbon riddle
saddle saffron sandal scarlet shepherd shore sketch slate sparrow spice spiral stable stadium storey sunset swallow syrup tailor
tavern temple thicket thimble thistle tide timber torch tulip tunnel turquoise umbrella uncle valve vanilla velvet violin
volcano walnut warden willow windmill wizard yarn zebra zenith
""".split()
FIRST = """
Agnes Alan Astrid Basil Beatrix Boris Cecil Claire Conrad Dinah Doris Edgar Edith Esther Ewan Freya Gilbert Gwen Harriet Ingrid
Isla Jasper Joan Keith Laura Lionel Mabel Margot Miles Nadia Nigel Odette Olaf Philip Priya Rachel Roland Sadie Silas Thea
Tobias Una Vincent Wanda Wilfred Yvonne
""".split()
LAST = """
Abbot Archer Barlow Bishop Brennan Calder Chandler Cooper Dalton Draper Ellison Fletcher Foster Gardner Glover Granger Hale
Harper Holloway Ingram Jarvis Kendall Lambert Langley Mercer Monroe Norton Osborne Parker Pierce Quigley Ramsey Reeves Sawyer
Sheldon Spencer Thatcher Turner Underwood Vance Walker Weaver Whitaker Yates
""".split()
BUSINESS = "Bakery Cafe Garage Library Pharmacy Salon Museum Hostel Florist Butcher Gallery Bistro Dentist Tailor Studio".split()
GOODS = "Apples Bananas Beans Biscuits Butter Carrots Cheddar Cocoa Crackers Eggs Flour Grapes Jam Noodles Onions Pasta Peas Soap Yoghurt".split()

# The docs' own questions, which training knows
DOCS = {
    "cover": "Help me get the title and author information of this book?",
    "chart": "Describe this chart.",
    "pair": "What is difference in this two images?",
    "text": "What is written here?",
}
# Questions of users, which training must not know
WORDINGS = {
    "cover": (
        "Could you give me the name of the novel and its writer?", "I found this on my shelf. What is it called and who is it by?",
        "I need title plus author for my catalogue", "which book am I holding?", "Title & author, please", "Who's the writer of this one?",
    ),
    "chart": (
        "Sum up the graph for me", "I have to present this figure tomorrow. What does it say?", "how does the curve move?",
        "Please put this plot into words.", "Where does it begin and where does it end, and what are the extremes?", "explain the diagram",
    ),
    "pair": (
        "spot the difference", "Are these two the same?", "I see two pictures. What sets them apart?", "what's changed from the first to the second?",
        "Check both images against each other", "Tell apart image one and image two",
    ),
    "text": (
        "Can you make out the words?", "could you type this out for me", "I can't read this, what is it?", "give me everything that's printed there",
        "Text content?", "Turn the picture into text", "Which words do you see?", "Please spell out the lettering",
    ),
}
# Questions that name no kind: the picture says what is to be told of it
OPEN = ("So what do we have here?", "Have a look at this picture please", "what am I looking at?", "Tell me everything you can see")
GREETINGS = ("Hola!", "Guten Tag", "Bonjour, qui es-tu ?", "Ciao come stai", "Merhaba", "Hej!", "Namaste", "Ahoj, co umíš?", "Konnichiwa")
CHATTER = (
    "How do I remove a coffee stain?", "What does the fox say?", "Which wine goes with fish?", "Give me the recipe of a good goulash",
    "Who is taller, a giraffe or an ostrich?", "Is the person in the picture smiling?", "How many windows does the house have?",
    "Make this picture brighter", "Is this mushroom edible?", "Tell me a bedtime story about an owl",
)
SYSTEMS = ("You are a helpful assistant.", "Answer briefly.", "You work for a library and only give facts.", "Always be polite.")


def title(rng: random.Random) -> str:
    """A book title of one to three words, at most 20 letters."""
    while True:
        made = " ".join(rng.choice(WORDS).capitalize() for _ in range(rng.choice((1, 2, 2, 3))))
        if len(made) <= 20:
            return made


def person(rng: random.Random) -> str:
    """An author."""
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def line(rng: random.Random, longest: int = 16) -> str:
    """A line of text: words, now and then a number, in one of three cases."""
    while True:
        items = [rng.choice(WORDS) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        if rng.random() < 0.2:
            items[-1] = str(rng.randint(2, 950))
        made = " ".join(items)
        kind = rng.random()
        made = made.upper() if kind < 0.2 else made.title() if kind < 0.7 else made.capitalize()
        if len(made) <= longest:
            return made
