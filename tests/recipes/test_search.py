"""Search: scores and order beside brute force, the reading of text, the index on disk, and the command."""

import dataclasses
import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel
from tiny_models import tiny_action_model, tiny_llm, tiny_processor
from tiny_poses import BrightCorner
from tiny_videos import tiny_video

from action_llm import ActionLLMForClassification
from action_llm.pipeline_action_recognition import ActionRecognitionPipeline
from action_llm.pose_estimators import POSE_ESTIMATORS
from action_llm_datasets.rendering import write_video
from action_llm_recipes import evaluate_search, search_recordings
from action_llm_recipes.benchmarks import benchmark_search
from action_llm_recipes.common.action_sentences import sentence_features
from action_llm_recipes.common.shards import SplitShards, write_shard
from action_llm_recipes.search import recording_index
from action_llm_recipes.search.queries import Part, by_likelihood, by_words, find, read_text, stem
from action_llm_recipes.search.recording_index import (
    Reader,
    Recording,
    RecordingIndex,
    SearchIndexError,
    Window,
    read_index,
    update_index,
)

STORED = Path(__file__).parent / "stored"
NAMES = [
    "wave",
    "sit down",
    "stand up",
    "draw circle (clockwise)",
    "draw circle (counter clockwise)",
    "pickup and throw",
]


def index_of(probabilities, recording=None, starts=None, seconds=1.0) -> RecordingIndex:
    """An index of windows that touch each other, with one token each."""
    number = len(probabilities)
    recording = np.zeros(number, np.int32) if recording is None else np.asarray(recording, np.int32)
    if starts is None:
        starts = [seconds * sum(recording[:place] == recording[place]) for place in range(number)]
    starts = np.asarray(starts, float)
    return RecordingIndex(
        {"class_names": NAMES[: probabilities.shape[1]], "codes_per_word": 1, "seconds": seconds},
        [f"r{place}" for place in range(int(recording.max()) + 1)],
        recording,
        starts,
        starts + seconds,
        np.sqrt(probabilities).astype(np.float32),
        np.arange(number, dtype=np.int32),
        np.arange(number + 1),
    )


def named(*weights) -> list[Part]:
    return [Part("", np.asarray(row, float), "name") for row in weights]


def test_scores_are_probabilities_of_a_class_and_fidelities_of_distributions():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(6) / 3, 40)
    index = index_of(probabilities)
    np.testing.assert_allclose(index.scores(np.eye(6)[2]), probabilities[:, 2], atol=1e-6)
    # The fidelity of two density matrices that are diagonal: (tr √(√ρ σ √ρ))².
    query = probabilities[7]
    roots = [
        np.trace(np.sqrt(np.diag(np.sqrt(query)) @ np.diag(row) @ np.diag(np.sqrt(query)))) for row in probabilities
    ]
    np.testing.assert_allclose(index.scores(query), np.square(roots), atol=1e-6)
    hits = find(index, named(query), 5)
    assert hits[0].windows == [7] and hits[0].score == pytest.approx(1)
    assert [hit.windows[0] for hit in hits] == np.argsort(-np.square(roots))[:5].tolist()


def test_windows_in_order_are_the_best_of_all_chains():
    rng = np.random.default_rng(1)
    for _ in range(20):
        probabilities = rng.dirichlet(np.ones(3), 12)
        index = index_of(probabilities, recording=[0] * 5 + [1] * 7, seconds=1.5)
        parts, within = named([1, 0, 0], [0, 0.5, 0.5], [0, 1, 0]), float(rng.choice([0.0, 1.5, 3.0]))
        scores = [index.scores(part.weights) for part in parts]
        chains = {}
        for chain in itertools.combinations(range(12), 3):
            near = all(
                index.recording[later] == index.recording[earlier]
                and index.starts[later] - index.ends[earlier] <= within
                for earlier, later in itertools.pairwise(chain)
            )
            if near:
                chains[chain] = float(np.prod([score[window] for score, window in zip(scores, chain, strict=True)]))
        hits = find(index, parts, 100, within)
        best = max(chains, key=chains.get)
        assert tuple(hits[0].windows) == best and hits[0].score == pytest.approx(chains[best], rel=1e-5)
        for hit in hits:
            assert hit.score == pytest.approx(chains[tuple(hit.windows)], rel=1e-5)
        for first, second in itertools.combinations(hits, 2):
            if index.recording[first.windows[0]] == index.recording[second.windows[0]]:
                assert first.windows[-1] < second.windows[0] or second.windows[-1] < first.windows[0]


