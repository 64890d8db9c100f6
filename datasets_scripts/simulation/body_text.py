"""English text about bodies and actions, written by a grammar over a table of facts.

A large language model has read about bodies on the web. The small one that is made for tests and for the offline
quickstart reads this text instead, so that tuning it with frozen weights builds on knowledge of words: which part is
where, which limb moves how in which action, what an action needs and what it is for.

Every passage is a function of (seed, index): any slice of the corpus can be written anywhere, twice the same. The text
is about words only. It holds no action tokens, and nothing in it has the form of a recognition prompt.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from .body_knowledge import Action, BodyPart, Step, body_knowledge
from .english_verbs import article, gerund, is_plural, past, plural, third_person

_HE_OR_SHE = (("she", "her"), ("he", "his"))
_PEOPLE = (
    *((name, "she", "her") for name in ("Anna", "Clara", "Fatima", "Mei", "Rosa", "a woman", "a girl", "my sister")),
    *((name, "he", "his") for name in ("Ben", "David", "Jun", "Omar", "Paul", "a man", "a boy", "my brother")),
    *((name, pronoun, own) for name in ("the performer", "the child") for pronoun, own in _HE_OR_SHE),
)
_PLACES = ("in the kitchen", "in the gym", "in the park", "in front of the camera", "at home", "at school")
_TEMPO = ("slowly", "quickly", "gently", "calmly", "with care", "with force")
_OPPOSITES = (
    ("up", "down"), ("left", "right"), ("forward", "backward"), ("open", "closed"), ("fast", "slow"), ("high", "low"),
    ("toward", "away"), ("above", "below"), ("inside", "outside"), ("push", "pull"), ("rise", "sink"),
    ("sit", "stand"), ("bend", "straighten"), ("take", "give"), ("put on", "take off"), ("heavy", "light"),
    ("first", "last"), ("clockwise", "counter clockwise"), ("before", "after"), ("near", "far"),
    ("lift", "lower"), ("throw", "catch"),
)  # fmt: skip
_UNDONE = (
    ("wear jacket", "take off jacket"), ("wear a shoe", "take off a shoe"), ("wear on glasses", "take off glasses"),
    ("put on a hat/cap", "take off a hat/cap"), ("put on headphone", "take off headphone"),
    ("put on bag", "take off bag"),
    ("sitting down", "standing up (from sitting position)"), ("sit to stand", "stand to sit"), ("drop", "pickup"),
    ("put something into a bag", "take something out of a bag"), ("thumb up", "thumb down"),
    ("walking towards each other", "walking apart from each other"),
    ("right arm swipe to the left", "right arm swipe to the right"),
)  # fmt: skip
_CHAINS = {
    "arm": ("shoulder", "upper arm", "elbow", "forearm", "wrist", "hand", "fingers"),
    "leg": ("hip", "thigh", "knee", "shin", "ankle", "foot", "toes"),
    "body": ("head", "neck", "chest", "belly", "hips", "knees", "feet"),
}
_NOT_OF_THE_BODY = ("object", "ball", "glasses", "distance")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def passage(index: int, seed: int = 0) -> str:
    """Passage `index` of the corpus `seed`: one to eight sentences about one thing, without a line break."""
    rng = random.Random(f"{seed}/{index}")
    writer = rng.choices(_WRITERS, weights=_WEIGHTS)[0]
    return writer(rng)


def passages(count: int, *, seed: int = 0, start: int = 0) -> Iterator[str]:
    """Passages `start` to `start + count` of the corpus `seed`."""
    for index in range(start, start + count):
        yield passage(index, seed)


# Phrases


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def _join(items: list[str] | tuple[str, ...], word: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def _the(part: str, own: str = "the") -> str:
    """ "right hand" → "the right hand" or "her right hand"; "both hands" stays."""
    if part.startswith(("both ", "two ", "the ")):
        return part
    return f"the {part}" if part in _NOT_OF_THE_BODY else f"{own} {part}"


def _step_clause(step: Step, tense: Callable[[str], str] = third_person, own: str = "the") -> str:
    """The limb as subject: "the right hand lifts the cup to the mouth"."""
    verb = step.verb if is_plural(step.part) and tense is third_person else tense(step.verb)
    owner = " of the other person" if step.partner else ""
    return f"{_the(step.part, 'the' if step.partner else own)}{owner} {verb} {step.rest}".strip()


def _step_by_person(step: Step, who: str, own: str, tense: Callable[[str], str] = third_person) -> str:
    """The person as subject where the person does it: "she lifts the cup to the mouth with her right hand"."""
    if step.by_person and not step.partner:
        return f"{who} {tense(step.verb)} {step.rest} with {_the(step.part, own)}"
    return _step_clause(step, tense, own)


def _step_order(step: Step) -> str:
    """As an order: "lift the cup to the mouth with the right hand", "let the head tilt back"."""
    if step.partner:
        return _step_clause(step)
    if step.by_person:
        return f"{step.verb} {step.rest} with {_the(step.part)}"
    return f"let {_the(step.part)} {step.verb} {step.rest}".strip()


def _inflect(does: str, form: Callable[[str], str]) -> str:
    """ "lift a box" → "lifting a box"."""
    verb, _, rest = does.partition(" ")
    return f"{form(verb)} {rest}".strip()


def _agent(action: Action) -> tuple[str, bool]:
    """Who does it in general, and whether that is plural."""
    if action.people == 1:
        return "a person", False
    if "other person" in action.does or "somebody" in action.does:
        return "one person", False
    return "two people", True


def _swap_sides(text: str) -> str:
    """Left and right exchanged, as in a mirror."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return " ".join(swap.get(word, word) for word in text.split(" "))


