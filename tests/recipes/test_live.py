"""`live.py` with files in place of cameras: its labels are those of timelines, and addresses lead nowhere else."""

import functools
import itertools
import json
import sys
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import av
import numpy as np
import pytest
from rtsp_camera import rtsp_camera
from tiny_models import tiny_recogniser
from tiny_poses import BrightCorner
from tiny_videos import tiny_video

from action_llm import ActionLLMForClassification, ActionLLMProcessor, pose_estimators
from action_llm.pose_estimation import PoseEstimator
from action_llm.video_files import open_video
from action_llm.video_frames import VideoFileError
from action_llm_recipes import live
from action_llm_recipes.common import live_video, screens
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


class Source(SimpleNamespace):
    """A container of PyAV without an end, whose packets are an iterator of frames, errors, and `HUNG` for silence."""

    duration, size, is_closed = None, -1, False

    def __init__(self, packets):
        super().__init__(packets=iter(packets), streams=SimpleNamespace(video=[SimpleNamespace(average_rate=100)]))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.is_closed = True

    def demux(self, stream):
        for packet in self.packets:
            if isinstance(packet, BlockingIOError):
                raise packet
            if packet is HUNG:
                HUNG.wait(5)
            yield SimpleNamespace(decode=functools.partial(decoded, packet))


HUNG = threading.Event()


def decoded(packet):
    if isinstance(packet, Exception):
        raise packet
    return [] if packet is HUNG else [packet]


def frame(grey: int):
    pixels = np.full((32, 48, 3), grey, np.uint8)
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")


@pytest.fixture
def sources(monkeypatch):
    """Gives the containers that `av.open` returns, one after the other; the last one again and again."""

    def given(*containers):
        left = list(containers)
        monkeypatch.setattr(live_video.av, "open", lambda *arguments, **settings: left.pop(0) if left[1:] else left[0])

    HUNG.clear()
    monkeypatch.setattr(live_video, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(live_video, "RETRY_SECONDS", 0.01)
    yield given
    HUNG.set()


def frames_until(video, last):
    """The brightness of the frames of a video, until `last`."""
    for shown in video._frames_in_order(itertools.count(0, 0.005)):
        yield (grey := int(shown.to_ndarray().mean()))
        if grey == last:
            return


def test_a_source_is_closed_by_the_thread_that_reads_it(sources):
    """FFmpeg crashes if another thread closes it. The reader is interrupted, and its frames are not read to their end."""

    def packets():
        for _ in itertools.count():
            time.sleep(0.01)
            read.append(source.is_closed)
            yield frame(100)

    read = []
    sources(source := Source(packets()))
    with LiveVideo("endless", "") as video:
        next(video._frames_in_order(itertools.repeat(0.0)))
    count = len(read)
    time.sleep(0.03)
    assert len(read) == count and not any(read) and source.is_closed


def test_a_silent_source_is_black_and_closes_at_once(sources, caplog):
    sources(Source([frame(100), HUNG, frame(200), HUNG]))
    with LiveVideo("camera 7", "") as video:
        assert set(frames_until(video, 0)) <= {0, 100}
        assert caplog.messages == ["camera 7: no picture in 0.05 s"]
        start = time.monotonic()
    assert time.monotonic() - start < 1
    sources(Source([frame(100), HUNG, frame(200)]))
    with LiveVideo("camera 7", "") as video:
        for grey in frames_until(video, 200):
            if grey == 0:
                HUNG.set()
        assert "camera 7: pictures arrive again" in caplog.messages


def test_a_source_that_never_answers_is_an_error(sources, monkeypatch, caplog):
    monkeypatch.setattr(live_video, "SILENT_SECONDS", 0.1)
    sources(Source([HUNG]))
    with pytest.raises(VideoFileError, match=r"camera 7: expected a video, found no picture in 0\.1 s"):
        LiveVideo("camera 7", "")
    assert caplog.messages == ["camera 7: no picture in 0.05 s"]


def test_a_slow_reader_keeps_up_and_ends(sources):
    """It needs ten times as long for a picture as the camera, and no time for one that stays."""

    def packets():
        for grey in itertools.cycle(range(1, 200)):
            time.sleep(0.001)
            yield frame(grey)

    sources(Source(packets()))
    with LiveVideo("camera 7", "") as video:
        start, shown, delays = time.monotonic(), None, []
        for moment, picture in enumerate(video._frames_in_order(number / 1000 for number in range(200))):
            if picture is not shown:
                time.sleep(0.01)
            shown = picture
            delays.append(time.monotonic() - start - moment / 1000)
    assert delays[-1] < 0.5
    sources(file := Source(frame(grey) for grey in range(20)))
    file.duration = 1
    with LiveVideo("file", "") as video:
        frames = video._frames_in_order(number / 1000 for number in range(1000))
        assert sum(time.sleep(0.005) or 1 for _ in frames) < 100


def test_a_lost_source_is_opened_again(sources, caplog):
    sources(Source([frame(100)]), Source([]), Source([]), Source([frame(200), HUNG]))
    with LiveVideo("camera 7", "") as video:
        assert set(frames_until(video, 200)) <= {0, 100, 200}
        HUNG.set()
    lost = [message for message in caplog.messages if "lost" in message]
    assert lost == ["camera 7 is lost (it ended): opening it again every 0.01 s"]


def test_damaged_packets_and_cameras_that_do_not_wait(sources, caplog):
    damaged, waits = (getattr(av.error, name)(0, "") for name in ("InvalidDataError", "BlockingIOError"))
    sources(Source([damaged, waits, frame(100), waits, damaged, frame(200), HUNG]))
    with LiveVideo("camera 7", "") as video:
        assert set(frames_until(video, 200)) <= {0, 100, 200}
        assert not [message for message in caplog.messages if "lost" in message]
        HUNG.set()


def test_a_camera_of_rtsp_by_its_address(tmp_path):
    with rtsp_camera(tiny_video(45, container="mpegts")) as address, open_address(address) as video:
        assert (video.picture_size(), video.info.fps, video.info.seconds) == ((32, 48), 30.0, float("inf"))
        assert next(video.pictures_in_order([0.0])).shape == (32, 48, 3)


def test_labels_of_a_camera(recognisers, tmp_path, monkeypatch):
    """Instead of a camera, FFmpeg has a device with a test picture."""

    class Closing(SimpleNamespace):
        shown = []

        def show(self, picture):
            self.shown.append(picture)
            if len(self.shown) == 20:
                raise screens.WindowClosed

        def close(self):
            pass

    monkeypatch.setitem(live_video.CAMERAS, sys.platform, ("lavfi", "testsrc=size=48x32:rate={},realtime"))
    monkeypatch.setattr(screens, "WindowScreen", lambda title: Closing())
    settings = {"camera": 20, "output": str(tmp_path / "labels.jsonl"), "window": True, "seconds": 0.2, "stride": 0.1}
    live.main(live.LiveArguments(recognisers["videos"], **settings))
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["start"] for line in lines[:3]] == [0.0, 0.1, 0.2]
    assert Closing.shown[-1].shape == (32, 48, 3) and len({picture.tobytes() for picture in Closing.shown}) > 2