def test_parts_do_not_follow_each_other_across_recordings_or_long_pauses():
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert find(index_of(probabilities), named([1, 0], [0, 1]), 5)[0].windows == [0, 1]
    assert find(index_of(probabilities, recording=[0, 1]), named([1, 0], [0, 1]), 5) == []
    assert find(index_of(probabilities, starts=[0, 30]), named([1, 0], [0, 1]), 5) == []
    assert find(index_of(probabilities, starts=[0, 30]), named([1, 0], [0, 1]), 5, within=60)[0].windows == [0, 1]


def test_actions_in_order_need_windows():
    index = index_of(np.eye(2))
    index.settings["seconds"] = None
    with pytest.raises(SearchIndexError, match=r"expected an index of sliding windows.*--seconds 4"):
        find(index, read_text("wave and then sit down", NAMES[:2], no_model), 5)
    assert len(find(index, named([1, 0]), 5)) == 2


def no_model(text):
    raise AssertionError(f"{text!r} was given to the language model")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wave", [["wave"]]),
        ("someone waves", [["wave"]]),
        ("a person is sitting down and then waving", [["sit down"], ["wave"]]),
        ("standing up, then waving, then sitting down", [["stand up"], ["wave"], ["sit down"]]),
        ("waving followed by standing up", [["wave"], ["stand up"]]),
        ("pickup and throw", [["pickup and throw"]]),
        ("drawing a clockwise circle", [["draw circle (clockwise)"]]),
        ("a circle", [["draw circle (clockwise)"]]),
        ("sits down after waving", [["wave"], ["sit down"]]),
        ("waves before sitting down.", [["wave"], ["sit down"]]),
        ("After waving, someone sits down", [["wave"], ["sit down"]]),
        ("before sitting down, someone waves", [["wave"], ["sit down"]]),
        ("waves; after that, sits down, and afterwards stands up", [["wave"], ["sit down"], ["stand up"]]),
        ("sits down. Before that waves", [["wave"], ["sit down"]]),
    ],
)
def test_text_is_read_by_the_words_of_class_names(text, expected):
    parts = read_text(text, NAMES, no_model)
    assert [[name for name, weight in zip(NAMES, part.weights, strict=True) if weight] for part in parts] == expected
    assert all(part.weights.sum() == pytest.approx(1) and not part.left_out for part in parts)


def test_class_words_that_a_part_leaves_out_are_named():
    for text in ("sits down and waves", "sits down, waves at a horse"):
        (part,) = read_text(text, NAMES, no_model)
        assert part.weights.argmax() == 1 and part.left_out == ["waves"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a text that names an action"),
        ("wave then", "expected a text that names an action"),
        ("then", "expected a text that names an action"),
        ("after waving sits down", "expected a text that names an action"),
        ("does not wave", "expected actions that are done, found 'not'"),
        ("sits down and doesn't wave", 'expected actions that are done, found "n\'t"'),
        ("waves after sitting down then standing up", "the order of 3 actions is ambiguous"),
    ],
)
def test_text_without_a_clear_meaning_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        read_text(text, NAMES, no_model)


def test_negation_in_a_class_name_is_read():
    (part,) = read_text("No action", ["no action", "wave"], no_model)
    assert part.by == "name" and part.weights.tolist() == [1, 0]


@pytest.mark.parametrize(
    "forms",
    [
        "wave waves waved waving",
        "sit sits sitting",
        "catch catches catching",
        "carry carries carried carrying",
        "use uses used using",
        "tie ties tied tying",
        "try tries tried trying",
        "nod nods nodded nodding",
        "pass passes passed passing",
        "see sees seeing",
        "go goes going",
        "need needs needed needing",
        "play plays played playing",
        "swing swings swinging",
        "shoe shoes",
        "glass glasses",
    ],
)
def test_forms_of_a_word_have_the_same_stem(forms):
    assert len({stem(form) for form in forms.split()}) == 1


def test_other_words_have_other_stems():
    words = [
        "wave",
        "sit",
        "carry",
        "use",
        "tie",
        "try",
        "nod",
        "pass",
        "see",
        "go",
        "need",
        "swing",
        "sing",
        "ring",
        "red",
        "bed",
    ]
    assert len({stem(word) for word in words}) == len(words)
    assert by_words("a horse", NAMES) is None


