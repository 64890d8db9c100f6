"""The page to try a recogniser: in a real browser, by its interface, and as a Space."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fresh_python import python
from hub_server import HubServer
from skeleton_people import hand_wave
from tiny_models import CLASS_NAMES, tiny_processor, tiny_recogniser, tiny_writer
from tiny_poses import BrightCorner
from tiny_videos import tiny_video

from action_llm.token_lexicon import TokenEntry, token_color
from action_llm.video_files import open_video
from action_llm_recipes.hub import demo

gradio = pytest.importorskip("gradio", reason="the extra `demo` is not installed")


def saved(reads: str, folder: Path) -> Path:
    model, processor = tiny_recogniser(reads)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reads_skeletons(tmp_path_factory):
    """Folder of a recogniser of skeletons with a lexicon."""
    folder = saved("skeletons", tmp_path_factory.mktemp("skeletons"))
    entries = [
        TokenEntry(code, code, 0.5, [(CLASS_NAMES[0], 2.5)], description=f"looks like {code}") for code in range(16)
    ]
    (folder / "lexicon.json").write_text(json.dumps([entry.to_dict() for entry in entries]))
    return folder


@pytest.fixture(scope="module")
def reads_videos(tmp_path_factory):
    return saved("videos", tmp_path_factory.mktemp("videos"))


@pytest.fixture
def walk(tmp_path):
    generator = np.random.default_rng(0)
    frames = generator.normal(size=(45, 25, 3)).cumsum(0) * 0.05 + generator.normal(size=(25, 3))
    np.save(tmp_path / "walk.npy", frames.astype(np.float32))
    return tmp_path / "walk.npy"


def data_of(shown: str) -> dict:
    import html

    page = html.unescape(re.search(r'srcdoc="(.*?)"', shown, re.S)[1])
    return json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S)[1])


def test_the_player_holds_the_recording_the_sentence_and_the_lexicon(reads_skeletons, walk):
    page = demo.build(str(reads_skeletons))
    (answer,) = (call.fn for call in page.fns.values() if call.api_name == "recognise")
    shown, scores, reason = answer(str(walk), "")
    data = data_of(shown)
    assert data["seconds"] == 1.5 and len(data["frames"]) == 45 and len(data["bones"]) == 24
    joints = np.load(walk)
    np.testing.assert_allclose(data["frames"][7][0], joints[7], atol=1e-3)
    assert (
        data["tokens"][-1]["end"] == pytest.approx(1.6, abs=0.11)
        and data["lexicon"][str(data["tokens"][0]["id"])]["description"]
    )
    assert data["colors"] == {str(token["id"]): token_color(token["id"]) for token in data["tokens"]}
    assert sum(scores.values()) == pytest.approx(1) and "**Why.** " in reason
    assert set(answer(str(walk), "falling\n waving \n")[1]) == {"falling", "waving"}
    with pytest.raises(gradio.Error, match="Upload a recording, or choose an example"):
        answer(None, "")


def test_who_worded_the_reason_is_told(reads_skeletons, tmp_path, monkeypatch):
    np.save(tmp_path / "wave.npy", hand_wave())
    writer = tiny_writer(
        "The person raises the right hand.", "The person raises the left hand. A <b>dog</b> barks.", ""
    )
    monkeypatch.setattr("action_llm.written_reasons.load_writer", lambda name, *recogniser: {"me/chat": writer}[name])
    page = demo.build(str(reads_skeletons), writer="me/chat")
    calls = [call for call in page.fns.values() if call.fn is not None]
    assert {call.concurrency_id for call in calls} == {"recognise"}, "the writer turns the adapter off for a while"
    (answer,) = (call.fn for call in calls if call.api_name == "recognise")
    reasons = [answer(str(tmp_path / "wave.npy"), "")[2] for _ in range(3)]
    assert "The person raises the right hand." in reasons[0]
    assert reasons[0].endswith("\n\n*Worded by a language model (statements measured: 1 of 1).*")
    assert "Strongest evidence" in reasons[1] and "dog" not in reasons[1]
    assert reasons[1].endswith("(statements measured: 0, contradicted: 1, not measured: 1).*")
    assert reasons[2].endswith("\n\n*Worded by rules.*")


def test_what_is_unlike_the_training_is_said_first(reads_skeletons, walk, tmp_path):
    shutil.copytree(reads_skeletons, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["action_config"]["familiar_distance"] = 1e-6
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    page = demo.build(str(tmp_path / "model"))
    (answer,) = (call.fn for call in page.fns.values() if call.api_name == "recognise")
    reason = answer(str(walk), "")[2]
    assert (
        reason.startswith("**Warning:** ") and "this recording is unlike those" in reason and "\n\n**Why.** " in reason
    )


def test_what_cannot_be_read_is_told_without_a_path(reads_skeletons, tmp_path):
    page = demo.build(str(reads_skeletons))
    (answer,) = (call.fn for call in page.fns.values() if call.api_name == "recognise")
    (tmp_path / "broken.skeleton").write_text("two\n")
    with pytest.raises(gradio.Error, match=r"broken\.skeleton") as error:
        answer(str(tmp_path / "broken.skeleton"), "")
    assert str(tmp_path) not in str(error.value)


def test_what_a_visitor_sends_is_bounded_and_shown_as_text(reads_skeletons, walk, tmp_path, monkeypatch):
    page = demo.build(str(reads_skeletons))
    (answer,) = (call.fn for call in page.fns.values() if call.api_name == "recognise")
    for others in ("\n".join(f"class {number}" for number in range(201)), "x" * 10_001):
        with pytest.raises(gradio.Error, match="Enter at most 200 classes with 10,000 characters in all"):
            answer(str(walk), others)
    (tmp_path / "<img src=x onerror=alert(1)>.skeleton").write_text("two\n")
    with pytest.raises(gradio.Error, match="&lt;img src=x onerror=alert\\(1\\)&gt;"):
        answer(str(tmp_path / "<img src=x onerror=alert(1)>.skeleton"), "")
    monkeypatch.setattr(demo, "player", lambda *arguments: 1 / 0)
    with pytest.raises(gradio.Error, match="This recording cannot be recognised; see the log of the server"):
        answer(str(walk), "")


def test_a_visitor_reads_no_other_files_and_sends_no_huge_ones(reads_skeletons, walk, tmp_path, monkeypatch):
    httpx = pytest.importorskip("httpx")
    monkeypatch.setattr(demo, "MAX_FILE", "20kb")
    np.save(tmp_path / "secret.npy", np.load(walk))
    page = demo.build(str(reads_skeletons))
    _, url, _ = demo.serve(page, prevent_thread_lock=True, quiet=True, server_port=None)
    try:
        for path in (str(tmp_path / "secret.npy"), "/etc/passwd", "../../etc/passwd"):
            data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, ""]
            event = httpx.post(f"{url}gradio_api/call/recognise", json={"data": data}).json()["event_id"]
            answer = httpx.get(f"{url}gradio_api/call/recognise/{event}", timeout=60).text
            assert "event: error" in answer and "drink water" not in answer
            assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)
        sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("clip.npy", bytes(100_000))})
        assert sent.status_code == 413
        sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("walk.npy", walk.read_bytes())})
        data = [{"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}, ""]
        event = httpx.post(f"{url}gradio_api/call/recognise", json={"data": data}).json()["event_id"]
        answer = httpx.get(f"{url}gradio_api/call/recognise/{event}", timeout=60).text
        assert "event: complete" in answer and "drink water" in answer
    finally:
        page.close()


def test_the_record_beside_a_model_is_text(reads_skeletons, tmp_path):
    assert demo.describe_training(str(reads_skeletons)) == ""
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"sentences": {"dataset": "my `<b>\ndata"}}))
    assert demo.describe_training(str(tmp_path)) == "It was trained on ``my `<b> data``."
    for content in ([], {"sentences": []}, {"sentences": {"dataset": 3}}, {"sentences": "x"}):
        record.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"record\.json"):
            demo.describe_training(str(tmp_path))


def test_frames_of_videos_of_any_format_are_pictures(tmp_path):
    for container, name in (("mp4", "clip.mp4"), ("avi", "clip.avi"), ("webm", "clip.webm")):
        (tmp_path / name).write_bytes(tiny_video(30, container=container))
        data = demo.pictures(str(tmp_path / name))
        assert data["seconds"] == pytest.approx(1, abs=0.05) and len(data["pictures"]) == 10
        assert all(source.startswith("data:image/jpeg;base64,") for source in data["pictures"])


def test_a_video_is_read_by_its_poses_which_are_drawn_over_it(reads_skeletons, tmp_path, monkeypatch):
    monkeypatch.setattr("action_llm.pose_estimators.load_pose_estimator", BrightCorner)
    BrightCorner.calls = 0
    (tmp_path / "clip.mp4").write_bytes(tiny_video(30))
    recognise, estimator = demo.load_pipeline(str(reads_skeletons)), demo.pose_estimator()
    shown, scores, reason = demo.answer(recognise, estimator, None, str(tmp_path / "clip.mp4"), "")
    assert BrightCorner.calls == 1 and sum(scores.values()) == pytest.approx(1) and "**Why.**" in reason
    data = data_of(shown)
    assert len(data["poses"]) == len(data["pictures"]) == 10 and data["spans"] == []
    recording = estimator(tmp_path / "clip.mp4")
    with open_video(tmp_path / "clip.mp4") as video:
        size = video.picture_size()[::-1]
    for place, people in enumerate(data["poses"]):
        ((number, joints),) = people
        expected = recording.color_pixels[round(3 * place + 1.5 - 0.5), 0, 11] / size
        assert number == 1 and joints[11] == pytest.approx(expected, abs=0.01)
    monkeypatch.setattr(demo, "LONG", 0.5)
    monkeypatch.setattr(demo, "WINDOW", 0.6)
    monkeypatch.setattr(demo, "STRIDE", 0.3)
    actions = data_of(demo.answer(recognise, estimator, None, str(tmp_path / "clip.mp4"), "a\nb")[0])["spans"]
    assert actions[0]["start"] == 0 and actions[-1]["end"] == pytest.approx(1, abs=0.05)
    assert {action["label"] for action in actions} <= {"a", "b"}


def test_a_browser_shows_moves_and_explains(reads_skeletons, reads_videos, walk, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    (tmp_path / "clip.mp4").write_bytes(tiny_video(30))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for model, recording in ((reads_skeletons, walk), (reads_videos, tmp_path / "clip.mp4")):
            page = demo.build(str(model), [str(recording)])
            _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_port=None)
            tab, wrong = browser.new_page(), []
            tab.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            tab.goto(url)
            tab.get_by_role("button", name=recording.name).click()
            tab.wait_for_selector("#player iframe", timeout=60_000)
            frame = next(frame for frame in tab.frames if frame is not tab.main_frame)
            frame.wait_for_selector("#sentence button")
            first = frame.evaluate("document.getElementById('stage').toDataURL()")
            frame.evaluate("now = 0.7; running = false")
            tab.wait_for_timeout(300)
            later = frame.evaluate("document.getElementById('stage').toDataURL()")
            assert first != later and len(later) > 1000, "nothing moves"
            frame.click("#sentence button:first-child")
            entry = frame.inner_text("#entry")
            assert "<act_" in entry and ("looks like" in entry if model is reads_skeletons else "no lexicon" in entry)
            assert "with a probability of" in tab.inner_text("#reason") or "Not sure" in tab.inner_text("#reason")
            assert any(name in tab.inner_text("#scores") for name in CLASS_NAMES)
            assert not wrong
            tab.close()
            page.close()
        browser.close()


@pytest.mark.slow
def test_a_space_answers_with_its_own_files_alone(reads_skeletons, walk, tmp_path):
    simulated = tmp_path / "simulated"
    simulated.mkdir()
    shutil.copy(walk, simulated / "walk.npy")
    (simulated / "simulation.json").write_text("{}")
    with HubServer() as hub:
        hub.add("tester/model", reads_skeletons)
        environment = hub.environment(tmp_path / "home")
        done = python(
            demo.__file__, "--model", "tester/model", "--examples", simulated / "walk.npy", "--push_to_space", "tester/space",
            env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        repository = hub.repositories["space", "tester/space"]
        assert repository.private and len(repository.commits) == 2
        files = hub.files("tester/space", "space")
        assert {"app.py", "demo.py", "requirements.txt", "action_llm/__init__.py", "examples/walk.npy"} <= files.keys()
        assert b"sdk: gradio" in files["README.md"] and b"transformers" in files["requirements.txt"]
        space = tmp_path / "space"
        for path, content in files.items():
            (space / path).parent.mkdir(parents=True, exist_ok=True)
            (space / path).write_bytes(content)
        script = """
