"""Other held-out training subjects than those that a data set marks, so that settings can be chosen by each subject in turn."""

from collections.abc import Collection, Iterable
from hashlib import blake2b

import datasets

_MAX_SHOWN = 120  # NTU RGB+D 120 has 53 training subjects, UAV-Human 89


def hold_out_subjects(
    splits: datasets.DatasetDict, people: dict[str, str], subjects: Collection[str]
) -> datasets.DatasetDict:
    """
    The same recordings with `held_out` set for those of these training subjects, and for no others.

    Args:
        splits: with the split `train`, of `sample_id` and `held_out`.
        people: `sample_id` → who was recorded, of the training recordings.
        subjects: some of the training subjects.

    Raises:
        ValueError: somebody is no training subject, nobody is left to train on, or it is not known who was recorded.
    """
    train = splits["train"]
    persons = [people.get(name) for name in train["sample_id"]]
    if None in persons:
        raise ValueError(
            "--held_out_subjects: the data set does not say of each training recording who was recorded; in a folder, a column "
            "person of metadata.csv does."
        )
    there = by_number(set(persons))
    if strangers := by_number(set(subjects) - set(there)):
        listed = ", ".join(there[:_MAX_SHOWN]) + ", …" * (len(there) > _MAX_SHOWN)
        raise ValueError(f"--held_out_subjects: {strangers[0]!r} is no training subject; these are {listed}.")
    if len(set(subjects)) == len(there):
        raise ValueError(
            f"--held_out_subjects: all {len(there)} training subjects are held out: leave one at least to train on."
        )
    held_out = [person in subjects for person in persons]
    marked = train.remove_columns("held_out").add_column("held_out", held_out, feature=datasets.Value("bool"))
    # Columns in their order: what reads tables by place finds them.
    return datasets.DatasetDict({**splits, "train": marked.select_columns(train.column_names)})


def by_number(names: Iterable[str]) -> list[str]:
    """Sorted; numbers first, in their order."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def without_names(subjects: Iterable[str]) -> list[str]:
    """Numbers as they are, and hashes of names: records are published, and people of a folder may go by their names."""
    return [name if name.isdecimal() else blake2b(name.encode(), digest_size=8).hexdigest() for name in subjects]


def describe_held_out(subjects: Collection[str]) -> str:
    """Which subjects a run holds out, in a sentence for a page. Without names, which may be those of people."""
    numbers = [name for name in by_number(subjects) if name.isdecimal()]
    who = f"subject{'s' * (len(subjects) > 1)} {', '.join(numbers)}"
    if len(numbers) < len(subjects):
        who = f"{len(subjects)} training subject{'s' * (len(subjects) > 1)} of the user's choice"
    return f"This run holds out the recordings of {who} instead."
