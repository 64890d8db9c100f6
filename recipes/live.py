"""
Recognise actions while they are filmed: frames in, labels out.

```bash
python recipes/live.py --model runs/mine/sft/model --camera 0 --window
python recipes/live.py --model runs/mine/sft/model --address rtsp://192.168.1.20/stream --output labels.jsonl
python recipes/live.py --model runs/mine/sft/model --video afternoon.mp4 --output labels.jsonl --draw afternoon.mkv
```

A camera, a stream from an address, or a video file is read frame by frame, and memory does not grow. A recogniser of skeletons
estimates the poses of each frame (`--pose`); a recogniser of long videos turns frames into events. Every `--stride` seconds,
a label is written as a line of JSON: `start` and `end` of the time to which it belongs, `label` and `probability`, and `known`,
the seconds of video that had been read by then. The label is null if nobody is seen. Where the video is unlike the recordings
that the model knows, `doubtful` is true. With `--per_person true`, each person is recognised alone: there is a line for each of
them, with the number of their track as `person`, and a label of null if they are not seen well enough. It runs until the video
ends, the window is closed, or Ctrl-C.

A label comes `--seconds` after the start of its time, when the last window that contains it ends. Computation, and the frames
that pose estimation looks ahead, add to this delay. With the same `--seconds` and `--stride`, labels are those of `timeline.py`
for the same file.

`--draw` writes a video, and `--window` opens a window, with the last label, and people with the numbers of their tracks and,
with `--per_person true`, their own labels. A pose is drawn on its own frame. If frames come faster than they can be processed,
a camera or an address skips frames; a file takes longer. The last line of the log, which goes to the standard error, has the
frames per second of each stage; the stage `read` decodes frames of a file, and waits for those of a camera or an address.

While a camera or a stream is silent, the picture is black, so that nobody is seen, and the times of the labels go on. If it is
lost, it is opened again every two seconds, until Ctrl-C. If there is no picture in the first ten seconds, that is an error.

Addresses are `rtsp`, `http` or `https`. Playlists (HLS, DASH), which lead to further addresses, are refused. A file at an
address is read at its own speed, to its end. In the tests, a device of FFmpeg with a test picture takes the place of a camera.
"""

import contextlib
import json
import logging
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)


