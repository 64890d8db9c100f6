"""`live.py` with files in place of cameras: its labels are those of timelines, and addresses lead nowhere else."""

import functools
import itertools
import json
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import tiny_recogniser
from tiny_poses import BrightCorner
from tiny_videos import tiny_video

from action_llm import ActionLLMForClassification, ActionLLMProcessor, pose_estimators
from action_llm.pose_estimation import PoseEstimator
from action_llm.video_files import open_video
from action_llm.video_frames import VideoFileError
from action_llm_recipes import live
from action_llm_recipes.common import screens
from action_llm_recipes.common.live_video import LiveVideo, open_address, open_camera


@pytest.fixture(scope="module")
def recognisers(tmp_path_factory):
    """Folders of tiny recognisers, by what they read."""
    folders = {}
    for reads in ("skeletons", "videos"):
        model, processor = tiny_recogniser(reads)
        if reads == "videos":
            processor.feature_extractor.segment_seconds = 0.1
        folders[reads] = str(tmp_path_factory.mktemp(reads))
        model.save_pretrained(folders[reads])
        processor.save_pretrained(folders[reads])
    return folders


@pytest.mark.parametrize("reads", ["skeletons", "videos"])
def test_labels_are_those_of_the_timeline_of_the_file(recognisers, reads, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pose_estimators, "load_pose_estimator", lambda name, model, max_people: BrightCorner(model, max_people)
    )
    (tmp_path / "clip.mp4").write_bytes(tiny_video(40))
    settings = {"model": recognisers[reads], "seconds": 0.4, "stride": 0.2, "video": str(tmp_path / "clip.mp4")}
    files = {"output": str(tmp_path / "labels.jsonl"), "draw": str(tmp_path / "drawn.mkv")}
    rates = live.main(live.LiveArguments(**settings, **files))
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    model = ActionLLMForClassification.from_pretrained(recognisers[reads])
    processor = ActionLLMProcessor.from_pretrained(recognisers[reads])
    reading = {"pose": BrightCorner()} if reads == "skeletons" else {}
    expected = model.timeline(processor, tmp_path / "clip.mp4", seconds=0.4, stride=0.2, **reading)
    assert [line["start"] for line in lines] == pytest.approx(expected.starts, abs=1e-3)
    assert [line["known"] for line in lines] == pytest.approx(expected.known, abs=1e-3)
    assert [line["probability"] for line in lines] == pytest.approx(expected.probabilities.max(axis=1), abs=1e-4)
    assert [line["label"] for line in lines] == [expected.class_names[best] for best in expected.best()]
    with open_video(tmp_path / "drawn.mkv") as drawn, open_video(tmp_path / "clip.mp4") as filmed:
        moments = [0.05, drawn.info.seconds - 0.05]
        first, last = np.abs(drawn.frames_at(moments).astype(int) - filmed.frames_at(moments)).mean((1, 2, 3))
    assert drawn.info.num_frames == (40 if reads == "skeletons" else 13)
    assert last > first + 20  # a caption, once a label is known
    assert set(rates) == {"read", "draw", "recognise", *(["pose"] if reads == "skeletons" else [])}