def test_other_text_is_read_by_the_language_model():
    """Beside one forward pass per sentence."""
    reader = Reader(str(STORED / "llm_ar"))
    names = reader.processor.class_names
    rng = np.random.default_rng(2)
    index = index_of(rng.dirichlet(np.ones(len(names)), 9))
    index.settings = reader.settings
    width = reader.processor.codes_per_word
    size = reader.processor.num_action_tokens // width
    index.tokens = (rng.integers(0, size, (9, 4, width)) + size * np.arange(width)).astype(np.int32).ravel()
    index.offsets = np.arange(10) * 4 * width
    weights = by_likelihood("a horse", index, reader.model, reader.processor)
    expected = []
    (text,) = reader.processor.label_ids(["a horse"])
    for place in range(len(names)):
        likelihood = 0
        for window in np.argsort(-index.roots[:, place])[:3]:
            prompt = reader.processor(action_ids=[index.words(window)], class_names=["a horse"])["input_ids"][0]
            ids = torch.cat([prompt, torch.tensor(text)])
            with torch.no_grad():
                logits = reader.model.as_generator()(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1]
            likelihood += float(logits.log_softmax(-1)[torch.arange(len(text)), torch.tensor(text)].sum().exp())
        expected.append(likelihood)
    np.testing.assert_allclose(weights, np.array(expected) / sum(expected), rtol=1e-3)
    # The most typical window of a class may have no sentence; it stands for no class.
    first = int(index.roots[:, 0].argmax())
    probabilities = np.delete(index.roots, first, axis=0) ** 2
    others = index_of(probabilities)
    others.settings = index.settings
    others.tokens = np.concatenate(
        [index.tokens[index.offsets[w] : index.offsets[w + 1]] for w in range(9) if w != first]
    )
    others.offsets = index.offsets[:9]
    expected = by_likelihood("a horse", others, reader.model, reader.processor)
    lengths = np.where(np.arange(9) == first, 0, np.diff(index.offsets))
    index.tokens, index.offsets = others.tokens, np.concatenate([[0], np.cumsum(lengths)])
    np.testing.assert_allclose(by_likelihood("a horse", index, reader.model, reader.processor), expected)
    index.offsets = np.zeros(10, np.int64)
    with pytest.raises(SearchIndexError, match="use words of the classes cheer up, hand waving"):
        by_likelihood("a horse", index, reader.model, reader.processor)


SETTINGS = {"model": "m", "class_names": ["x", "y"], "codes_per_word": 1}


class Reads:
    """Stands for a `Reader`: two windows per file, and an error for those with "bad" in their name."""

    def __init__(self):
        self.files = []

    def __call__(self, files):
        for file in files:
            self.files.append(Path(file).name)
            if "stop" in file:
                raise KeyboardInterrupt
            if "bad" in file:
                yield Recording(file, [], reason=f"{file} is bad")
                continue
            yield Recording(file, [], [Window(float(t), t + 1.0, np.array([0.25, 0.75]), [t, 3]) for t in (0, 1)])


