"""Windows of long videos: reads the table of actions, and the names of windows."""

from pathlib import Path


def by_video(table: str) -> dict[str, list]:
    """
    The actions in each video of a table (`read_timeline`), by the name of the video without its suffix.

    Raises:
        ValueError: if the table has no action, or names two files that differ in their suffix only.
    """
    from action_llm_datasets.timelines import read_timeline

    rows = read_timeline(table)
    if not rows:
        raise ValueError(f"{table} holds no action: expected rows of file_name, start, end and label.")
    actions_of = {}
    for name, actions in rows.items():
        video = Path(name).with_suffix("").as_posix()
        if video in actions_of:
            raise ValueError(f"{table}: two files are called {video}. Rename one of them.")
        actions_of[video] = actions
    return actions_of


def video_of_window(sample_id: str) -> tuple[str, float]:
    """The `sample_id` of the video of a window, and the start of the window in seconds."""
    name, _, start = sample_id.removesuffix("s").rpartition("@")
    return name, float(start)
