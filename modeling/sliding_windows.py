"""Windows that slide over a recording of any length while it is read: of the events of videos, and of the frames of skeletons.

A window is yielded as soon as everything in it is known, and what no later window needs is dropped. The windows of a whole
recording are those of a stream that has ended.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .modeling_vtem import VisualEvent
from .recording_parts import join_frames
from .skeleton_files import SkeletonRecording

# Tolerance for rounding when times are compared, as a share of the stride.
SLACK = 1e-9


class Window(NamedTuple):
    """A window over a recording.

    Attributes:
        start, end: Seconds from the start of the recording.
        known: Seconds of the recording that were read when the window was complete.
        content: The events of the window in the order of the sentence, or the skeletons of its frames.
    """

    start: float
    end: float
    known: float
    content: list[VisualEvent] | SkeletonRecording


class EventBlock(NamedTuple):
    """The events of a part of a video.

    Attributes:
        ended: Events that ended in this part, in the order of the sentence.
        unfinished: Events that have not ended, as if the video ended here.
        end: The end of the part, in seconds from the start of the video.
    """

    ended: list[VisualEvent]
    unfinished: list[VisualEvent]
    end: float


def check_window(seconds: float, stride: float) -> None:
    """Raises `ValueError` for a stride that is not positive, or would leave gaps between windows."""
    if not 0 < stride <= seconds:
        raise ValueError(
            f"the stride must be above 0 and at most the window of {seconds} s, or it leaves gaps; got {stride}."
        )


def windows_of_events(blocks: Iterable[EventBlock], seconds: float, stride: float) -> Iterator[Window]:
    """
    Yields windows over the events of a video. For each place of the frame, a window contains the events whose middle is in it;
    if there are none, it contains the event at the middle of the window.

    A window waits for its events to end, but not for longer than its own length: an event that takes longer, in a scene in
    which nothing changes, is taken as it is by then.

    Args:
        blocks (`Iterable[EventBlock]`): the events of consecutive parts of the video.
        seconds (`float`): length of a window; a shorter video is a single window.
        stride (`float`): seconds between the starts of windows.

    Raises:
        ValueError: if the stride is not positive or leaves gaps, or there are no events.
    """
    check_window(seconds, stride)
    events: list[VisualEvent] = []
    number, duration = 0, 0.0
    for block in blocks:
        events += block.ended
        duration = block.end
        while (end := number * stride + seconds) <= duration + SLACK * stride:
            start = number * stride
            inside = _inside([*events, *block.unfinished], start, min(end, duration))
            is_complete = not any(event is other for event in inside for other in block.unfinished)
            if not is_complete and duration < end + seconds:
                break
            yield Window(start, min(end, duration), duration, inside)
            number += 1
            events = [event for event in events if event.end > number * stride]
    if not duration:
        raise ValueError("expected at least one event, got none.")
    for start in _last_starts(number, duration, seconds, stride):
        yield Window(start, duration, duration, _inside(events, start, duration))


def _inside(events: Sequence[VisualEvent], start: float, end: float) -> list[VisualEvent]:
    """The events of a window, see `windows_of_events`; the events of a place follow each other."""
    at_middle: dict[int, int] = {}
    inside, places = set(), set()
    for index, event in enumerate(events):
        if event.start <= (start + end) / 2 or event.place not in at_middle:
            at_middle[event.place] = index
        if start < (event.start + event.end) / 2 <= end:
            inside.add(index)
            places.add(event.place)
    inside |= {index for place, index in at_middle.items() if place not in places}
    return [events[index] for index in sorted(inside)]


def windows_of_frames(pieces: Iterable[SkeletonRecording], seconds: float, stride: float) -> Iterator[Window]:
    """
    Yields windows over the frames of a recording of skeletons.

    Args:
        pieces (`Iterable[SkeletonRecording]`): consecutive pieces of the recording, of the same layout and frame rate, in
            which a body has the same id.
        seconds (`float`): length of a window; a shorter recording is a single window.
        stride (`float`): seconds between the starts of windows.

    Raises:
        ValueError: if the stride is not positive or leaves gaps, or there are no frames.
    """
    check_window(seconds, stride)
    kept: list[SkeletonRecording] = []
    dropped = read = number = 0  # frames before `kept`, frames read, windows

    def window(start: float, end: float) -> Window:
        first = min(round(start * kept[0].fps), read - 1)
        last = max(min(round(end * kept[0].fps), read), first + 1)
        return Window(start, end, read / kept[0].fps, join_frames(kept, first - dropped, last - dropped))

    for piece in pieces:
        kept.append(piece)
        read += len(piece.present)
        duration = read / piece.fps
        while (end := number * stride + seconds) <= duration + SLACK * stride:
            # Known with its last frame, however many frames a piece has.
            yield window(number * stride, min(end, duration))._replace(known=min(end, duration))
            number += 1
            while len(kept) > 1 and dropped + len(kept[0].present) <= round(number * stride * piece.fps):
                dropped += len(kept.pop(0).present)
    if not read:
        raise ValueError("expected at least one frame, got none.")
    for start in _last_starts(number, duration, seconds, stride):
        yield window(start, duration)


def _last_starts(number: int, duration: float, seconds: float, stride: float) -> Iterator[float]:
    """The start of the window with this number if the end of the recording cuts it, and no window before it reaches the end."""
    if number < math.ceil((duration - seconds) / stride - SLACK) + 1 or number == 0:
        yield number * stride


__all__ = ["EventBlock", "Window", "check_window", "windows_of_events", "windows_of_frames"]