def _mirrored(action: Action) -> Action:
    steps = tuple(replace(s, part=_swap_sides(s.part), rest=_swap_sides(s.rest)) for s in action.steps)
    return replace(action, steps=steps)


def _one_sided(action: Action) -> bool:
    """Whether the action can be done with the other hand without changing its name."""
    words = f"{action.name} {action.does}"
    return "left" not in words and "right" not in words and any("right " in s.part for s in action.steps)


def _any_action(rng: random.Random, keep: Callable[[Action], bool] = lambda action: True) -> Action:
    return rng.choice([action for action in body_knowledge().actions if keep(action)])


def _some_actions(rng: random.Random, low: int, high: int) -> list[Action]:
    return rng.sample(body_knowledge().actions, rng.randint(low, high))


def _thing_name(thing: str) -> str:
    for head in ("a ", "an "):
        thing = thing.removeprefix(head)
    return thing


def _main_part(action: Action) -> str:
    """The part that most steps move; the first of them where several do."""
    parts = [step.part for step in action.steps if not step.partner]
    return max(parts, key=parts.count)


# Writers of passages: each takes the random numbers and returns one passage


def _body_part(rng: random.Random) -> str:
    part: BodyPart = rng.choice(body_knowledge().parts)
    name, many = part.name, plural(part.name)
    count = _NUMBERS[part.count] if part.count < len(_NUMBERS) else str(part.count)
    says = [
        f"the {name} is {part.place}",
        f"the {name} is a part of the {part.region}" if name != part.region else f"the {name} is a part of the body",
        f"people use the {name} {part.use}" if part.count == 1 else f"people use the {many} {part.use}",
        f"a person has {count} {name if part.count == 1 else many}",
        f"question: where is the {name}? Answer: {part.place}",
        f"question: how many {many} does a person have? Answer: {count}",
        f"what do people need the {name} for? They need it {part.use}",
    ]
    if part.count == 2:
        says.append(f"one {name} is on the left side of the body and the other {name} is on the right side")
        says.append(f"the corresponding part to the left {name} is the right {name}")
    return " ".join(_sentence(say) for say in rng.sample(says, rng.randint(2, 4)))


def _body_chain(rng: random.Random) -> str:
    name, chain = rng.choice(list(_CHAINS.items()))
    index = rng.randrange(1, len(chain) - 1)
    before, here, after = chain[index - 1 : index + 2]
    moves = "moves with it" if not is_plural(chain[-1]) else "move with it"
    says = [
        f"from top to bottom the {name} is made of the {_join(chain)}" if name == "body"
        else f"along the {name} come the {_join(chain)}",
        f"the {here} {'are' if is_plural(here) else 'is'} between the {before} and the {after}",
        f"which part comes after the {here}? The {after}",
        f"which part comes before the {here}? The {before}",
        f"when the {before} {'move' if is_plural(before) else 'moves'}, the {chain[-1]} {moves}",
        f"going back along the {name}, one passes the {_join(chain[::-1])}",
    ]  # fmt: skip
    return " ".join(_sentence(say) for say in rng.sample(says, rng.randint(2, 4)))


