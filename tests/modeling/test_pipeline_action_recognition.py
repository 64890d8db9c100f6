"""The pipeline: every kind of input, batches, other classes, reasons, tokens, and what goes wrong."""

import functools
import io
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from skeleton_people import person
from skeleton_people import recording as recording_of_bodies
from tiny_models import CLASS_NAMES, tiny_action_model, tiny_llm, tiny_processor, tiny_recogniser
from tiny_poses import BrightCorner
from tiny_videos import tiny_video
from transformers import pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

import action_llm
from action_llm import ActionLLMForClassification, SkeletonFeatureExtractor, pipeline_action_recognition
from action_llm.action_sentence import token_distance
from action_llm.recording_versions import version_arguments
from action_llm.skeleton_files import SkeletonFileError
from action_llm.skeleton_layouts import LAYOUTS
from action_llm.token_lexicon import TokenEntry


def recording(frames: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(frames, 25, 3)).cumsum(0) * 0.1 + generator.normal(size=(25, 3))).astype(np.float32)


@pytest.fixture(scope="module")
def parts():
    return tiny_recogniser("skeletons")


@pytest.fixture(scope="module")
def recognise(parts):
    model, processor = parts
    return pipeline("action-recognition", model=model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def see():
    model, processor = tiny_recogniser("videos")
    return pipeline("action-recognition", model=model, processor=processor, device="cpu")


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture
def server(tmp_path):
    with serving(functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)) as url:
        yield url


def test_scores_are_the_probabilities_of_the_model(parts, recognise):
    model, processor = parts
    with torch.no_grad():
        expected = model(**processor(recording(30))).probabilities[0].tolist()
    found = recognise(recording(30), top_k=len(CLASS_NAMES))
    assert {one["label"]: one["score"] for one in found} == dict(zip(CLASS_NAMES, expected, strict=True))
    assert [one["score"] for one in found] == sorted(expected, reverse=True)
    assert recognise(recording(30), top_k=2) == found[:2]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_versions_of_a_recording_have_the_mean_of_their_probabilities(parts, recognise, batch_size):
    model, processor = parts
    recordings = [recording(90, seed) for seed in (13, 3)]
    with torch.no_grad():
        expected = [
            torch.cat([model(**processor(one, **version_arguments("", v))).probabilities for v in range(3)])
            for one in recordings
        ]
    assert all(one.std(dim=0).max() > 1e-4 for one in expected)
    everything = {"top_k": None, "return_tokens": True, "batch_size": batch_size}
    found, alone = (recognise(recordings, versions=versions, **everything) for versions in (3, 1))
    for one, of_one, probabilities in zip(found, alone, expected, strict=True):
        means = dict(zip(CLASS_NAMES, probabilities.mean(0).tolist(), strict=True))
        assert {each["label"]: each["score"] for each in one} == pytest.approx(means, abs=1e-6)
        assert one[0]["tokens"] == of_one[0]["tokens"]  # of the recording as it is
    with pytest.raises(ValueError, match="versions must be an integer from 1 to 1000, got 0"):
        recognise(recordings[0], versions=0)