def test_an_index_is_brought_up_to_date_and_a_stopped_run_continues(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a", "bad", "c")]
    for file in files:
        file.write_text("1")
    settings = SETTINGS | {"training": 1}
    path, reader = tmp_path / "index.safetensors", Reads()
    update_index(path, settings, files, reader)
    index = read_index(path)
    assert [Path(index.files[place]).name for place in index.recording] == ["a", "a", "c", "c"]
    np.testing.assert_allclose(index.scores(np.array([0, 1.0])), 0.75)
    assert index.starts.tolist() == [0, 1, 0, 1] and index.words(1) == [1, 3] and index.sentence(1) == "<act_1><act_3>"
    # What was read is kept, what could not be read is tried again, what changed is read again, and what is gone is left out.
    files[2].write_text("22")
    before, reader = path.read_bytes(), Reads()
    update_index(path, settings | {"model": "moved"}, files[1:], reader)
    assert reader.files == ["bad", "c"] and read_index(path).files == [str(file) for file in files[1:]]
    path.write_bytes(before)
    monkeypatch.setattr(recording_index, "SECONDS_BETWEEN_WRITES", -1)
    stop = tmp_path / "stop"
    stop.write_text("1")
    with pytest.raises(KeyboardInterrupt):
        update_index(path, settings, [*files, stop], Reads())
    reader = Reads()
    update_index(path, settings, files, reader)
    assert reader.files == ["bad"]
    with pytest.raises(SearchIndexError, match="another training: expected 2, found 1; choose another --output"):
        update_index(path, settings | {"training": 2}, files, reader)
    with pytest.raises(SearchIndexError, match="another pose: expected 'vitpose', found None"):
        update_index(path, settings | {"pose": "vitpose"}, files, reader)


def test_damaged_and_foreign_indexes_are_errors(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "index.safetensors"
    with pytest.raises(SearchIndexError, match="expected an index, found no file"):
        read_index(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(SearchIndexError, match="found another safetensors file"):
        read_index(path)
    file = tmp_path / "a"
    file.write_text("1")
    path.unlink()
    update_index(path, SETTINGS, [file], Reads())
    content = path.read_bytes()
    first = 8 + int.from_bytes(content[:8], "little")
    flipped = [
        content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :] for place in range(first, len(content))
    ]
    for damaged in (content[:-20], *flipped):
        path.write_bytes(damaged)
        with pytest.raises(SearchIndexError, match="is damaged"):
            read_index(path)
    with pytest.raises(SearchIndexError, match="is damaged"):
        update_index(path, SETTINGS, [file], Reads())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("recording", [0, 2], "recording: expected numbers in order, from 0 to 0"),
        ("recording", [0, -1], "recording: expected numbers in order"),
        ("recording", [[0, 0], [0, 0]], r"recording: expected int32 \(2,\), found int32 \(2, 2\)"),
        ("starts", [np.nan, 1], "starts, ends: expected seconds"),
        ("ends", [np.inf, 2], "starts, ends: expected seconds"),
        ("ends", [1, 0.5], "starts, ends: expected seconds"),
        ("roots", [[np.nan, 1], [0, 1]], "roots: expected square roots of probabilities"),
        ("roots", [[3, 3], [0, 1]], "roots: expected square roots of probabilities"),
        ("roots", [[1, 0]], r"roots: expected float32 \(2, 2\), found float32 \(1, 2\)"),
        ("tokens", [0, 3, -1, 3], "tokens, offsets: expected offsets in order, from 0 to 4"),
        ("offsets", [0, 5, 4], "tokens, offsets: expected offsets in order"),
        ("offsets", [0, 2, 3], "tokens, offsets: expected offsets in order"),
    ],
)
def test_impossible_values_of_an_index_are_errors(name, values, message, tmp_path, monkeypatch):
    """Also if they were there when the checksum was computed."""
    file, path = tmp_path / "a", tmp_path / "index.safetensors"
    file.write_text("1")
    checksum = recording_index._checksum

    def changed(content, arrays):
        arrays[name] = np.asarray(values, arrays[name].dtype)
        return checksum(content, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(recording_index, "_checksum", changed)
        update_index(path, SETTINGS, [file], Reads())
    with pytest.raises(SearchIndexError, match=message):
        read_index(path)


def test_a_folder_of_openpose_is_one_recording(tmp_path):
    walk = tmp_path / "walk"
    walk.mkdir()
    for number in range(3):
        (walk / f"walk_{number:012d}_keypoints.json").write_text('{"people": []}')
    for name in ("b.npy", "walk.mp4", "metadata.csv", ".hidden.npy", "walk/walk.avi"):
        (tmp_path / name).write_bytes(b"")
    names = ["b.npy", "walk", "walk.mp4", "walk/walk.avi"]
    found = search_recordings.recordings_in([str(tmp_path)], reads_skeletons=True)
    assert sorted(found) == sorted(tmp_path / name for name in names)
    assert search_recordings.recordings_in([str(walk), str(walk)], True) == [walk, walk / "walk.avi"]
    assert [path.suffix for path in search_recordings.recordings_in([str(tmp_path)], False)] == [".avi", ".mp4"]
    read = Reads()
    for rereads in (True, False, True):
        read.files.clear()
        update_index(tmp_path / "index.safetensors", SETTINGS, [walk], read)
        assert bool(read.files) == rereads
        if not rereads:
            next(walk.glob("*_keypoints.json")).write_text('{"people":  []}')


def command(monkeypatch, capsys, *words) -> str:
    monkeypatch.setattr(sys, "argv", ["action-llm-search", *map(str, words)])
    search_recordings.main()
    return capsys.readouterr().out


def test_the_command_finds_what_the_recogniser_recognises(tmp_path, monkeypatch, capsys):
    folder, model, index = tmp_path / "recordings", tmp_path / "model", tmp_path / "index.safetensors"
    shutil.copytree(STORED / "llm_ar", model)
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        joints = np.cumsum(rng.normal(0, 0.02, (24, 25, 3)), axis=0) + rng.normal(0, 0.4, (25, 3)) + [0, 0, 3]
        np.save(folder / f"clip{number}.npy", joints.astype(np.float32))
    (folder / "broken.npy").write_bytes(b"junk")
    output = command(monkeypatch, capsys, "index", folder, "--model", model, "--output", index)
    assert "4 recordings, 4 windows; skipped: 1" in output and "broken.npy" in output
    reader = Reader(str(model))
    recognise = ActionRecognitionPipeline(model=reader.model, processor=reader.processor)
    expected = {}
    for number in range(4):
        answer = recognise(str(folder / f"clip{number}.npy"), top_k=None)
        expected[f"clip{number}.npy"] = {entry["label"]: entry["score"] for entry in answer}
    found = json.loads(command(monkeypatch, capsys, "find", index, "someone jumps", "--json"))
    assert found["query"] == [{"text": "someone jumps", "by": "words", "classes": {"jump up": 1.0}, "left_out": []}]
    names = [Path(result["file"]).name for result in found["results"]]
    assert names == sorted(expected, key=lambda name: -expected[name]["jump up"])
    for name, result in zip(names, found["results"], strict=True):
        assert result["score"] == pytest.approx(expected[name]["jump up"], abs=1e-4)
        assert result["start"] == 0 and result["end"] == 24 / 30
        assert result["parts"][0]["sentence"].startswith("<act_")
    shutil.move(model, tmp_path / "moved")
    words = ("find", index, "--example", folder / "clip2.npy", "--model", tmp_path / "moved", "--json")
    found = json.loads(command(monkeypatch, capsys, *words))
    assert Path(found["results"][0]["file"]).name == "clip2.npy"
    assert found["results"][0]["score"] == pytest.approx(1, abs=1e-4)
    with pytest.raises(
        ValueError, match=r"is not the recogniser of the index: action_model: expected \S+, found \S+; set --model"
    ):
        command(
            monkeypatch, capsys, "find", index, "--example", folder / "clip2.npy", "--model", STORED / "vt_lvlm_ar"
        )
    with pytest.raises(ValueError, match=r"broken\.npy"):
        command(monkeypatch, capsys, "find", index, "--example", folder / "broken.npy", "--model", tmp_path / "moved")


def test_videos_are_indexed_by_their_poses_with_one_estimator(tmp_path, monkeypatch):
    estimators, mirrored = [], []

    class Watched(BrightCorner):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            estimators.append(self)

        def _recording(self, *arguments):
            mirrored.append(arguments[4])
            return super()._recording(*arguments)

    monkeypatch.setitem(POSE_ESTIMATORS, "mediapipe", Watched)
    files = [str(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    for file in files:
        Path(file).write_bytes(tiny_video(16, fps=10))
    reader = Reader(str(STORED / "llm_ar"), pose="mediapipe", mirrored=True)
    assert (reader.settings["pose"], reader.settings["mirrored"]) == ("mediapipe", True)
    windows = [window for recording in reader(files) for window in recording.windows]
    assert [window[:2] for window in windows] == [(0, 1.6)] * 2 and len(estimators) == 1
    reader.settings |= {"seconds": 1.0, "stride": 0.5}
    assert all(recording.windows for recording in reader(files)) and len(estimators) == 2
    assert len(mirrored) > 2 and all(mirrored)
    assert next(iter(reader([str(tmp_path / "c.npy")]))).reason and len(estimators) == 2


def test_models_of_latents_are_indexed_without_sentences(tmp_path):
    processor = tiny_processor()
    model = ActionLLMForClassification.from_llm(
        tiny_llm(), action_token_offset=processor.action_token_offset, action_model=tiny_action_model(quantize=False),
        class_names=processor.class_names, injection_layer=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(0, 0.4, (20, 25, 3)).astype(np.float32))
    ((window,),) = [recording.windows for recording in Reader(str(tmp_path / "model"))([str(tmp_path / "a.npy")])]
    assert window[:2] == (0, 20 / 30) and window.tokens == [] and window.probabilities.sum() == pytest.approx(1)


def test_recognisers_of_videos_have_no_settings_of_poses():
    with pytest.raises(ValueError, match="estimates no poses"):
        Reader(str(STORED / "vt_lvlm_ar"), mirrored=True)


def test_long_videos_are_indexed_by_the_spans_of_their_timelines(tmp_path, monkeypatch):
    frames = np.full((60, 32, 32, 3), 30, np.uint8)
    for time in range(60):
        frames[time, 4 + time % 20 : 12 + time % 20, 8:16] = 220
    write_video(tmp_path / "long.mp4", [frames], 20)
    reader = Reader(str(STORED / "vt_lvlm_ar"), seconds=1.0, stride=0.5)
    reader.processor.feature_extractor.segment_seconds = 0.25
    timeline = reader.model.timeline(reader.processor, tmp_path / "long.mp4", seconds=1.0, stride=0.5)
    # The tiny recogniser sees a single action, so that the probabilities of the steps are replaced.
    down = np.array([0.9, 0.7, 0.2, 0.1, 0.4, 0.8])
    timeline = dataclasses.replace(timeline, probabilities=np.stack([down, 1 - down], axis=1))
    monkeypatch.setattr(reader.model, "timeline", lambda *_, **__: timeline)
    files = search_recordings.recordings_in([str(tmp_path)], reader.reads_skeletons)
    update_index(tmp_path / "index.safetensors", reader.settings, files, reader)
    index = read_index(tmp_path / "index.safetensors")
    assert [index.label(place) for place in range(len(index))] == ["down", "right", "down"]
    assert index.starts.tolist() == [0, 1, 2.5] and index.ends.tolist() == [1, 2.5, 3]
    np.testing.assert_allclose(index.scores(np.array([1.0, 0])), [0.8, 0.7 / 3, 0.8], atol=1e-6)
    assert sum(len(index.words(place)) for place in range(len(index))) == len(timeline.events)
    (hit,) = find(index, read_text("down, then right", index.class_names, no_model), 5)
    assert hit.windows == [0, 1] and hit.score == pytest.approx(0.8 * (1 - 0.7 / 3), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["find", "i"], "give either TEXT or --example"),
        (["find", "i", "wave", "--count", "0"], "--count: expected at least 1, got 0"),
        (["find", "i", "wave", "--within", "-1"], "--within: expected at least 0 seconds"),
        (["index", "r", "--model", "m", "--output", "o", "--stride", "2"], "--stride: expected --seconds with it"),
        ([], "required"),
    ],
)
def test_wrong_commands_end_with_a_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["action-llm-search", *words])
    with pytest.raises(SystemExit) as end:
        search_recordings.main()
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_benchmark_finds_the_nearest_neighbours(tmp_path):
    arguments = benchmark_search.BenchmarkArguments(
        output=str(tmp_path / "search"), windows=300, classes=5, count=3, queries=2
    )
    kinds = benchmark_search.main(arguments)["kinds"]
    assert all(kinds[kind]["largest_difference_of_scores"] < 1e-5 for kind in ("example", "class"))
    page = (tmp_path / "search.md").read_text()
    assert "300 made-up windows of 5 classes" in page and "| two classes in order |" in page


