"""Windows of long videos: the table of actions, and the names of windows."""

from pathlib import Path


def by_video(table: str) -> dict[str, list]:
    """What happens in each video of a table, by its name without the suffix.

    Raises:
        ValueError: the table has no action, or two files of the same name.
    """
    from action_llm_datasets.timelines import read_timeline

    rows = read_timeline(table)
    if not rows:
        raise ValueError(f"{table} holds no action.")
    found = {}
    for name, actions in rows.items():
        video = Path(name).with_suffix("").as_posix()
        if video in found:
            raise ValueError(f"{table}: two files are called {video}.")
        found[video] = actions
    return found


def video_of_window(sample_id: str) -> tuple[str, float]:
    """The `sample_id` of the video that a window is of, and the second in it at which the window begins."""
    name, _, start = sample_id.removesuffix("s").rpartition("@")
    return name, float(start)