def test_versions_of_a_video_by_url(see, server, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
    here = see(str(tmp_path / "clip.mp4"), versions=2)
    assert see(f"{server}/clip.mp4", versions=2) == here != see(str(tmp_path / "clip.mp4"))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_lists_tuples_generators_and_data_sets_give_what_single_recordings_give(recognise, batch_size):
    recordings = [recording(frames, frames) for frames in (40, 9, 23, 31)]
    alone = [recognise(one) for one in recordings]
    for many in (recordings, tuple(recordings), (one for one in recordings)):
        found = list(recognise(many, batch_size=batch_size))
        assert [[a["label"] for a in one] for one in found] == [[a["label"] for a in one] for one in alone]
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose([a["score"] for a in one], [a["score"] for a in other], atol=1e-5)
    rows = datasets.Dataset.from_list(
        [
            {"keypoints": one.ravel(), "shape": [len(one), 1, 25, 3], "layout": "kinect25", "fps": 30.0}
            for one in recordings
        ]
    )
    assert [one[0]["label"] for one in recognise(rows)] == [one[0]["label"] for one in alone]
    assert recognise([]) == []


@pytest.mark.parametrize("many", ["list", "generator", "data set"])
def test_processes_that_read_give_each_recording_once(recognise, many):
    recordings = [recording(frames, frames) for frames in (40, 9, 23)]
    alone = [recognise(one)[0]["label"] for one in recordings]
    rows = [
        {"keypoints": one.ravel(), "shape": [len(one), 1, 25, 3], "layout": "kinect25", "fps": 30.0}
        for one in recordings
    ]
    given = {
        "list": recordings,
        "generator": (one for one in recordings),
        "data set": datasets.Dataset.from_list(rows),
    }[many]
    assert [one[0]["label"] for one in recognise(given, num_workers=2, batch_size=2)] == alone


def test_what_is_too_long_for_the_language_model_does_not_end_a_batch(recognise):
    found = recognise([recording(30), recording(1600), recording(30)], batch_size=3, on_error="return", top_k=None)
    assert "context of 256" in found[1][0]["error"] and found[0] == found[2] and len(found[0]) == len(CLASS_NAMES)
    with pytest.raises(ValueError, match="context of 256"):
        recognise(recording(1600))
    for wrong, message in (([recording(9)], "a list of 1"), (5, "int"), (None, "NoneType")):
        assert message in recognise([recording(9), wrong], on_error="return")[1][0]["error"], message


def test_the_lexicon_goes_where_the_model_goes(parts, tmp_path):
    model, processor = parts
    entries = [TokenEntry(code, 1, 0.5, [(CLASS_NAMES[0], 2.5)]) for code in range(16)]
    model.lexicon = entries
    try:
        pipeline("action-recognition", model=model, processor=processor, device="cpu").save_pretrained(tmp_path)
    finally:
        model.lexicon = None
    assert ActionLLMForClassification.from_pretrained(tmp_path).lexicon == [
        TokenEntry(code, 1, 0.5, [[CLASS_NAMES[0], 2.5]]) for code in range(16)
    ]
    (tmp_path / "lexicon.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lexicon\.json: expected a JSON list"):
        ActionLLMForClassification.from_pretrained(tmp_path)


def test_a_generator_is_read_as_it_goes(recognise):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield recording(12)

    results = recognise(endless())
    assert next(iter(results))[0]["label"] in CLASS_NAMES and len(taken) <= 2


def test_the_reason_and_the_tokens_are_those_of_the_model(parts, recognise):
    model, processor = parts
    found = recognise(recording(40), explain=True, return_tokens=True, unsure_below=1.0)
    with torch.no_grad():
        outputs = model(**processor(recording(40)))
    expected = model.explain(processor, outputs, recording=recording(40), unsure_below=1.0)
    assert found[0]["reason"] == expected.text and expected.text.startswith("Not sure")
    assert [one["id"] for one in found[0]["tokens"]] == outputs.action_ids[0].tolist()
    assert found[0]["tokens"][0]["token"] == f"<act_{found[0]['tokens'][0]['id']}>"
    np.testing.assert_allclose([one["end"] for one in found[0]["tokens"]], outputs.end_times[0], atol=1e-3)
    assert set(found[1]) == {"label", "score"}, "they are of the recording, and stand once"


def test_other_classes_are_written_into_the_prompt_and_known_ones_are_not(parts, recognise):
    model, processor = parts
    new = ["falling", CLASS_NAMES[0]]
    with torch.no_grad():
        listed = model(**processor(recording(20), class_names=new, list_classes=True)).probabilities[0].tolist()
        some = (
            model(**processor(recording(20), class_names=CLASS_NAMES[:2], list_classes=False))
            .probabilities[0]
            .tolist()
        )
    found = recognise(recording(20), candidate_labels=new, explain=True)
    assert {one["label"]: one["score"] for one in found} == dict(zip(new, listed, strict=True))
    assert found[0]["label"] in found[0]["reason"]
    found = recognise(recording(20), candidate_labels=CLASS_NAMES[:2])
    assert {one["label"]: one["score"] for one in found} == dict(zip(CLASS_NAMES[:2], some, strict=True))


def test_files_urls_and_videos(see, server, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
    here = see(str(tmp_path / "clip.mp4"), explain=True, return_tokens=True)
    assert see(Path(tmp_path / "clip.mp4"))[0]["label"] == here[0]["label"]
    assert see(f"{server}/clip.mp4", explain=True, return_tokens=True) == here
    assert see(np.zeros((24, 40, 40, 3), np.uint8))[0]["label"] in CLASS_NAMES
    with pytest.raises(
        OSError, match=r"none\.mp4 cannot be downloaded: .*404|none\.mp4 cannot be downloaded: File not found"
    ):
        see(f"{server}/none.mp4")


class Hostile(BaseHTTPRequestHandler):
    """A server whose path says what it does."""

    def do_GET(self):
        with suppress(OSError):  # it was left
            self.answer(self.path.strip("/").removesuffix(".mp4"))

    def answer(self, name: str):
        if name == "headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(200):
                self.wfile.write(b"X-")
                time.sleep(0.05)
        elif name.startswith("to-"):
            targets = {"file": "file:///etc/hostname", "ftp": "ftp://127.0.0.1:9/a", "data": "data:video/mp4,a"}
            self.send_response(302)
            self.send_header("Location", targets.get(name[3:], f"/to-{name[3:]}x.mp4"))
            self.end_headers()
        else:
            self.send_response(200)
            if name in ("promise", "short"):
                self.send_header("Content-Length", "5000" if name == "promise" else "900")
            self.end_headers()
            for _ in range(200) if name == "drip" else range(4 if name in ("flood", "promise") else 1):
                self.wfile.write(b"a" if name == "drip" else b"a" * 500)
                time.sleep(0.05 if name == "drip" else 0)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drip", "it takes more than 0.5 s; download it, and pass its path"),
        ("headers", "it takes more than 0.5 s; download it, and pass its path"),
        ("flood", "it is larger than 0 MiB; download it, and pass its path"),
        ("promise", "it is larger than 0 MiB; download it, and pass its path"),
        ("short", "the response ends after 500 of 900 bytes"),
        ("to-file", "Redirection to url .* is not allowed"),
        ("to-ftp", "it redirects to ftp://127.0.0.1:9/a, but only http and https are followed"),
        ("to-data", "Redirection to url .* is not allowed"),
        ("to-itself", "redirect"),
    ],
)
def test_an_answer_is_bounded_in_bytes_in_seconds_and_in_redirects(see, monkeypatch, name, message):
    monkeypatch.setattr(pipeline_action_recognition, "URL_SECONDS", 0.5)
    monkeypatch.setattr(pipeline_action_recognition, "URL_BYTES", 1000)
    threads = threading.active_count()
    with serving(Hostile) as url:
        start = time.monotonic()
        with pytest.raises(OSError, match=rf"{name}\.mp4 cannot be downloaded: .*{message}"):
            see(f"{url}/{name}.mp4")
        assert time.monotonic() - start < 3
        assert "cannot be downloaded" in see([f"{url}/{name}.mp4"], on_error="return")[0][0]["error"]
    assert threading.active_count() <= threads + 3  # those of the server