@pytest.mark.parametrize("seed", range(4))
def test_labels_do_not_overlap(seed):
    generator = np.random.default_rng(seed)
    lefts, tops = generator.integers(300, size=6), generator.integers(60, size=6)
    boxes = [(left, top, left + 200, top + 20) for left, top in zip(lefts, tops, strict=True)]
    placed = live.apart(boxes, 240)
    assert placed[0] == boxes[0]
    for (left, top, right, bottom), box in zip(placed, boxes, strict=True):
        assert (left, right, bottom - top) == (box[0], box[2], 20) and 0 <= top <= 220
    for one, other in itertools.combinations(placed, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert live.apart([(0, 50, 10, 70), (5, 55, 15, 75), (20, 55, 30, 75)], 240)[1:] == [
        (5, 30, 15, 50),
        (20, 55, 30, 75),
    ]


def test_addresses_lead_to_videos_alone(tmp_path):
    (tmp_path / "clip.ts").write_bytes(tiny_video(12, container="mpegts"))
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{tmp_path}/clip.ts\n#EXT-X-ENDLIST\n"
    )
    with serving(tmp_path) as address:
        for name in ("list.m3u8", "missing.mp4"):
            with pytest.raises(VideoFileError, match=f"{name}: expected a video, found"):
                open_address(f"{address}/{name}")
        with pytest.raises(VideoFileError) as error:
            open_address(address.replace("//", "//me:secret@") + "/missing.mp4")
        assert "secret" not in str(error.value) and "127.0.0.1" in str(error.value)
    for other in (f"file://{tmp_path}/clip.ts", "concat:a|b", str(tmp_path / "clip.ts"), "udp://0.0.0.0:1"):
        with pytest.raises(VideoFileError, match="expected an address of rtsp, http, https, found the scheme"):
            open_address(other)
    with pytest.raises(VideoFileError, match="camera 99: expected a video, found"):
        open_camera(99)