def write_sentences(folder, labels, latents):
    """Action sentences of a word each: of each class three training recordings, and test recordings s00, s01, …"""
    features = sentence_features(ClassLabel(names=NAMES[:3]), 16, latents is not None)
    centres = 2 * np.array([[0, 0], [1, 0], [0, 1]])
    parts = {"train": ([0, 0, 0, 1, 1, 1, 2, 2, 2], np.repeat(centres, 3, axis=0)), "test": (labels, latents)}
    for split, (of_split, vectors) in parts.items():
        columns = {
            "sample_id": [f"{'t' * (split == 'train')}s{place:02d}" for place in range(len(of_split))],
            "encoding": [0] * len(of_split),
            "label": of_split,
            "held_out": [False] * len(of_split),
            "action_ids": [[1]] * len(of_split),
            "start_times": [[0.0]] * len(of_split),
            "end_times": [[1.0]] * len(of_split),
        }
        if latents is not None:
            columns["latents"] = np.asarray(vectors, np.float32).tolist()
        write_shard(SplitShards(folder, split, 1).paths[0], columns, features)
    (folder / "record.json").write_text(json.dumps({"splits": {"train": {}, "test": {}}}))


def test_precision_of_a_search(tmp_path):
    """Beside brute force on made-up recordings: of each class, three in training and four in the index."""
    rng = np.random.default_rng(0)
    labels = [label for label in range(3) for _ in range(4)]
    files = [f"s{place:02d}_skeleton.npy" for place in range(len(labels))]
    probabilities = rng.dirichlet(np.ones(3), len(labels)) * 0.5 + np.eye(3)[labels] * 0.5
    windows = [[Window(0.0, 1.0, row, [1])] for row in probabilities]
    recordings = [Recording(str(tmp_path / file), [1, 1], of) for file, of in zip(files, windows, strict=True)]
    settings = {"class_names": NAMES[:3], "codes_per_word": 1, "seconds": None}
    recording_index._write(tmp_path / "index", settings, recordings)
    latents = rng.normal(size=(len(labels), 2)) + 2 * np.array([[0, 0], [1, 0], [0, 1]])[labels]
    write_sentences(tmp_path / "sentences", labels, latents)

    arguments = {"index": str(tmp_path / "index"), "sentences": str(tmp_path / "sentences")}
    metrics = evaluate_search.main(
        evaluate_search.SearchEvaluationArguments(**arguments, output_dir=str(tmp_path / "out"))
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["example"]["queries"] == 12
    actions = np.array(labels)
    centres = 2 * np.array([[0, 0], [1, 0], [0, 1]])  # of the training recordings
    fidelity = np.square(np.sqrt(probabilities) @ np.sqrt(probabilities).T)
    for count in (1, 5, 10):
        by_class = {
            "search": [np.argsort(-probabilities[:, label]) for label in range(3)],
            "nearest latents": [np.argsort(((latents - centre) ** 2).sum(axis=1)) for centre in centres],
        }
        by_example = {
            "search": [np.argsort(-row) for row in fidelity],
            "nearest latents": [np.argsort(((latents - row) ** 2).sum(axis=1)) for row in latents],
        }
        for method, orders in by_class.items():
            expected = [(actions[order[:count]] == label).sum() / count for label, order in enumerate(orders)]
            assert metrics["class"]["precision"][method][count] == pytest.approx(np.mean(expected))
        for method, orders in by_example.items():
            others = [order[order != query][:count] for query, order in enumerate(orders)]
            expected = [(actions[order] == actions[query]).sum() / count for query, order in enumerate(others)]
            assert metrics["example"]["precision"][method][count] == pytest.approx(np.mean(expected))
    assert (metrics["class"]["fewest_relevant"], metrics["example"]["fewest_relevant"]) == (4, 3)


def test_precision_needs_whole_test_recordings(tmp_path):
    names = {"a1_s1_t1", "a1_s1_t10", "wave/001", "clip"}
    files = ["/x/a1_s1_t1_skeleton.mat", "/x/a1_s1_t10.mat", "data/wave/001.npy"]
    assert evaluate_search.recordings_of(files, names) == ["a1_s1_t1", "a1_s1_t10", "wave/001"]
    for file in ("/x/a1_s1_t2.mat", "clip_2.npy", "throw/001.npy"):
        with pytest.raises(ValueError, match=f"{file} of the index is no test recording"):
            evaluate_search.recordings_of([file], names)
    with pytest.raises(ValueError, match=r"a/clip\.npy and b/clip\.npy of the index are the same recording, clip"):
        evaluate_search.recordings_of(["a/clip.npy", "b/clip.npy"], names)
    settings = {"class_names": NAMES[:3], "codes_per_word": 1, "seconds": 4.0}
    window = Window(0.0, 1.0, np.ones(3) / 3, [1])
    recording_index._write(tmp_path / "index", settings, [Recording("/x/s00.npy", [1, 1], [window])])
    write_sentences(tmp_path / "sentences", [0, 1, 2], np.eye(3))
    arguments = evaluate_search.SearchEvaluationArguments(
        str(tmp_path / "index"), str(tmp_path / "sentences"), str(tmp_path / "out")
    )
    with pytest.raises(ValueError, match="expected whole recordings, found windows"):
        evaluate_search.main(arguments)
    recording_index._write(
        tmp_path / "index", settings | {"seconds": None}, [Recording("/x/s00.npy", [1, 1], [window])]
    )
    with pytest.raises(ValueError, match="expected more than 10 recordings, found 1"):
        evaluate_search.main(arguments)
    write_sentences(tmp_path / "sentences", [0, 1, 2], None)
    with pytest.raises(ValueError, match="contains no latents"):
        evaluate_search.main(arguments)
