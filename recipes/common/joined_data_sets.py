"""
Several data sets of skeletons as one data set (`--dataset a b`).

Recordings and people have the name of their data set before their own, so that names stay unique: `utd-mhad/a1_s1_t1` and
`utd-mhad/1`. The whole is called `utd-mhad+nw-ucla-xsub`. A data set in a folder is called `folder`; where there are several,
`folder:NAME` with the name of the folder.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_BETWEEN = "+"
# Columns of recordings of skeletons that mean the same in all data sets.
_COLUMNS = ("keypoints", "shape", "body_ids", "layout", "fps", "cleaned", "held_out")


def titles_of(names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """
    The names of several data sets in a run.

    Args:
        names: their protocols.
        folders: their folders.

    Raises:
        ValueError: if they cannot be joined: a data set occurs twice, or under two protocols, whose splits differ; one has
            videos, or features; or two folders have the same name.
    """
    for name in names:
        if name == "features" or "-video" in name:
            what = "features" if name == "features" else "videos"
            raise ValueError(
                f"--dataset: several data sets in one run must be skeletons, but {name} has {what}. Estimate the poses of "
                "videos with `action-llm-pose`, and give the folder of its skeletons with --dataset folder."
            )
    families = [family_of(name) for name in names]
    for family in families:
        alike = [name for name in names if family_of(name) == family]
        if len(alike) > 1 and family != "folder":
            raise ValueError(
                f"--dataset: {' and '.join(alike)} are the same data set: its recordings would be in the run twice, and test "
                "recordings could be among the training recordings. Name each data set once."
            )
    places = [os.path.realpath(folder) for folder in folders]
    if repeated := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise ValueError(f"--data_dir: {repeated[0]} is given twice: expected the folder of each data set.")
    titles = list(names)
    if families.count("folder") > 1:
        ends = [re.sub(r"[^\w.-]", "_", Path(os.path.abspath(folder)).name) for folder in folders]
        titles = [f"folder:{end}" if name == "folder" else name for name, end in zip(names, ends, strict=True)]
        if repeated := [title for title, count in Counter(titles).items() if count > 1]:
            end = repeated[0].partition(":")[2]
            raise ValueError(
                f"--data_dir: two folders are called {end}: rename one, because names of recordings begin with it."
            )
    return titles


def joined_title(titles: Sequence[str]) -> str:
    """The name of data sets as one, as in records: "utd-mhad+folder"."""
    return _BETWEEN.join(titles)


def titles_in(title: str) -> list[str]:
    """The names of the data sets in a `joined_title`; that of a single data set as it is."""
    return title.split(_BETWEEN)


def origin_of(title: str, sample_id: str) -> tuple[str, str]:
    """The data set of a recording and its name there.

    Args:
        title: name of the data set, or a `joined_title`.
        sample_id: name of the recording.
    """
    if _BETWEEN not in title:
        return title, sample_id
    own, _, name = sample_id.partition("/")
    return own, name


@cache
def family_of(title: str) -> str:
    """The name that all protocols of a data set have in common, for skeletons and videos: "ntu" of "ntu60-xsub-video"."""
    return re.match("[a-z]*(:.*)?", title)[0]


def join_data_sets(data_sets: dict, same: Sequence[Sequence[str]] = ()):
    """
    Joins data sets: train with train, test with test, and classes by their names (`join_classes`).

    Args:
        data_sets: name → its `DatasetDict` of skeletons.
        same: names of one class each, beside equal names.

    Returns:
        A `DatasetDict` with the columns of the skeletons and `sample_id`, `label`, `held_out`, `person` (empty where a data set
        does not name it), and `up` where all have it.

    Raises:
        ValueError: if a data set has unseen test classes, or two have different layouts of one name; and as of `join_classes`.
    """
    import datasets

    from action_llm_recipes.common.shared_classes import join_classes

    class_names = {}
    for title, splits in data_sets.items():
        lists = [rows.features["label"].names for rows in splits.values()]
        if any(names != lists[0] for names in lists):
            raise ValueError(f"--dataset: {title} has unseen test classes, and cannot be joined with other data sets.")
        class_names[title] = lists[0]
    classes = join_classes(class_names, same)
    layouts = _layouts_of(data_sets)
    all_say_up = all("up" in rows.features for splits in data_sets.values() for rows in splits.values())
    columns = [*_COLUMNS, *["up"] * all_say_up]
    text, label = datasets.Value("string"), datasets.ClassLabel(names=classes.names)
    parts: dict[str, list] = {}
    for title, splits in data_sets.items():
        for split, rows in splits.items():
            names = [f"{title}/{name}" for name in rows["sample_id"]]
            labels = [classes.labels[title][own] for own in rows["label"]]
            persons = [person and f"{title}/{person}" for person in persons_of(rows)]
            part = rows.select_columns(columns).add_column("sample_id", names, feature=text)
            part = part.add_column("label", labels, feature=label).add_column("person", persons, feature=text)
            parts.setdefault(split, []).append(part)
    joined = datasets.DatasetDict({split: datasets.concatenate_datasets(rows) for split, rows in parts.items()})
    infos = {title: next(iter(splits.values())).info for title, splits in data_sets.items()}
    for name in ("description", "license", "citation", "homepage"):
        texts = [f"{title}: {text}" for title, info in infos.items() if (text := getattr(info, name))]
        for rows in joined.values():
            setattr(rows.info, name, " ".join(texts))
    _log_once(data_sets, layouts, classes)
    return joined


def persons_of(rows) -> list[str]:
    """The person of each recording; empty where the data set does not name them."""
    from action_llm_datasets.names import PERSON_COLUMNS

    column = next((name for name in PERSON_COLUMNS if name in rows.features), None)
    return [""] * len(rows) if column is None else list(map(str, rows[column]))


def usual_layout(rows) -> str:
    """The joint layout of most recordings."""
    return Counter(rows["layout"]).most_common(1)[0][0]


def _layouts_of(data_sets: dict) -> dict[str, list[str]]:
    """Data set → names of its joint layouts. Raises `ValueError` if two have different layouts of one name, because recordings
    are read by that name."""
    from action_llm.skeleton_layouts import get_layout

    known, names = {}, {}
    for title, splits in data_sets.items():
        layouts = map(get_layout, sorted({layout for rows in splits.values() for layout in rows.unique("layout")}))
        names[title] = []
        for layout in layouts:
            names[title].append(layout.name)
            first, owner = known.setdefault(layout.name, (layout, title))
            if first != layout:
                raise ValueError(
                    f"--dataset: {owner} and {title} have different joint layouts of the name {layout.name}: rename one in its "
                    "skeleton.json."
                )
    return names


# What this process has logged: several stages of a run load the same data.
_LOGGED: set[str] = set()


def _log_once(data_sets: dict, layouts: dict[str, list[str]], classes) -> None:
    title = joined_title(data_sets)
    if title in _LOGGED:
        return
    _LOGGED.add(title)
    logger.info("%s: %d classes together", title, len(classes.names))
    for own, splits in data_sets.items():
        counts = ", ".join(f"{len(rows):,} {split}" for split, rows in splits.items())
        logger.info("  %s: %s, joints of %s", own, counts, " and ".join(layouts[own]))
    classes.log()