def test_a_long_answer_is_on_the_disk(see, server, tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
    here = see(str(tmp_path / "clip.mp4"))
    monkeypatch.setattr(pipeline_action_recognition, "URL_MEMORY", 100)
    assert see(f"{server}/clip.mp4") == here


@pytest.mark.parametrize(
    "address", ["file:///etc/hostname", "ftp://127.0.0.1/a.mp4", "S3://bucket/a.mp4", "rtsp://a/b"]
)
def test_addresses_of_other_kinds_are_refused(see, address):
    with pytest.raises(OSError, match=f"{address}: expected a path, or a URL of http or https; download it"):
        see(address)


def test_a_skeleton_by_url_is_narrated_too(recognise, server, tmp_path):
    np.save(tmp_path / "walk.npy", recording(40))
    here = recognise(str(tmp_path / "walk.npy"), explain=True)
    assert recognise(f"{server}/walk.npy", explain=True) == here


def test_a_url_without_a_suffix_is_what_the_server_says(recognise, tmp_path):
    np.save(tmp_path / "walk.npy", recording(40))
    content = (tmp_path / "walk.npy").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            if self.path == "/named":
                self.send_header("Content-Disposition", 'attachment; filename="walk.npy"')
            elif self.path == "/typed":
                self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with serving(Handler) as url:
        assert recognise(f"{url}/named") == recognise(str(tmp_path / "walk.npy"))
        with pytest.raises(SkeletonFileError, match=r"typed\.json"):  # taken for JSON, which it is not
            recognise(f"{url}/typed")
        with pytest.raises(SkeletonFileError, match="a name that ends in ''"):
            recognise(f"{url}/unnamed")


def test_what_cannot_be_read_stops_or_is_told(recognise, see, tmp_path):
    (tmp_path / "broken.skeleton").write_text("no number\n")
    (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
    broken = str(tmp_path / "broken.skeleton")
    with pytest.raises(SkeletonFileError, match=r"broken\.skeleton"):
        recognise([recording(20), broken])
    found = recognise([recording(20), broken, recording(20)], on_error="return", batch_size=3)
    assert "broken.skeleton" in found[1][0]["error"] and found[0] == found[2] and set(found[1][0]) == {"error"}
    # The wrong kind of recording for a model.
    with pytest.raises(ValueError, match=r"broken\.skeleton is a recording of skeletons, but this model reads videos"):
        see(broken)


def test_a_model_of_skeletons_reads_the_poses_of_a_video(recognise, see, tmp_path):
    path = str(tmp_path / "clip.mp4")
    Path(path).write_bytes(tiny_video(24))
    estimator = BrightCorner()
    found = recognise(path, pose=estimator)
    assert found[0].pop("warnings")[0].startswith("recorded with blazepose33, read as kinect25")
    expected = recognise(estimator(path))
    del expected[0]["warnings"]
    assert found == expected
    with open(path, "rb") as file:
        assert [one["score"] for one in recognise(file, pose=estimator)] == [one["score"] for one in found]
    assert recognise.preprocess(path, pose=estimator, fps=10)["recording"].fps == 10
    back = recognise.preprocess(path, pose=estimator, mirrored=True)["recording"]
    np.testing.assert_array_equal(back.keypoints, estimator(path, mirrored=True).keypoints)
    assert recognise(path, pose=estimator, mirrored=True) != recognise(path, pose=estimator)
    with pytest.raises(ValueError, match="nobody in any of the 24 frames"):
        recognise(path, pose=BrightCorner(threshold=256))
    with pytest.raises(ValueError, match="there is no pose estimator 'mediapip', expected mediapipe or vitpose"):
        recognise(path, pose="mediapip")
    with pytest.raises(ValueError, match="pose must be a pose estimator or the name of one, got 3"):
        recognise(path, pose=3)
    with pytest.raises(ValueError, match="mirrored must be True or False, got 'yes'"):
        recognise(path, mirrored="yes")
    for name, setting in (("pose", estimator), ("mirrored", True)):
        with pytest.raises(ValueError, match=f"{name}: this model reads videos"):
            see(path, **{name: setting})


def test_each_person_is_recognised_alone(recognise, see):
    """Two people of a pose estimator, of whom the second comes later, and a sensor that takes one person for two bodies."""
    first, second = person(60, seed=1), person(60, seed=2, place=(2.0, -0.2, 3.0))
    both = recording_of_bodies([(0, first), (20, second[20:])], ids=[7, 3])
    one, other = recognise(both, per_person=True, return_tokens=True)
    assert (one["person"], one["start"], one["end"]) == (7, 0.0, 2.0)
    assert (other["person"], other["start"], other["end"]) == (3, pytest.approx(2 / 3), 2.0)
    for found, alone in ((one, first), (other, second[20:])):
        expected = recognise(alone, fps=30.0, top_k=1, return_tokens=True)[0]
        assert found["label"] == expected["label"] and found["score"] == pytest.approx(expected["score"])
        assert [token["id"] for token in found["tokens"]] == [token["id"] for token in expected["tokens"]]
    assert other["tokens"][0]["start"] == pytest.approx(2 / 3, abs=1e-3)  # in the time of the recording
    rejoined = recording_of_bodies([(0, first[:30]), (30, first[30:])], ids=[5, 6])
    (found,) = recognise(rejoined, per_person=True)
    assert found["person"] == 5 and found["score"] == pytest.approx(recognise(first, top_k=1, fps=30.0)[0]["score"])
    cut = rejoined.keypoints
    row = {"keypoints": cut.ravel(), "shape": cut.shape, "layout": "kinect25", "fps": 30.0, "cleaned": True}
    assert [person["person"] for person in recognise(row, per_person=True)] == [0, 1]  # people, not bodies
    nested = recognise([both, first], per_person=True, fps=30.0, batch_size=2, on_error="return")
    assert [len(people) for people in nested] == [2, 1]
    with pytest.raises(ValueError, match="expected at least one person, found nobody"):
        recognise(np.zeros((30, 25, 3), np.float32), per_person=True)
    with pytest.raises(ValueError, match="leave out top_k"):
        recognise(both, per_person=True, top_k=2)
    with pytest.raises(ValueError, match="per_person: this model reads videos"):
        see("clip.mp4", per_person=True)


def test_a_person_of_too_few_joints_does_not_lose_the_others(recognise, caplog):
    """A leg that a sensor takes for a person is no reason to lose the person beside it."""
    leg = np.zeros((20, 25, 3), np.float32)
    joints = [
        place for place, name in enumerate(LAYOUTS["kinect25"].joint_names) if name in ("left_knee", "left_ankle")
    ]
    leg[:, joints] = person(20, place=(2.0, -0.2, 3.0))[:, joints]
    ghost = recording_of_bodies([(0, person(40)), (10, leg)], ids=[7, 9])
    (found,) = recognise(ghost, per_person=True)
    assert found["person"] == 7 and found["label"] in CLASS_NAMES
    assert "person 9 is left out: made.skeleton: expected hips" in caplog.text
    (alone,) = recognise(recording_of_bodies([(0, leg)]), per_person=True, on_error="return")
    assert alone["error"].startswith("made.skeleton: expected hips")


def test_code_from_a_repository_needs_no_scipy_and_takes_an_estimator_of_the_installed_package(
    parts, recognise, tmp_path, monkeypatch
):
    path = tmp_path / "clip.mp4"
    path.write_bytes(tiny_video(24))
    expected = recognise(str(path), pose=BrightCorner())
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "scipy", None)
        remote = get_class_from_dynamic_module(
            "pipeline_action_recognition.ActionRecognitionPipeline", str(Path(action_llm.__file__).parent)
        )
    assert not isinstance(BrightCorner(), sys.modules[remote.__module__].PoseEstimator)
    model, processor = parts
    found = remote(model=model, processor=processor, device="cpu")(str(path), pose=BrightCorner())
    assert found == expected


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large")])
def test_a_recording_that_is_too_large_does_not_lose_the_batch(recognise, monkeypatch, error):
    extractor = type(recognise.processor.feature_extractor)
    read = extractor.read

    def read_small_ones(self, given, **settings):
        if isinstance(given, str):
            raise error
        return read(self, given, **settings)

    monkeypatch.setattr(extractor, "read", read_small_ones)
    small, large = recording(20), "large.skeleton"
    answers = recognise([small, large, small], on_error="return", batch_size=3)
    assert answers[1] == [{"error": f"large: too large to be read ({type(error).__name__}: {error})"}]
    assert answers[0] == answers[2] == recognise(small)
    with pytest.raises(type(error)):
        recognise([small, large])


def test_the_reason_of_several_versions_is_about_the_class_that_they_decide_on(parts, recognise):
    """Of this recording, three versions decide otherwise than the recording as it is."""
    model, processor = parts
    names = [CLASS_NAMES[0], *CLASS_NAMES[2:]]
    settings = {"candidate_labels": names, "explain": True, "top_k": None, "return_tokens": True}
    alone, found = (recognise(recording(60, 4), versions=versions, **settings) for versions in (1, 3))
    assert alone[0]["label"] != found[0]["label"] and alone[0]["tokens"] == found[0]["tokens"]
    assert found[0]["reason"].startswith(f"{found[0]['label']}, with a probability of {found[0]['score']:.0%}.")
    scores = {one["label"]: one["score"] for one in found}
    with torch.no_grad():
        outputs = model(**processor(recording(60, 4), class_names=names))
    reason = model.explain(
        processor,
        outputs,
        recording=recording(60, 4),
        class_names=names,
        probabilities=[scores[name] for name in names],
    )
    assert (reason.label, reason.text, reason.probabilities) == (found[0]["label"], found[0]["reason"], scores)
    ids = [token["id"] for token in found[0]["tokens"]]
    with torch.no_grad():
        whole, without = (
            model(**processor(action_ids=[sentence], class_names=names)).logits.log_softmax(-1)[0]
            for sentence in (ids, ids[1:])
        )
    (first,) = (evidence for evidence in reason.evidence if evidence.place == 0)
    place = names.index(reason.label)
    assert first.contribution == pytest.approx(float(whole[place] - without[place]), abs=1e-4)


def test_settings_without_effect_are_refused(parts, recognise):
    model, _ = parts
    for wrong in (-0.1, 50, float("nan")):
        with pytest.raises(ValueError, match=f"unsure_below must be a probability from 0 to 1, got {wrong}"):
            recognise(recording(9), explain=True, unsure_below=wrong)
    still = {f"augment_{name}": 0 for name in ("rotation", "tilt", "scale", "bones", "trim", "warp", "noise")}
    same = tiny_processor()
    same.feature_extractor = SkeletonFeatureExtractor(num_persons=1, length=20, **still)  # with length, no tempo
    reads = pipeline("action-recognition", model=model, processor=same, device="cpu")
    with pytest.raises(
        ValueError, match=r"versions 2: expected versions that differ, but augment_rotation, .* are all 0"
    ):
        reads(recording(9), versions=2)
    assert reads(recording(9), versions=1)


def test_class_names_in_one_text_are_split_at_commas(recognise):
    listed = recognise(recording(20), candidate_labels=["waving", "falling down"])
    assert recognise(recording(20), candidate_labels="waving, falling down,") == listed and len(listed) == 2
    with pytest.raises(ValueError, match="the class list is empty"):
        recognise(recording(9), candidate_labels=" , ")


@pytest.mark.parametrize(
    ("names", "tokens"),
    [
        ([f"action {number}" for number in range(50)], r"[\d,]+"),
        (["a" * 6000, "falling"], r"12,0\d\d"),
        ([f"action {number}" for number in range(100_000)], "at least 100,000"),
    ],
)
def test_classes_that_do_not_fit_the_context_are_refused_first(recognise, names, tokens, monkeypatch):
    """Before a recording is read, and not as an error of each recording."""
    monkeypatch.setattr(recognise, "preprocess", None)
    start = time.process_time()
    message = (
        rf"candidate_labels: {len(names):,} classes and the prompt take {tokens} tokens, but the language model has a "
    )
    with pytest.raises(ValueError, match=message + r"context of 256: pass fewer or shorter names"):
        recognise(recording(20), candidate_labels=names, on_error="return")
    assert time.process_time() - start < 10


def test_one_class_to_choose_from_is_doubted_aloud(recognise, monkeypatch):
    said = []
    monkeypatch.setattr(pipeline_action_recognition.logger, "warning_once", said.append)
    (answer,) = recognise(recording(20), candidate_labels=CLASS_NAMES[0])
    assert (answer["label"], answer["score"]) == (CLASS_NAMES[0], 1.0)
    (warning,) = set(said)
    assert "has a single class, 'drink water', whose probability is always 1" in warning


def test_open_files_are_read_like_their_paths(recognise, see, tmp_path):
    np.save(tmp_path / "walk.npy", recording(40))
    (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
    for pipe, name in ((recognise, "walk.npy"), (see, "clip.mp4")):
        for settings in ({}, {"versions": 3}, {"explain": True, "return_tokens": True}):
            with open(tmp_path / name, "rb") as file:
                assert pipe(file, **settings) == pipe(str(tmp_path / name), **settings)
        with (
            open(tmp_path / name, encoding="latin-1") as text,
            pytest.raises(ValueError, match="open it with mode 'rb'"),
        ):
            pipe(text)
    content = io.BytesIO((tmp_path / "walk.npy").read_bytes())
    with pytest.raises(SkeletonFileError, match=r"expected one of \.skeleton, .*, found a name that ends in ''"):
        recognise(content)
    content.name = "walk.npy"
    for _ in range(2):  # read to its end before
        assert recognise(content) == recognise(str(tmp_path / "walk.npy"))
    with open(tmp_path / "clip.mp4", "rb") as video:
        assert see([video, video], num_workers=1, explain=True) == [see(str(tmp_path / "clip.mp4"), explain=True)] * 2


def test_bytes_are_a_video_and_no_kind_of_skeleton_file(recognise, see, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(24))
    for content in (tiny_video(24), bytearray(tiny_video(24))):
        assert see(content) == see(str(tmp_path / "clip.mp4"))
    with pytest.raises(ValueError, match="the format of 5 bytes is unknown: pass an open file whose name"):
        recognise(b"12345")
    assert "is unknown" in recognise([b"12345", recording(9)], on_error="return")[0][0]["error"]


def test_a_folder_is_the_frames_of_a_video_or_refused_with_the_way_on(recognise, see, tmp_path):
    from PIL import Image

    frames, videos, skeletons, nothing = (tmp_path / name for name in ("frames", "videos", "skeletons", "nothing"))
    for folder in (frames, videos, skeletons, nothing):
        folder.mkdir()
    pictures = np.random.default_rng(0).integers(0, 255, (24, 40, 40, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(frames / f"{number:03d}.png")
    assert see(frames) == see(str(frames)) and see(str(frames))[0]["label"] == see(pictures)[0]["label"]
    for number in range(2):
        (videos / f"{number}.mp4").write_bytes(tiny_video(24))
        np.save(skeletons / f"{number}.npy", recording(20))
    for pipe, folder, suffix in ((see, videos, "mp4"), (recognise, skeletons, "npy")):
        with pytest.raises(
            ValueError, match=rf"{folder.name} is a folder of 2 recordings: .*\.glob\('\*\.{suffix}'\)"
        ) as told:
            pipe(str(folder))
        way_on = str(told.value).partition("such as ")[2].removesuffix(".")
        assert len(pipe(eval(way_on))) == 2  # what the error says to do works
        with pytest.raises(ValueError, match="is a folder without recordings: expected a file"):
            pipe(nothing)
    with pytest.raises(ValueError, match="is a folder without recordings"):
        recognise(frames)


def test_what_is_unlike_the_training_carries_a_warning(parts, tmp_path):
    """By its distance from the tokens: of the recording as it is, in a batch as alone, and only where the model knows it."""
    model, processor = parts
    recordings = [recording(40, seed) for seed in range(6)]
    with torch.no_grad():
        distances = [float(model(**processor(one)).token_distance) for one in recordings]
        sentence = model.model.action_model.encode(**processor.feature_extractor(recordings[0]))
    latents, codes = sentence.latents[0], sentence.action_embeds[0]
    expected = ((latents - codes).norm(dim=1) / latents.norm(dim=1)).mean()
    assert distances[0] == pytest.approx(float(expected), rel=1e-5) == pytest.approx(float(token_distance(sentence)))
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")

    def unlike(answer):
        return [text for text in answer.get("warnings", []) if "unlike those that the model knows" in text]

    assert not any(unlike(one) for found in recognise(recordings) for one in found)
    limit = sorted(distances)[2]
    model.config.action_config.familiar_distance = limit
    try:
        far = [distance > limit for distance in distances]
        assert sum(far) == 3
        for settings in ({}, {"batch_size": 4}, {"versions": 2, "batch_size": 2}, {"explain": True}):
            found = recognise(recordings, **settings)
            assert [bool(unlike(one[0])) for one in found] == far, settings
            assert not any("warnings" in other for one in found for other in one[1:])
        (warning,) = {text for one in found for text in unlike(one[0]) if f"is {max(distances):.3g}, and" in text}
        assert warning.endswith(f"and 99% of the recordings evaluated after training have at most {limit:.3g}")
        recognise.save_pretrained(tmp_path)
    finally:
        model.config.action_config.familiar_distance = None
    again = pipeline("action-recognition", model=str(tmp_path), trust_remote_code=True, device="cpu")
    assert [bool(unlike(again(one)[0])) for one in recordings] == far


def test_settings_that_cannot_be_are_named(recognise):
    with pytest.raises(TypeError, match="no setting 'top'; it has top_k"):
        recognise(recording(9), top=1)
    with pytest.raises(ValueError, match="top_k must be an integer of at least 1"):
        recognise(recording(9), top_k=0)
    with pytest.raises(ValueError, match="'raise' or 'return'"):
        recognise(recording(9), on_error="ignore")
    with pytest.raises(ValueError, match="the class list is empty"):
        recognise(recording(9), candidate_labels=[])


def test_latents_have_no_tokens_to_show(parts):
    processor = tiny_processor()
    model = ActionLLMForClassification.from_llm(
        tiny_llm(), action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(quantize=False), class_names=CLASS_NAMES, injection_layer=1,
    )  # fmt: skip
    read = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    assert read(recording(20))[0]["label"] in CLASS_NAMES
    with pytest.raises(ValueError, match="continuous latents"):
        read(recording(20), return_tokens=True)


def test_the_rate_of_the_call_of_the_file_and_of_the_model(parts, recognise, see, tmp_path):
    """In this order; where only the model knows one, the answer says so."""
    _, processor = parts
    body = person(40)
    np.save(tmp_path / "x.npy", body)
    np.savez(tmp_path / "x.npz", keypoints=body, fps=30)
    processor.feature_extractor.recorded_fps = 15.0
    try:
        assumed, called, of_file = (
            recognise(str(tmp_path / name), return_tokens=True, **settings)[0]
            for name, settings in (("x.npy", {}), ("x.npy", {"fps": 30}), ("x.npz", {}))
        )
        as_array = recognise(body, return_tokens=True)[0]
    finally:
        processor.feature_extractor.recorded_fps = None
    assert len(assumed["tokens"]) == len(as_array["tokens"]) == 2 * len(called["tokens"]) == 2 * len(of_file["tokens"])
    for answer in (assumed, as_array):
        (warning,) = answer["warnings"]
        assert warning.startswith("the frame rate is unknown and taken to be 15 frames per second: set fps")
    assert "warnings" not in called and "warnings" not in of_file
    frames = np.random.default_rng(0).integers(0, 255, (24, 40, 40, 3), np.uint8)
    slow, fast = (see(frames, fps=fps, return_tokens=True)[0]["tokens"][-1]["end"] for fps in (6, 12))
    assert slow == pytest.approx(2 * fast, rel=1e-3)
    for wrong in (0, -3, "30", float("inf")):
        with pytest.raises(ValueError, match="fps must be a positive number of frames per second"):
            recognise(body, fps=wrong)


def test_joints_that_cannot_be_right_are_doubted_in_the_answer(recognise, tmp_path):
    np.save(tmp_path / "x.npy", person(40)[:, ::-1])
    (warning,) = recognise(str(tmp_path / "x.npy"), fps=30)[0]["warnings"]
    assert "do not fit the layout kinect25" in warning
    padded = np.concatenate([person(40), np.zeros((260, 25, 3))])
    (answer, same) = recognise([padded, person(40)], fps=30)
    assert answer[0]["score"] == same[0]["score"] and "260 at the end" in answer[0]["warnings"][0]


def test_a_recording_of_another_layout_is_read_and_doubted(tmp_path):
    """Key points of a detector, by a recogniser of Kinect joints."""
    processor = tiny_processor()
    processor.feature_extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1)
    parents = LAYOUTS["kinect20"].parents
    model = ActionLLMForClassification.from_llm(
        tiny_llm(),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(layout="kinect20", num_joints=20, joint_parents=list(parents)),
        class_names=CLASS_NAMES,
    )
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    body = 200 * person(40, "coco17", activity=0.05) + [320, 240, 0]
    pixels = {"keypoints": body.ravel(), "shape": [40, 1, 17, 3], "layout": "coco17", "fps": 30.0}
    answer, complete = recognise([pixels, person(40, "kinect20")], fps=30, top_k=None, explain=True)
    assert sum(one["score"] for one in answer) == pytest.approx(1) and answer[0]["reason"]
    assert answer[0]["warnings"][0].startswith("recorded with coco17, read as kinect20: hands and feet are missing; ")
    assert not any("read as" in warning for warning in complete[0].get("warnings", []))
    recognise.save_pretrained(tmp_path / "saved")
    again = pipeline("action-recognition", model=str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    assert again(pixels)[0]["warnings"] == answer[0]["warnings"]
    (refused,) = recognise(pixels | {"layout": "stick figure"}, on_error="return")
    assert "the layout stick figure" in refused["error"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"candidate_labels": ["falling", "a\nb"]},
            r"candidate_labels: class name 'a\\nb' contains the control character",
        ),
        (
            {"candidate_labels": ["falling", "</s>"]},
            "candidate_labels: class name '</s>' contains </s>, which tokenizers may read",
        ),
        ({"candidate_labels": ["falling", ""]}, "candidate_labels: class 1 has no name"),
        ({"candidate_labels": []}, "candidate_labels: the class list is empty"),
        ({"explain": True, "unsure_below": "0.5"}, "unsure_below must be a probability from 0 to 1, got '0.5'"),
        ({"explain": "no"}, "explain must be True or False, got 'no'"),
    ],
)
def test_names_and_flags_that_cannot_be_are_refused(recognise, settings, message):
    with pytest.raises(ValueError, match=message):
        recognise(recording(9), **settings)
