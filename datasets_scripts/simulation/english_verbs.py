"""Forms of English words: third person, gerund and past of verbs; plural and article of nouns."""

# Verbs of one syllable (or stressed at the end) whose last consonant is doubled before -ing and -ed.
_DOUBLED = (
    "begin", "chop", "clap", "cut", "drop", "flip", "get", "grab", "hit", "hop", "hug", "jog", "knit", "let", "mop",
    "nod", "pat", "put", "rub", "run", "set", "shrug", "sit", "skip", "snap", "squat", "step", "stir", "swim", "tap",
)  # fmt: skip

_PAST = {
    "be": "was", "beat": "beat", "become": "became", "begin": "began", "bend": "bent", "blow": "blew",
    "bring": "brought", "catch": "caught", "come": "came", "cut": "cut", "do": "did", "draw": "drew",
    "drink": "drank", "eat": "ate", "fall": "fell", "fly": "flew", "give": "gave", "go": "went",
    "hang": "hung", "have": "had", "hit": "hit", "hold": "held", "keep": "kept", "kneel": "knelt",
    "lay": "laid", "lean": "leaned", "leave": "left", "let": "let", "lie": "lay", "make": "made",
    "meet": "met", "put": "put", "read": "read", "ride": "rode", "rise": "rose", "run": "ran", "saw": "sawed",
    "say": "said", "set": "set", "shake": "shook", "shoot": "shot", "show": "showed", "sink": "sank", "sit": "sat",
    "slide": "slid", "speak": "spoke", "stand": "stood", "sweep": "swept", "swim": "swam",
    "swing": "swung", "take": "took", "tear": "tore", "throw": "threw", "thrust": "thrust", "wind": "wound",
    "write": "wrote",
}  # fmt: skip

_GERUND = {"be": "being", "lie": "lying", "tie": "tying", "tiptoe": "tiptoeing"}

_PLURAL = {
    "foot": "feet",
    "tooth": "teeth",
    "calf": "calves",
    "knife": "knives",
    "person": "people",
    "scarf": "scarves",
}

_VOWELS = "aeiou"


def _doubled(verb: str) -> str:
    """ "clap" → "clapp", before -ing and -ed."""
    return verb + verb[-1] if verb in _DOUBLED else verb


def third_person(verb: str) -> str:
    """ "carry" → "carries"."""
    if verb in ("be", "have"):
        return {"be": "is", "have": "has"}[verb]
    if verb[-1] == "y" and verb[-2] not in _VOWELS:
        return verb[:-1] + "ies"
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    return verb + "s"


def gerund(verb: str) -> str:
    """ "swing" → "swinging", "take" → "taking", "clap" → "clapping"."""
    if verb in _GERUND:
        return _GERUND[verb]
    drops_e = verb.endswith("e") and not verb.endswith("ee")
    return (verb[:-1] if drops_e else _doubled(verb)) + "ing"


def past(verb: str) -> str:
    """ "lift" → "lifted", "throw" → "threw"."""
    if verb in _PAST:
        return _PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb[-1] == "y" and verb[-2] not in _VOWELS:
        return verb[:-1] + "ied"
    return _doubled(verb) + "ed"


def plural(noun: str) -> str:
    """ "elbow" → "elbows", "foot" → "feet"; "pair of weights" → "pairs of weights"."""
    if " of " in noun:
        head, _, tail = noun.partition(" of ")
        return f"{plural(head)} of {tail}"
    *before, last = noun.split(" ")
    if last in _PLURAL:
        form = _PLURAL[last]
    elif last[-1] == "y" and last[-2] not in _VOWELS:
        form = last[:-1] + "ies"
    elif last.endswith(("s", "sh", "ch", "x", "z")):
        form = last + "es"
    else:
        form = last + "s"
    return " ".join([*before, form])


def article(noun: str) -> str:
    """ "elbow" → "an elbow"."""
    return ("an " if noun[0] in _VOWELS else "a ") + noun


def is_plural(noun: str) -> bool:
    """Whether a body part takes a plural verb: "both arms", "feet", "knees"."""
    last = noun.rsplit(" ", 1)[-1]
    return last in ("feet", "teeth") or (last.endswith("s") and not last.endswith(("ss", "is")))
