"""Holds out other training subjects than those that a data set marks, for example each in turn."""

from collections.abc import Collection, Iterable
from hashlib import blake2b

import datasets

from action_llm_datasets.names import protocol_names

_MAX_SHOWN = 120  # NTU RGB+D 120 has 53 training subjects, UAV-Human 89


def hold_out_subjects(
    splits: datasets.DatasetDict, people: dict[str, str], subjects: Collection[str]
) -> datasets.DatasetDict:
    """
    Marks the recordings of some training subjects as held out, and no others.

    Args:
        splits: with a split `train` that has the columns `sample_id` and `held_out`.
        people: `sample_id` → person, for the training recordings.
        subjects: the training subjects to hold out.

    Returns:
        The splits with a new column `held_out` of `train`.

    Raises:
        ValueError: if a subject is not a training subject, no subject is left to train on, or the person of a recording is
            unknown.
    """
    train = splits["train"]
    persons = [people.get(name) for name in train["sample_id"]]
    if None in persons:
        raise ValueError(
            "--held_out_subjects: the data set does not say of each training recording who was recorded. In a folder, name "
            "them in a column `person` of metadata.csv."
        )
    known = by_number(set(persons))
    if unknown := by_number(set(subjects) - set(known)):
        listed = ", ".join(known[:_MAX_SHOWN]) + ", …" * (len(known) > _MAX_SHOWN)
        raise ValueError(f"--held_out_subjects: {unknown[0]!r} is not a training subject; these are {listed}.")
    if len(set(subjects)) == len(known):
        raise ValueError(
            f"--held_out_subjects: all {len(known)} training subjects are held out. Leave at least one to train on."
        )
    held_out = [person in subjects for person in persons]
    marked = train.remove_columns("held_out").add_column("held_out", held_out, feature=datasets.Value("bool"))
    # The columns keep their order.
    return datasets.DatasetDict({**splits, "train": marked.select_columns(train.column_names)})


def numbered(name: str) -> tuple[str, int] | None:
    """Data set and number of a subject: ("", 7) for "7", ("utd-mhad", 7) for "utd-mhad/7" of joined data sets. None for other
    names, which may be those of people."""
    title, _, number = name.rpartition("/")
    of_data_set = not title or title.partition(":")[0] in protocol_names()
    return (title, int(number)) if of_data_set and number.isdecimal() else None


def by_number(names: Iterable[str]) -> list[str]:
    """Sorts names of subjects: first numbers by their value, then other names."""
    return sorted(names, key=lambda name: (numbered(name) is None, numbered(name) or ("", 0), name))


def without_names(subjects: Iterable[str]) -> list[str]:
    """Numbers of subjects as they are, and hashes of other names: records are published, and names may be those of people."""
    return [name if numbered(name) else blake2b(name.encode(), digest_size=8).hexdigest() for name in subjects]


def describe_held_out(subjects: Collection[str]) -> str:
    """A sentence for model pages: which subjects a run holds out. It shows numbers only, as names may be those of people."""
    numbers = [name for name in by_number(subjects) if numbered(name)]
    who = f"subject{'s' * (len(subjects) > 1)} {', '.join(numbers)}"
    if len(numbers) < len(subjects):
        who = f"{len(subjects)} training subject{'s' * (len(subjects) > 1)} of the user's choice"
    return f"This run holds out the recordings of {who} instead."
