"""Names of protocols, files and metrics. Importing them is cheap, so a misspelt name fails before the builders are imported."""

import difflib
from collections.abc import Iterable
from functools import cache

from action_llm.model_files import as_written

from .protocols import NTU_PROTOCOLS, read_facts

REPORT_NAME = "preparation.json"
# Marks a folder of simulated recordings.
SIMULATION_RECORD = "simulation.json"
# The two files that describe a folder of your own recordings.
METADATA, SKELETON = "metadata.csv", "skeleton.json"
# Columns of metadata.csv that identify the person.
PERSON_COLUMNS = ("person", "subject", "performer")
METRICS = {"top_1": "top-1 accuracy", "mean_per_class": "mean per-class accuracy"}


@cache
def protocol_names() -> tuple[str, ...]:
    """The protocols of `load_action_dataset`, in the order of `load.PROTOCOLS`."""
    others = ["utd-mhad", *read_facts("utd_mhad")["unseen"], *read_facts("smarthome")["protocols"]]
    others += read_facts("uav_human")["protocols"]
    only_skeletons = [*read_facts("nw_ucla")["protocols"], *read_facts("sbu")["folds"]]
    videos = []
    for name in NTU_PROTOCOLS:
        videos.append(f"{name}-video")
        if not name.startswith("simulated"):  # every simulated video has a skeleton
            videos.append(f"{name}-video-with-skeletons")
    videos += [f"{name}-video" for name in (*others, "folder")]
    return (*NTU_PROTOCOLS, *others, *only_skeletons, "folder", *videos)


def check_protocol(name: str) -> None:
    """Raises `ValueError` if there is no protocol of this name; the message lists those that begin with it,
    or suggests the nearest."""
    if name not in protocol_names():
        family = [known for known in protocol_names() if known.startswith(f"{name.lower()}-")]
        if family and name.lower() not in protocol_names():
            hint = f"; the protocols of {name} are {', '.join(family)}"
        else:  # the full list would fill a screen
            examples = (
                "; protocols are ntu60-xsub, ntu120-xset, utd-mhad, smarthome-cs, uav-human-csv1, folder and so on"
            )
            hint = did_you_mean(name, protocol_names()) or examples
        raise ValueError(f"there is no protocol {as_written(name)}{hint}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean …?"` with the nearest known name; empty if no name is near."""
    by_lower_case = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[near[0]]}?" if near else ""