def _definition(rng: random.Random) -> str:
    action = _any_action(rng)
    agent, many = _agent(action)
    verb_phrase = action.does if many else _inflect(action.does, third_person)
    kind = article(action.kind)
    opening = rng.choice(
        [
            f"{action.name} is {kind} in which {agent} {verb_phrase}",
            f"{action.name} means that {agent} {verb_phrase}",
            f"{action.name} is {kind}",
            f"when {agent} {verb_phrase}, this is called {action.name}",
        ]
    )
    says = [
        f"people {action.does} {action.purpose}",
        f"it is done by {_NUMBERS[action.people]} {'person' if action.people == 1 else 'people'}",
        f"the posture is {action.posture}",
        "the movement is repeated again and again" if action.repeated else "the movement is done once",
        f"{_the(_main_part(action))} {'move' if is_plural(_main_part(action)) else 'moves'} most",
        f"in it, {_step_clause(rng.choice(action.steps))}",
    ]
    if action.thing:
        says.append(f"it is done with {action.thing}")
    return " ".join(_sentence(say) for say in [opening, *rng.sample(says, rng.randint(2, 4))])


def _how_to(rng: random.Random) -> str:
    action = _any_action(rng)
    note = ""
    if _one_sided(action) and rng.random() < 0.25:
        action, note = _mirrored(action), rng.choice(["with the other hand", "for a left-handed person"])
    opening = rng.choice(
        [
            f"how to {action.does}{f' {note}' if note else ''}:",
            f"this is how people {action.does}{f' {note}' if note else ''}:",
            f"{action.name}{f', {note}' if note else ''}, limb by limb:",
        ]
    )
    form = rng.choice([_step_order, _step_clause])
    steps = [form(step) for step in action.steps]
    style = rng.randrange(3)
    if style == 0:
        links = ["first", *["then"] * (len(steps) - 2), "at the end"] if len(steps) > 1 else [""]
        body = [f"{link} {step}" for link, step in zip(links, steps, strict=True)]
    elif style == 1:
        body = [f"{number}. {_sentence(step)}" for number, step in enumerate(steps, start=1)]
    else:
        time, body = 0.0, []
        for step in steps:
            body.append(f"at {time:.1f} seconds {step}")
            time += rng.randint(2, 12) / 10
        body.append(f"the whole takes {time:.1f} seconds")
    if action.repeated:
        body.append(rng.choice(["do it again and again", "this is repeated", f"repeat it {rng.randint(2, 9)} times"]))
    text = " ".join(_sentence(sentence) for sentence in body)
    return f"{opening[0].upper()}{opening[1:]} {text}"


def _story(rng: random.Random) -> str:
    name, who, own = rng.choice(_PEOPLE)
    tense = rng.choice([third_person, past])
    action = _any_action(rng, lambda action: action.people == 1)
    if _one_sided(action) and rng.random() < 0.2:
        action = _mirrored(action)
    be = tense("be")
    opening = [f"{name} {be} {action.posture} {rng.choice(_PLACES)}", f"{name} {tense('want')} to {action.does}"]
    says = [rng.choice(opening)]
    if action.thing and rng.random() < 0.6:
        says.append(f"{who} {tense('have')} {action.thing}")
    says += [_step_by_person(step, who, own, tense) for step in action.steps]
    if rng.random() < 0.4:
        says[-1] += f" {rng.choice(_TEMPO)}"
    if action.repeated and rng.random() < 0.6:
        says.append(f"{who} {tense('do')} it {_NUMBERS[rng.randint(2, 10)]} times")
    says.append(
        rng.choice(
            [
                f"so {who} {_inflect(action.does, tense)} {action.purpose}",
                f"this {be} {action.name}",
                f"after {_inflect(action.does, gerund)}, {who} {tense('rest')}",
            ]
        )
    )
    return " ".join(map(_sentence, says))