@dataclass
class LiveArguments:
    """The recogniser, the video, the sliding window, and what is written and shown."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser of skeletons or of long videos"})
    camera: int | None = field(default=None, metadata={"help": "number of a camera of this machine, from 0"})
    video: str | None = field(default=None, metadata={"help": "a video file, instead of a camera"})
    address: str | None = field(default=None, metadata={"help": "address of a stream, instead of a camera"})
    output: str | None = field(
        default=None, metadata={"help": "file for the labels, a line of JSON each; by default the standard output"}
    )
    draw: str | None = field(default=None, metadata={"help": "video file for the frames with people and labels"})
    window: bool = field(default=False, metadata={"help": "whether to show them in a window"})
    seconds: float = field(default=2.0, metadata={"help": "length of a window in seconds"})
    stride: float = field(default=0.5, metadata={"help": "seconds between the starts of two windows"})
    pose: Literal["mediapipe", "vitpose"] | None = field(
        default=None,
        metadata={
            "help": "pose estimator of a recogniser of skeletons; by default the first whose weights are on this machine"
        },
    )
    pose_model: str | None = field(
        default=None, metadata={"help": "weights of the pose estimator; by default those of the usual place"}
    )
    max_people: int = field(default=2, metadata={"help": "maximum number of people in a frame"})
    mirrored: bool = field(default=False, metadata={"help": "whether the video is a mirror image"})
    per_person: bool = field(
        default=False, metadata={"help": "whether a recogniser of skeletons recognises each person alone"}
    )
    fps: float | None = field(
        default=None,
        metadata={"help": "frames per second at which poses are estimated; by default those of the video"},
    )

    def __post_init__(self):
        check_recogniser(self.model)
        given = [name for name in ("camera", "video", "address") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of --camera, --video and --address, got {', '.join(given) or 'none'}.")


ARGUMENTS = (LiveArguments,)


def main(arguments: LiveArguments) -> dict[str, float]:
    """Writes labels until the video ends; returns the frames per second of each stage."""
    import torch

    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm.pose_estimators import load_pose_estimator
    from action_llm.skeleton_files import checked_rate
    from action_llm.sliding_windows import check_window
    from action_llm.timelines import check_reads_timelines, segments_per_second
    from action_llm_recipes.common.live_video import WatchedVideo
    from action_llm_recipes.common.screens import WindowClosed

    check_window(arguments.seconds, arguments.stride)
    if arguments.fps is not None:
        checked_rate("--fps", arguments.fps)
    model = ActionLLMForClassification.from_pretrained(arguments.model).eval()
    check_reads_timelines(model.config)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    reads_skeletons = model.config.action_config.model_type != "vtem"
    for name in () if reads_skeletons else ("pose", "pose_model", "max_people", "mirrored", "fps", "per_person"):
        if getattr(arguments, name) != getattr(LiveArguments, name):  # the class has the defaults
            raise ValueError(f"--{name}: this recogniser reads videos, and estimates no poses: leave it out.")
    clock, estimator = Stopwatch(), None
    if reads_skeletons:
        estimator = load_pose_estimator(arguments.pose, arguments.pose_model, arguments.max_people)
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(open_source(arguments))
        if reads_skeletons:
            rate = min(arguments.fps or video.info.fps, video.info.fps)
        else:
            extractor = processor.feature_extractor
            rate = extractor.frames_per_segment * (3 if extractor.channels == "time" else 1)
            rate *= segments_per_second(extractor)
        view = View(open_screens(arguments, rate, stack), estimator and estimator.layout)

        def watched(frames: Iterator) -> Iterator:
            for frame in clock.timed("read", frames):
                clock.frames += 1
                if view.screens:
                    with clock.stage("draw"):
                        view.see(recording.picture_of(frame))
                yield frame

        recording = WatchedVideo(video, watched)
        parts = recording
        if reads_skeletons:
            pieces = estimator.stream(recording, fps=arguments.fps, mirrored=arguments.mirrored)
            stack.enter_context(contextlib.closing(pieces))
            parts = view.with_poses(clock.timed("pose", pieces), clock)
        lines = sys.stdout
        if arguments.output is not None:
            lines = stack.enter_context(open(arguments.output, "w", encoding="utf-8"))
        logger.info("each label is known %g s after the start of its %g s", arguments.seconds, arguments.stride)
        settings = {name: getattr(arguments, name) for name in ("seconds", "stride", "per_person")}
        steps = model.stream_timeline(processor, parts, **settings)
        with contextlib.suppress(KeyboardInterrupt, WindowClosed):  # the usual ends of a camera
            for step in clock.timed("recognise", steps):
                line = described(step, processor.class_names)
                print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
                view.tell(line)
    rates = {stage: clock.frames / seconds for stage, seconds in clock.seconds.items() if seconds}
    logger.info(
        "%d frames; per second: %s", clock.frames, ", ".join(f"{stage} {rate:.1f}" for stage, rate in rates.items())
    )
    return rates


def open_source(arguments: LiveArguments):
    """The video that the arguments name."""
    from action_llm.video_files import VideoFile
    from action_llm_recipes.common.live_video import open_address, open_camera

    if arguments.camera is not None:
        return open_camera(arguments.camera)
    return VideoFile(arguments.video) if arguments.address is None else open_address(arguments.address)


def open_screens(arguments: LiveArguments, fps: float, stack: contextlib.ExitStack) -> list:
    """Where the pictures are shown; `stack` closes the screens."""
    from action_llm_recipes.common.screens import VideoScreen, WindowScreen

    screens = []
    if arguments.draw is not None:
        screens.append(VideoScreen(arguments.draw, fps))
        stack.callback(screens[-1].close)
    if arguments.window:
        screens.append(WindowScreen("live"))
        stack.callback(screens[-1].close)
    return screens


def described(step, class_names: list[str]) -> dict:
    """A step of a timeline as a line of the output."""
    import numpy as np

    is_seen = not np.isnan(step.probabilities).any()
    best = int(step.probabilities.argmax()) if is_seen else None
    return {
        "start": round(step.start, 3),
        "end": round(step.end, 3),
        "label": class_names[best] if is_seen else None,
        "probability": round(float(step.probabilities[best]), 4) if is_seen else None,
        "known": round(step.known, 3),
        **({} if step.person is None else {"person": step.person}),
        **({"doubtful": True} if step.is_doubtful else {}),
    }


def caption_of(line: dict) -> str:
    """A line of the output as a caption of pictures."""
    delay = f"({line['known'] - line['start']:.1f} s ago)"
    doubt = ", unlike the training recordings" * ("doubtful" in line)
    if line["label"] is None:
        return f"nobody {delay}" if "person" not in line else ""  # not seen well enough
    return f"{line['label']} {line['probability']:.0%}{doubt} {delay}"


def apart(boxes: list[tuple[float, float, float, float]], height: float) -> list[tuple[float, float, float, float]]:
    """
    Moves labels that overlap earlier ones: above them, or below them if there is no room.

    Args:
        boxes: left, top, right and bottom of each label in pixels.
        height: of the picture.
    """
    placed = []
    for left, top, right, bottom in boxes:
        tall = bottom - top
        others = [box for box in placed if box[0] < right and left < box[2]]
        tops = [top, *(edge for box in others for edge in (box[1] - tall, box[3]))]
        free = [
            edge
            for edge in tops
            if 0 <= edge <= height - tall and all(edge + tall <= box[1] or box[3] <= edge for box in others)
        ]
        top = min(free, key=lambda edge: (edge > top, abs(edge - top)), default=top)
        placed.append((left, top, right, top + tall))
    return placed


class View:
    """
    The frames on screens, with the people and the last label. Frames wait for their poses.

    Args:
        screens: where pictures are shown; without any, nothing is drawn.
        layout: joint layout of the poses; None shows frames without waiting.
    """

    def __init__(self, screens: list, layout: str | None):
        self.screens, self.caption = screens, ""
        self.labels, self._since = {}, -1.0  # of people, and the start of the time to which they belong
        self._layout, self._waiting = layout, deque()

    def tell(self, line: dict) -> None:
        """Takes the next line of the output, for the pictures that follow."""
        if "person" not in line:
            self.caption, self.labels = caption_of(line), {}
            return
        if line["start"] > self._since:  # nobody keeps the label of an earlier time
            self.caption, self.labels, self._since = "", {}, line["start"]
        self.labels[line["person"]] = caption_of(line)

    def see(self, picture) -> None:
        """Takes the next frame, uint8 (height, width, 3)."""
        self._waiting.append(picture)
        if self._layout is None:
            self._show(None)

    def with_poses(self, pieces: Iterable, clock: "Stopwatch") -> Iterator:
        """Yields pieces of a recording of a frame each, which are drawn over the frames that wait."""
        for piece in pieces:
            if self.screens:
                with clock.stage("draw"):
                    self._show(piece)
            yield piece

    def _show(self, piece) -> None:
        import numpy as np
        from PIL import Image, ImageDraw

        from action_llm_datasets.fonts import draw_text, drawable, shortened, text_width
        from action_llm_datasets.rendering import draw_over

        picture = self._waiting.popleft()
        if piece is not None and piece.present.any():
            pixels = np.where(np.isfinite(piece.keypoints[..., :1]), piece.color_pixels, np.nan)
            picture = draw_over(picture[None], pixels, self._layout)[0]
        image = Image.fromarray(picture)
        draw, size = ImageDraw.Draw(image), max(12, image.height // 18)
        if piece is not None:
            small = max(10, image.height // 30)
            margin, texts, boxes = small / 4, [], []
            for number, joints in zip(piece.body_ids.tolist(), piece.color_pixels[0], strict=True):
                text = drawable(" ".join([str(number), *filter(None, [self.labels.get(number)])]))
                texts.append(shortened(text, image.width - small, small))
                width = text_width(texts[-1], small) + 2 * margin
                left = max(min(joints[:, 0].mean() - width / 2, image.width - width), 0)
                top = max(min(joints[:, 1].min() - 2 * small, image.height - small - margin), 0)
                boxes.append((left, top, left + width, top + small + margin))
            for text, box in zip(texts, apart(boxes, image.height), strict=True):
                draw.rectangle(box, fill="black")
                draw_text(draw, (box[0] + margin, box[1]), text, "white", small)
        if self.caption:
            text = shortened(drawable(self.caption), image.width - size, size)
            draw.rectangle((0, 0, image.width, 3 * size // 2), fill="black")
            draw_text(draw, (size // 2, size // 4), text, "white", size)
        for screen in self.screens:
            screen.show(np.asarray(image))


class Stopwatch:
    """
    The time that each stage takes, without that of the stages from which it reads.

    Attributes:
        seconds: name of a stage → its seconds.
        frames: number of frames.
    """

    def __init__(self):
        self.seconds, self.frames = defaultdict(float), 0
        self._running, self._since = [], 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time of a block for a stage, and no longer for that around it."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def timed(self, name: str, items: Iterable) -> Iterator:
        """Yields the items of a stage, and counts the time until each comes."""
        items, end = iter(items), object()
        while True:
            with self.stage(name):
                item = next(items, end)
            if item is end:
                return
            yield item

    def _charge(self) -> None:
        """Counts the time since the last call for the stage that runs."""
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


if __name__ == "__main__":
    launch(main, *ARGUMENTS, messages=sys.stderr)  # the standard output is for labels
