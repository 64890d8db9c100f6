"""Names of protocols, files and metrics, without the builders: a wrong one is told before anything heavy is imported."""

import argparse
import difflib
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from action_llm.model_files import as_written

from .protocols import NTU_PROTOCOLS

REPORT_NAME = "preparation.json"
# What a simulator writes into the folder of its recordings.
SIMULATION_RECORD = "simulation.json"
# Of a folder of recordings of one's own.
METADATA, SKELETON = "metadata.csv", "skeleton.json"
# Columns that say who was recorded.
PERSON_COLUMNS = ("person", "subject", "performer")
METRICS = {"top_1": "top-1 accuracy", "mean_per_class": "mean per-class accuracy"}


@cache
def protocol_names() -> tuple[str, ...]:
    """What `load_action_dataset` loads, in the order of `load.PROTOCOLS`."""
    here = Path(__file__).parent
    smarthome, uav_human = (
        json.loads((here / f"{name}.json").read_text(encoding="utf-8"))["protocols"]
        for name in ("smarthome", "uav_human")
    )
    others = ["utd-mhad", *smarthome, *uav_human, "folder"]
    videos = []
    for name in NTU_PROTOCOLS:
        videos.append(f"{name}-video")
        if not name.startswith("simulated"):  # of which every video has a skeleton
            videos.append(f"{name}-video-with-skeletons")
    return (*NTU_PROTOCOLS, *others, *videos, *(f"{name}-video" for name in others))


def check_protocol(name: str) -> None:
    """Raises `ValueError` for a name that is no protocol's, with the nearest that is."""
    if name not in protocol_names():
        # All of them would fill a screen.
        examples = "; protocols are ntu60-xsub, ntu120-xset, utd-mhad, smarthome-cs, uav-human-csv1, folder and so on"
        raise ValueError(f"there is no protocol {as_written(name)}{did_you_mean(name, protocol_names()) or examples}")


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of a command; an option that it does not have is refused first, with the nearest that it has."""
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    for argument in sys.argv[1:]:
        option = argument.partition("=")[0]
        if len(option) > 2 and option.startswith("--") and not any(name.startswith(option) for name in known):
            parser.error(f"there is no option {option}{did_you_mean(option, known)}")
    return parser.parse_args()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean …?"` with the nearest of the known names; empty where none is near."""
    by_lower_case = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[near[0]]}?" if near else ""
