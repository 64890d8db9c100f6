"""The classes that several data sets share, by their names."""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from action_llm_datasets.doubts import without_form
from action_llm_datasets.names import did_you_mean

logger = logging.getLogger(__name__)

# Names that only number the classes: 12, A012, class 3.
_NUMBERED = re.compile(r"(a|action|class|label)? ?\d+")
# Words that say nothing about the action. Names with one or both hands are compared without the number.
_FILLERS = frozenset(
    ("a", "an", "the", "of", "to", "in", "on", "at", "with", "and", "from", "for", "or", "it", "one", "two", "both")
)
# Spellings of one name: "pickup and throw", "pick up & throw".
_ALIKE = 0.85


def read_shared_classes(path: str, option: str) -> list[list[str]]:
    """
    Reads a file of shared classes: a list of names for each class.

    Args:
        path: of the YAML file.
        option: that names the file, for errors.

    Raises:
        ValueError: if it is not a list of lists of different names.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{option} {path}: {' '.join(str(error).split())}") from error
    expected = "expected a list of names for each class, as in - [jog, jogging]"
    if not isinstance(content, list) or not content:
        raise ValueError(f"{option} {path}: {expected}, found {type(content).__name__}.")
    for number, group in enumerate(content, start=1):
        if not isinstance(group, list) or not group or not all(isinstance(name, str) for name in group):
            raise ValueError(f"{option} {path}, entry {number}: {expected}, found {group!r}.")
    names = [name for group in content for name in group]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{option} {path}: {repeated[0]!r} stands in it twice; each name belongs to one class.")
    return content


@dataclass(frozen=True)
class JoinedClasses:
    """The class lists of several data sets as one list.

    Attributes:
        names: the joined list. A class has the name by which it was first found, or the first name of its entry in the file of
            same classes.
        labels: data set → the joined label of each of its labels.
        spellings: for each class, its name in each data set that has it, or its names.
    """

    names: list[str]
    labels: dict[str, list[int]]
    spellings: list[dict[str, list[str]]]

    def log(self) -> None:
        """Logs which classes are shared, which only one data set has, and which names may mean the same."""
        shared = [label for label, names in enumerate(self.spellings) if len(names) > 1]
        logger.info("Classes of several data sets: %s.", "; ".join(map(self._described, shared)) or "none")
        for title in self.labels:
            own = [self.names[label] for label, names in enumerate(self.spellings) if set(names) == {title}]
            logger.info("Classes of %s alone: %s.", title, ", ".join(own) or "none")
        doubted = [f"{self.names[one]!r} and {self.names[other]!r}" for one, other in self.alike()]
        if doubted:
            logger.warning(
                "Different classes here, although their names nearly agree: %s. To join some, list the names of each class in "
                "the YAML file of --same_classes.",
                "; ".join(doubted),
            )

    def _described(self, label: int) -> str:
        of_sets = [
            title + ("" if names == [self.names[label]] else f": {', '.join(names)}")
            for title, names in self.spellings[label].items()
        ]
        return f"{self.names[label]} ({'; '.join(of_sets)})"

    def alike(self) -> Iterator[tuple[int, int]]:
        """Pairs of classes that no data set tells apart, and whose names nearly agree: all words of one are in the other, or
        they differ in a few letters."""
        words = [_words(name) for name in self.names]
        for other in range(len(words)):
            for one in range(other):
                if self.spellings[one].keys().isdisjoint(self.spellings[other]) and _agree(words[one], words[other]):
                    yield one, other


def join_classes(class_names: dict[str, list[str]], same: Sequence[Sequence[str]] = ()) -> JoinedClasses:
    """
    Joins class lists by name. Case, separators, spaces and Unicode form do not count.

    Args:
        class_names: data set → names of its classes, in label order.
        same: names of one class each, beside equal names (`read_shared_classes`).

    Raises:
        ValueError: if two data sets have numbers for names, or a name in `same` is in no data set or stands for two classes.
    """
    numbered = [
        title for title, names in class_names.items() if all(map(_NUMBERED.fullmatch, map(without_form, names)))
    ]
    if len(numbered) > 1:
        raise ValueError(
            f"the classes of {' and '.join(numbered)} are numbers ({class_names[numbered[0]][0]}, …), so the same number may "
            "mean different actions: give the names of the actions as labels (`class_names` of skeleton.json)."
        )
    known = {without_form(name) for names in class_names.values() for name in names}
    first_of = {}
    for group in same:
        for name in group:
            if (form := without_form(name)) not in known:
                near = did_you_mean(name, [name for names in class_names.values() for name in names])
                raise ValueError(f"--same_classes: no data set has a class {name!r}{near}.")
            if first_of.setdefault(form, group[0]) != group[0]:
                raise ValueError(
                    f"--same_classes: {name!r} stands in two entries, of {first_of[form]!r} and {group[0]!r}."
                )
    joined: dict[str, int] = {}
    classes = JoinedClasses([], {}, [])
    for title, names in class_names.items():
        classes.labels[title] = []
        for name in names:
            chosen = first_of.get(without_form(name), name)
            label = joined.setdefault(without_form(chosen), len(joined))
            if label == len(classes.names):
                classes.names.append(chosen)
                classes.spellings.append({})
            classes.spellings[label].setdefault(title, []).append(name)
            classes.labels[title].append(label)
    return classes


def _words(name: str) -> list[str]:
    """The words by which a name is compared, without their endings: hand and wav for "two hand wave" and "hands waving"."""
    return [_stem(word) for word in re.findall(r"\w+", without_form(name)) if word not in _FILLERS]


def _stem(word: str) -> str:
    stem = re.sub(r"(?<=\w{3})(ing|es|ed|s|e)$", "", word)
    return re.sub(r"(?<=\w\w)(\w)\1$", r"\1", stem)  # jogging → jogg → jog


def _agree(one: list[str], other: list[str]) -> bool:
    if not one or not other:
        return False
    if set(one) <= set(other) or set(other) <= set(one):
        return True
    return difflib.SequenceMatcher(None, "".join(one), "".join(other), autojunk=False).ratio() >= _ALIKE