def _two_people(rng: random.Random) -> str:
    action = _any_action(rng, lambda action: action.people == 2)
    (first, who, own), (second, *_) = rng.sample(_PEOPLE, 2)
    says = [f"{first} and {second} are {action.posture} {rng.choice(_PLACES)}"]
    both = " and ".join((first, second))
    agent, many = _agent(action)
    if many:
        says.append(f"{both} {action.does}")
    else:
        says.append(f"{first} {_inflect(action.does, third_person)}")
    says += [_step_by_person(step, who, own) for step in action.steps]
    says.append(rng.choice([f"{agent} {'do' if many else 'does'} this {action.purpose}", f"this is {action.name}"]))
    return " ".join(map(_sentence, says))


def _thing(rng: random.Random) -> str:
    thing = rng.choice(body_knowledge().things)
    uses = [a for a in body_knowledge().actions if a.thing and _thing_name(a.thing) == thing.name]
    says = [f"{article(thing.name)} is {thing.definition}", f"where is the {thing.name}? It is {thing.place}"]
    if uses:
        use = rng.choice(uses)
        says.append(f"people need {article(thing.name)} to {use.does}")
        says.append(f"which action needs {article(thing.name)}? {_sentence(use.name)}")
        says.append(f"the {thing.name} is held while {_inflect(use.does, gerund)}")
    rng.shuffle(says)
    return " ".join(map(_sentence, says))


def _questions(rng: random.Random) -> str:
    action = _any_action(rng)
    step = rng.choice(action.steps)
    pronoun = "they" if is_plural(step.part) else "it"
    verb = step.verb if is_plural(step.part) else third_person(step.verb)
    owner = " of the other person" if step.partner else ""
    do = "do" if is_plural(step.part) else "does"
    main = _main_part(action)
    pairs = [
        (f"what {do} {_the(step.part)}{owner} do in {action.name}?", f"{pronoun} {verb} {step.rest}".strip()),
        (f"how many people are needed for {action.name}?", _NUMBERS[action.people]),
        (f"what kind of action is {action.name}?", article(action.kind)),
        (f"why do people {action.does}?", action.purpose),
        (f"which part moves most in {action.name}?", _the(main)),
        (f"is {action.name} repeated?", "yes, again and again" if action.repeated else "no, it is done once"),
        (f"what is used in {action.name}?", action.thing or "nothing but the body"),
        (f"how is the body held in {action.name}?", action.posture),
        (f"what comes first in {action.name}?", _step_clause(action.steps[0])),
        (f"what comes last in {action.name}?", _step_clause(action.steps[-1])),
    ]
    asked = rng.sample(pairs, rng.randint(2, 4))
    marks = rng.choice([("Question:", "Answer:"), ("Q:", "A:"), ("", "")])
    return " ".join(" ".join(f"{marks[0]} {_sentence(q)} {marks[1]} {_sentence(a)}".split()) for q, a in asked)


def _choose(rng: random.Random) -> str:
    actions = _some_actions(rng, 3, 6)
    names = [action.name for action in actions]
    chosen = rng.choice(actions)
    asks = [(f"which one is {article(chosen.kind)}?", lambda a: a.kind == chosen.kind)]
    if chosen.thing:
        asks.append((f"which one needs {chosen.thing}?", lambda a: a.thing == chosen.thing))
    asks.append(
        (f"which one begins like this: {_step_clause(chosen.steps[0])}?", lambda a: a.steps[0] == chosen.steps[0])
    )
    asks.append((f"which one is done {chosen.purpose}?", lambda a: a.purpose == chosen.purpose))
    question, fits = rng.choice(asks)
    answers = [action.name for action in actions if fits(action)]
    opening = rng.choice([f"choose from {_join(names, 'or')}:", f"here is a list: {'; '.join(names)}."])
    return f"{opening[0].upper()}{opening[1:]} {_sentence(question)} {_sentence(_join(answers))}"


def _riddle(rng: random.Random) -> str:
    action = _any_action(rng)
    if _one_sided(action) and rng.random() < 0.3:
        action = _mirrored(action)
    clues = [_step_clause(step) for step in action.steps]
    if action.repeated:
        clues.append("this is repeated")
    clues.append(rng.choice(["this is {}", "what is it? {}", "its name is {}"]).format(action.name))
    return " ".join(map(_sentence, clues))


