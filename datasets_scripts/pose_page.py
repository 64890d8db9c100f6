"""The page about a folder of estimated poses: its counts, and frames with the people drawn over them."""

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atomic_files import written_whole
from .pose_videos import skeleton_name

if TYPE_CHECKING:
    from action_llm.skeleton_files import SkeletonRecording
    from action_llm.video_frames import VideoFrames

PICTURES = "overlays"
# Pictures of each video on the page, and their height in pixels.
NUM_PICTURES, HEIGHT = 3, 240
_STYLE = """
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }
 figure { margin: 0 0 1.5rem; } img { max-width: 100%; } figcaption { overflow-wrap: anywhere; } .off { color: #b3261e; }
"""


def count(number: int, noun: str) -> str:
    """`1 video`, `1,234 videos`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def picture_file(skeleton: str) -> str:
    """The pictures that belong to a skeleton: `a/b.npz` → `overlays/a/b.jpg`."""
    return Path(PICTURES, skeleton).with_suffix(".jpg").as_posix()


def draw_overlays(target: Path, video: "VideoFrames", recording: "SkeletonRecording") -> None:
    """A strip of frames with the people drawn over them, evenly spaced over the frames in which people are seen."""
    from PIL import Image

    from .rendering import draw_over

    seen = recording.present.any(1).nonzero()[0]
    chosen = seen[np.linspace(0, len(seen) - 1, NUM_PICTURES).round().astype(int)]
    height, width = video.picture_size()
    pictures = video.frames_at(chosen / recording.fps, (HEIGHT, max(1, round(width * HEIGHT / height))))
    visible = recording.present[..., None] & np.isfinite(recording.keypoints).all(-1)
    pixels = np.where(visible[..., None], recording.color_pixels * (HEIGHT / height), np.nan)[chosen]
    strip = np.concatenate(list(draw_over(pictures, pixels, recording.layout)), axis=1)
    with written_whole(target) as unfinished:
        Image.fromarray(strip).save(unfinished, format="JPEG", quality=85)


def page_of(outcomes: dict[str, dict], command: str) -> str:
    """poses.html: the counts, the videos that were skipped, and pictures of the others, those with most empty frames first.

    Args:
        outcomes: path of each video → its outcome.
        command: that estimates the poses with left and right exchanged.
    """
    used = {path: outcome for path, outcome in outcomes.items() if "kind" not in outcome}
    skipped = {path: outcome for path, outcome in outcomes.items() if "kind" in outcome}
    frames, empty = (sum(outcome.get(name, 0) for outcome in outcomes.values()) for name in ("frames", "empty_frames"))
    parts = [
        f"<p>Videos with a skeleton: {len(used):,} of {len(outcomes):,}. Nobody is seen in {empty:,} of "
        f"{count(frames, 'frame')}.</p>",
        "<p>Warm colours are the left side of the person, cool colours the right side. If they are exchanged, delete this "
        f"folder, and estimate the poses again with <code>{html.escape(command)}</code>. Recipes with <code>--pose</code> use "
        "the poses of that folder.</p>",
    ]
    if skipped:
        items = "".join(f'<li class="off">{html.escape(outcome["reason"])}</li>' for outcome in skipped.values())
        parts.append(f"<h2>Skipped</h2><ul>{items}</ul>")
    parts.append("<h2>Videos</h2>")
    for path, outcome in sorted(used.items(), key=lambda item: -item[1]["empty_frames"] / item[1]["frames"]):
        people = "1 person" if outcome["people"] == 1 else f"{outcome['people']} tracked people"
        caption = f"{html.escape(path)}: {people}, nobody in {outcome['empty_frames']:,} of {count(outcome['frames'], 'frame')}"
        picture = html.escape(picture_file(skeleton_name(path)), quote=True)
        parts.append(
            f'<figure><img loading="lazy" src="{picture}" alt="three frames with skeletons"><figcaption>{caption}</figcaption>'
            "</figure>"
        )
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Estimated poses</title>
<style>{_STYLE}</style>
<h1>Estimated poses</h1>
{body}
</html>
"""