def test_each_person_has_a_label(recognisers, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pose_estimators,
        "load_pose_estimator",
        lambda name, model, max_people: BrightCorner(model, max_people, people=2),
    )
    (tmp_path / "clip.mp4").write_bytes(tiny_video(40))
    settings = {"model": recognisers["skeletons"], "seconds": 0.4, "stride": 0.4, "video": str(tmp_path / "clip.mp4")}
    files = {"output": str(tmp_path / "labels.jsonl"), "draw": str(tmp_path / "drawn.mkv")}
    live.main(live.LiveArguments(**settings, **files, per_person=True))
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    people = sorted({line["person"] for line in lines})
    assert len(people) == 2
    assert [line["person"] for line in lines] == people * (len(lines) // 2)
    assert all(line["label"] is not None for line in lines)


def test_people_are_shown_with_their_labels_of_the_same_time():
    view = live.View([], "blazepose33")
    line = {"start": 0.0, "known": 2.0, "label": "wave", "probability": 0.75}
    view.tell(line | {"person": 1})
    view.tell(line | {"person": 2, "label": None, "probability": None})
    assert view.labels == {1: "wave 75% (2.0 s ago)", 2: ""}
    view.tell(line | {"person": 2, "start": 0.5, "known": 2.5})
    assert view.labels == {2: "wave 75% (2.0 s ago)"}
    view.tell(line | {"start": 1.0, "known": 3.0, "label": None, "probability": None})
    assert view.labels == {} and view.caption == "nobody (2.0 s ago)"


@pytest.mark.parametrize("reads", ["skeletons", "videos"])
def test_windows_unlike_the_training_are_doubted(reads, tmp_path):
    """A window that holds the whole recording has the token distance of the recording."""
    model, processor = tiny_recogniser(reads)
    if reads == "videos":
        processor.feature_extractor.segment_seconds = 0.1
        (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
        recording = tmp_path / "clip.mp4"
    else:
        recording = np.random.default_rng(0).normal(size=(40, 1, 25, 3)).cumsum(axis=0)
    settings = {"seconds": 10.0, "stride": 10.0} | ({"fps": 30.0} if reads == "skeletons" else {})
    inputs = processor(recording, **({"fps": 30.0} if reads == "skeletons" else {}))
    distance = float(model(**inputs).token_distance)
    for familiar, is_doubtful in ((None, False), (1.001 * distance, False), (0.999 * distance, True)):
        model.config.action_config.familiar_distance = familiar
        found = model.timeline(processor, recording, **settings)
        assert found.is_doubtful.tolist() == [is_doubtful] and found.spans()[0].is_doubtful == is_doubtful
        line = live.described(next(iter(model.stream_timeline(processor, recording, **settings))), found.class_names)
        assert line.get("doubtful", False) == is_doubtful
        assert ("unlike the training recordings" in live.caption_of(line)) == is_doubtful


def test_nobody_is_a_label_too(recognisers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pose_estimators, "load_pose_estimator", lambda *arguments: BrightCorner(threshold=256))
    (tmp_path / "clip.mp4").write_bytes(tiny_video(12))
    live.main(live.LiveArguments(recognisers["skeletons"], video=str(tmp_path / "clip.mp4")))
    assert json.loads(capsys.readouterr().out) == {
        "start": 0.0,
        "end": 0.4,
        "label": None,
        "probability": None,
        "known": 0.4,
    }


@pytest.mark.parametrize(
    ("reads", "wrong", "message"),
    [
        ("skeletons", {"stride": 5.0}, "at most the window of 2.0 s"),
        ("skeletons", {"fps": -3.0}, "--fps: expected a positive number of frames per second.*found fps -3"),
        ("videos", {"max_people": 7}, "--max_people: this recogniser reads videos"),
        ("videos", {"stride": 0.0}, "must be above 0"),
    ],
)
def test_wrong_settings_leave_the_output_as_it_is(recognisers, tmp_path, reads, wrong, message):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(12))
    files = {"video": str(tmp_path / "clip.mp4"), "output": str(tmp_path / "labels.jsonl")}
    (tmp_path / "labels.jsonl").write_text("of yesterday")
    with pytest.raises(ValueError, match=message):
        live.main(live.LiveArguments(recognisers[reads], **files, **wrong))
    assert (tmp_path / "labels.jsonl").read_text() == "of yesterday"


def test_a_recogniser_without_a_duration_of_segments_is_refused(recognisers, tmp_path, monkeypatch):
    processor = ActionLLMProcessor.from_pretrained(recognisers["videos"])
    processor.feature_extractor.segment_seconds = None
    monkeypatch.setattr(ActionLLMProcessor, "from_pretrained", lambda folder: processor)
    (tmp_path / "clip.mp4").write_bytes(tiny_video(12))
    with pytest.raises(ValueError, match="set segment_seconds; it is None"):
        live.main(live.LiveArguments(recognisers["videos"], video=str(tmp_path / "clip.mp4")))


@pytest.mark.parametrize("end", [KeyboardInterrupt, screens.WindowClosed])
def test_ctrl_c_and_a_closed_window_are_ends_like_that_of_a_file(recognisers, tmp_path, monkeypatch, caplog, end):
    class Closed(SimpleNamespace):
        shown = 0

        def show(self, picture):
            self.shown += 1
            if self.shown == 3:
                raise end

        def close(self):
            pass

    monkeypatch.setattr(screens, "WindowScreen", lambda title: Closed())
    (tmp_path / "clip.mp4").write_bytes(tiny_video(12))
    settings = {"video": str(tmp_path / "clip.mp4"), "output": str(tmp_path / "labels.jsonl"), "window": True}
    with caplog.at_level("INFO", logger=live.logger.name):
        rates = live.main(live.LiveArguments(recognisers["videos"], **settings))
    assert set(rates) == {"read", "draw", "recognise"} and "3 frames; per second: " in caplog.text


def test_one_source_is_asked_for(recognisers):
    for sources, given in (({}, "none"), ({"camera": 0, "video": "a.mp4"}, "camera, video")):
        with pytest.raises(ValueError, match=f"expected one of --camera, --video and --address, got {given}"):
            live.LiveArguments(recognisers["skeletons"], **sources)


@contextmanager
def serving(folder):
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_stream_from_an_address_keeps_its_pace_and_skips_frames(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(15))
    with serving(tmp_path) as address, open_address(f"{address}/clip.mp4") as video:
        assert (video.picture_size(), video.info.fps, video.info.seconds) == ((32, 48), 30.0, float("inf"))
        pictures = list(video.pictures_in_order(number / 30 for number in range(1000)))
    assert 10 < len(pictures) < 20 and len({picture.tobytes() for picture in pictures}) > 2
    with serving(tmp_path) as address, open_address(f"{address}/clip.mp4") as video:
        pieces = list(PoseEstimator.stream(BrightCorner(), video))
    assert {len(piece.present) for piece in pieces} == {1}


def test_a_stream_is_not_closed_while_it_is_read():
    """FFmpeg crashes then. The reader was interrupted, and its frames are not read to their end."""
    read = []

    class Container(SimpleNamespace):
        is_closed = False

        def decode(self, stream):
            for number in itertools.count():
                time.sleep(0.01)
                read.append(self.is_closed)
                yield SimpleNamespace(time=number / 100)

        def close(self):
            self.is_closed = True

    context = SimpleNamespace(width=48, height=32)
    stream = SimpleNamespace(codec_context=context, average_rate=30, guessed_rate=30)
    video = LiveVideo("endless", Container(streams=SimpleNamespace(video=[stream])))
    with video:
        frames = video._frames_in_order(itertools.repeat(0.0))
        next(frames)
    count = len(read)
    time.sleep(0.03)
    assert len(read) == count and not any(read) and video._container.is_closed


def test_addresses_lead_to_videos_alone(tmp_path):
    (tmp_path / "clip.ts").write_bytes(tiny_video(12, container="mpegts"))
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/clip.ts\n#EXT-X-ENDLIST\n"
    )
    with serving(tmp_path) as address:
        for name in ("list.m3u8", "missing.mp4"):
            with pytest.raises(VideoFileError, match=f"{name}: expected a video, found"):
                open_address(f"{address}/{name}")
    for other in (f"file://{tmp_path}/clip.ts", "concat:a|b", str(tmp_path / "clip.ts"), "udp://0.0.0.0:1"):
        with pytest.raises(VideoFileError, match="expected an address of rtsp, http, https, found the scheme"):
            open_address(other)
    with pytest.raises(VideoFileError, match="camera 99: expected a video, found"):
        open_camera(99)