import sys
sys.path.insert(0, ".")
import demo, gradio
def launch(page, max_file_size):
    (answer,) = (call.fn for call in page.fns.values() if call.api_name == "recognise")
    print(sorted(answer("examples/walk.npy", "")[1])[0], sys.modules["action_llm"].__file__)
gradio.Blocks.launch = launch
exec(open("app.py").read())
"""
        ran = python("-c", script, cwd=space, env=environment)
        assert ran.returncode == 0, ran.stderr[-2000:]
        assert "drink water" in ran.stdout and str(space) in ran.stdout, ran.stdout


def test_recordings_of_people_and_models_of_this_machine_make_no_space(reads_skeletons, walk):
    with pytest.raises(ValueError, match=r"walk\.npy is not known to be simulated"):
        demo.space_files("me/model", [str(walk)])
    with pytest.raises(ValueError, match="needs a model that is on the Hub"):
        demo.space_files(str(reads_skeletons), [])
    with pytest.raises(ValueError, match="--writer smollm2: a Space needs the repository of a language model, or own"):
        demo.space_files("me/model", [], "smollm2")
    assert demo.space_files("me/model", [], "own")["app.py"].endswith(b"serve(build('me/model', [], 'own'))\n")
    with pytest.raises(FileNotFoundError, match="no file nowhere"):
        demo.main(demo.DemoArguments(str(reads_skeletons), examples=["nowhere"]))


def test_the_player_cannot_be_broken_by_a_name(reads_skeletons, walk):
    tokens = [{"token": "<act_1>", "id": 1, "start": 0.0, "end": 1.0}]
    bad = [TokenEntry(code, 1, 1.0, [("</script><script>alert(1)</script>", 2.0)]) for code in range(2)]
    extractor = tiny_processor().feature_extractor
    shown = demo.player(demo.bodies(str(walk), extractor), tokens, bad)
    assert data_of(shown)["lexicon"]["1"]["classes"][0][0].startswith("</script>")
    assert shown.count("&lt;script") == 2, "of the data, none"
    assert Path(demo.PLAYER).read_text().count("<script") == 2