def _compare(rng: random.Random) -> str:
    first, second = rng.sample(body_knowledge().actions, 2)
    if rng.random() < 0.5:
        second = _any_action(rng, lambda action: action.kind == first.kind and action != first)
    says = []
    if first.kind == second.kind:
        says.append(f"both {first.name} and {second.name} belong to one kind: {first.kind}")
    else:
        says.append(f"{first.name} is {article(first.kind)}, but {second.name} is {article(second.kind)}")
    differences = {"repeated": "{} is repeated, while {} is done once", "thing": "{} needs {thing}, but {} does not"}
    for value, text in differences.items():
        one, other = getattr(first, value), getattr(second, value)
        if bool(one) != bool(other):
            pair = (first, second) if one else (second, first)
            says.append(text.format(pair[0].name, pair[1].name, thing=pair[0].thing))
    says.append(f"in {first.name} {_step_clause(rng.choice(first.steps))}")
    says.append(f"in {second.name} {_step_clause(rng.choice(second.steps))}")
    return " ".join(map(_sentence, says))


def _routine(rng: random.Random) -> str:
    """A list to remember, repeat and count: what models of language learn from lists of any kind."""
    names = [action.name for action in _some_actions(rng, 2, 4)]
    row = [rng.choice(names) for _ in range(rng.randint(3, 7))]
    index = rng.randrange(len(row) - 1)
    asked = rng.choice(names)
    asks = [
        f"once more: {', '.join(row)}",
        f"backwards: {', '.join(row[::-1])}",
        f"the first is {row[0]} and the last is {row[-1]}",
        f"how often is {asked} in the list? {_NUMBERS[row.count(asked)].capitalize()}",
        f"number {index + 1} is {row[index]} and number {index + 2} is {row[index + 1]}",
        f"the length of the list is {len(row)}",
    ]
    title = rng.choice(["the routine", "the list", "the plan", "the sequence"])
    return " ".join(map(_sentence, [f"{title}: {', '.join(row)}", *rng.sample(asks, rng.randint(2, 3))]))


def _kinds(rng: random.Random) -> str:
    kind = _any_action(rng).kind
    members = [action.name for action in body_knowledge().actions if action.kind == kind]
    some = rng.sample(members, rng.randint(3, 6))
    return _sentence(
        rng.choice(
            [f"examples of {plural(kind)}: {_join(some)}", f"{_join(some)} belong together. Their kind is {kind}"]
        )
    )


def _opposites(rng: random.Random) -> str:
    one, other = rng.sample(rng.choice(_OPPOSITES), 2)
    first, second = rng.choice(_UNDONE)
    action = _any_action(rng, lambda action: any("right" in s.part or "left" in s.part for s in action.steps))
    step = rng.choice([s for s in action.steps if "right" in s.part or "left" in s.part])
    clause = _step_clause(step)
    says = [
        f"the opposite of {one} is {other}",
        f"{first} and {second} undo each other",
        f"after {first} comes {second}",
        f"in the mirror, {clause} becomes: {_swap_sides(clause)}",
        f"if {clause}, then in the mirror {_swap_sides(clause)}",
        "for a camera in front of the person, the left hand is on the right side of the picture",
        "for a camera behind the person, the left hand is on the left side of the picture",
    ]
    return " ".join(_sentence(say) for say in rng.sample(says, rng.randint(2, 3)))


def _word(rng: random.Random) -> str:
    words = rng.sample(body_knowledge().words, 2)
    forms = (
        "{a} is {d}", "what is {a}? It is {d}", "the word {n} means {d}", "by {a} we mean {d}",
    )  # fmt: skip
    return " ".join(_sentence(rng.choice(forms).format(a=article(w.name), n=w.name, d=w.definition)) for w in words)


_WRITERS, _WEIGHTS = zip(
    (_body_part, 8),
    (_body_chain, 3),
    (_definition, 14),
    (_how_to, 14),
    (_story, 16),
    (_two_people, 7),
    (_thing, 5),
    (_questions, 12),
    (_choose, 10),
    (_riddle, 8),
    (_compare, 6),
    (_routine, 8),
    (_kinds, 4),
    (_opposites, 4),
    (_word, 3),
    strict=True,
)
