"""Files of a processor, a feature extractor or a tokenizer that are damaged, contradict each other or name code."""

import ast
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_recogniser
from transformers import AutoFeatureExtractor, AutoProcessor, pipeline

from action_llm import ActionLLMForClassification, ActionLLMProcessor, SkeletonFeatureExtractor, VideoFeatureExtractor
from action_llm.checked_settings import SettingError, checked
from action_llm.language_models import load_language_model
from action_llm.model_files import ModelFileError
from action_llm.processing_action_llm import load_feature_extractor
from action_llm.tokenizer_files import load_tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
PROCESSOR, EXTRACTOR = "processor_config.json", "preprocessor_config.json"
TOKENIZER, VOCABULARY = "tokenizer_config.json", "tokenizer.json"
CLASSES = {"skeletons": SkeletonFeatureExtractor, "videos": VideoFeatureExtractor}
RECORDINGS = {
    "skeletons": np.random.default_rng(0).normal(size=(12, 25, 3)).astype(np.float32),
    "videos": np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3)).astype(np.uint8),
}
# Values of the wrong type, out of every range, or no numbers at all.
WRONG = (
    None, True, -1, 0, 1.5, 10**18, 10**400, 1e308, 1e-300, float("nan"), float("inf"), "", "x", [], [None], [[]], ["a", "a"],
    {}, {"a": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of a recogniser of skeletons and of one of videos; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    for modality in CLASSES:
        model, processor = tiny_recogniser(modality)
        model.save_pretrained(folder / modality)
        processor.save_pretrained(folder / modality)
    return folder


@pytest.fixture
def skeletons(whole, tmp_path):
    return Path(shutil.copytree(whole / "skeletons", tmp_path / "model"))


def change(path: Path, **fields):
    """Sets fields of a JSON file; `...` takes one out."""
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


FAULTS = [
    ("skeletons_processor_config.json-1", "num_soft_prompts"),
    ("skeletons_processor_config.json-2", "feature_extractor.feature_extractor_type"),
    ("skeletons_processor_config.json-3", "feature_extractor.auto_map"),
    ("skeletons_processor_config.json-4", "feature_extractor.layout"),
    ("skeletons_processor_config.json-5", "instruction_with_classes"),
    ("skeletons_processor_config.json-6", "class_names"),
    ("skeletons_processor_config.json-8", "feature_extractor.auto_map.AutoFeatureExtractor"),
    ("skeletons_processor_config.json-11", "num_action_tokens"),
    ("videos_processor_config.json-1", "instruction_to_explain"),
    ("videos_processor_config.json-2", "feature_extractor.num_segments"),
    ("videos_processor_config.json-3", "feature_extractor"),
    ("videos_processor_config.json-4", "height"),
    ("videos_processor_config.json-5", "feature_extractor.feature_extractor_type"),
    ("videos_processor_config.json-6", "_name_or_path"),
    ("videos_tokenizer_config.json-1", "model_max_length"),
    ("videos_tokenizer_config.json-2", "bos_token"),
    ("videos_tokenizer_config.json-3", "eos_token"),
    ("videos_tokenizer_config.json-4", "pad_token"),
    ("videos_tokenizer_config.json-5", "auto_map.AutoTokenizer"),
    ("videos_tokenizer_config.json-6", "eos_token"),
]


@pytest.mark.real_data
@pytest.mark.parametrize("name, field", FAULTS)
def test_damaged_files_name_file_and_field(real_data, whole, tmp_path, name, field):
    (fault,) = (real_data / "cases" / "faults").glob(f"model_{name}-*")
    modality, file_name = name.partition("_")[0], PROCESSOR if "processor" in name else TOKENIZER
    folder = shutil.copytree(whole / modality, tmp_path / "model")
    shutil.copy(fault, folder / file_name)
    for load in (
        lambda: ActionLLMProcessor.from_pretrained(folder),
        lambda: AutoProcessor.from_pretrained(folder, trust_remote_code=True),
        lambda: pipeline("action-recognition", model=str(folder), trust_remote_code=True, device="cpu"),
    ):
        with pytest.raises(ModelFileError) as error:
            load()
        # Where the two files of an extractor differ, it is the second one that is named, beside the first.
        assert error.value.field == field and str(folder / file_name) in str(error.value)


@pytest.mark.real_data
def test_a_picture_smaller_than_a_patch_is_refused(real_data, whole, tmp_path):
    (fault,) = (real_data / "cases" / "faults").glob("model_videos_processor_config.json-4-*")
    folder = shutil.copytree(whole / "videos", tmp_path / "model")
    shutil.copy(fault, folder / PROCESSOR)
    (folder / EXTRACTOR).unlink()
    recognise = pipeline("action-recognition", model=str(folder), trust_remote_code=True, device="cpu")
    with pytest.raises(ValueError, match="an image of 1 x 32 pixels"):
        recognise(RECORDINGS["videos"])


def places(content, before=()):
    """Where values stand in a JSON object, some of those in lists and large objects."""
    items = list(content.items())[:60] if isinstance(content, dict) else list(enumerate(content))[:3]
    for key, value in items:
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places(value, (*before, key))


def damaged(text: str, generator: random.Random) -> bytes:
    """A value replaced, a field lost, a file cut off, bytes overwritten, or another thing than an object."""
    content = json.loads(text)
    *parents, last = generator.choice(list(places(content)))
    part = content
    for key in parents:
        part = part[key]
    match generator.randrange(8):
        case 0:
            del part[last]
        case 1:
            return text[: generator.randrange(len(text))].encode()
        case 2:
            raw = bytearray(text.encode())
            for _ in range(generator.choice((1, 3, 10))):
                raw[generator.randrange(len(raw))] = generator.randrange(256)
            return bytes(raw)
        case 3:
            return generator.choice((b"", b"[]", b"1", b"null", b"[" * 100_000, b"\xff\xfe", text.encode("utf-16")))
        case _:
            part[last] = generator.choice(WRONG)
    return json.dumps(content).encode()


@pytest.mark.parametrize("file_name", [PROCESSOR, EXTRACTOR, TOKENIZER, VOCABULARY])
@pytest.mark.parametrize("modality", CLASSES)
def test_mutated_files_are_a_processor_or_an_error_that_names_them(whole, tmp_path, modality, file_name):
    generator = random.Random(f"{modality} {file_name}")
    folder = Path(shutil.copytree(whole / modality, tmp_path / "model"))
    text, refused = (folder / file_name).read_text(), 0
    # Each alone: with both, the second would refuse what the first has lost.
    if file_name == PROCESSOR:
        (folder / EXTRACTOR).unlink()
    if file_name == EXTRACTOR:
        change(folder / PROCESSOR, feature_extractor=...)
    for _ in range(40):
        (folder / file_name).write_bytes(damaged(text, generator))
        try:
            processor = ActionLLMProcessor.from_pretrained(folder)
        except ModelFileError as error:
            assert str(folder) in str(error) and len(str(error)) < 2000
            refused += 1
        else:
            processor.save_pretrained(tmp_path / "again")
            processor.run_length_ids()
            assert processor(RECORDINGS[modality])["label_ids"].ndim == 2
    assert refused > 10


@pytest.mark.parametrize("modality", CLASSES)
def test_every_setting_of_an_extractor_is_checked(modality):
    extractor_class = CLASSES[modality]
    for name, value in ((name, value) for name in extractor_class.__init__.__annotations__ for value in WRONG):
        try:
            extractor = extractor_class(**{name: value})
        except SettingError as error:
            assert error.setting == name or (name, error.setting) == ("height", "num_segments")
        else:
            settings = extractor.to_dict()
            assert extractor_class(**settings).to_dict() == settings
            assert len(extractor(RECORDINGS[modality])["frame_rate"]) == 1


def test_sizes_are_bounded_also_as_products():
    with pytest.raises(SettingError, match="num_segments: expected a whole video of at most 268435456 numbers"):
        VideoFeatureExtractor(num_segments=60_000)
    assert VideoFeatureExtractor(num_segments=18_000, segment_seconds=0.2)  # read as a stream
    with pytest.raises(SettingError, match="frames_per_segment"):
        VideoFeatureExtractor(frames_per_segment=1024, segment_seconds=0.2, height=4096, width=4096)
    with pytest.raises(SettingError, match="length: expected int at most 35791"):
        SkeletonFeatureExtractor(num_persons=100, length=40_000)
    names = [f"joint {joint}" for joint in range(100_000)]
    with pytest.raises(SettingError, match=r"layout .*joint_names must be at most 1000"):
        chain = {"parents": list(range(-1, 99_999)), "parts": {"body": list(range(100_000))}, "left_right": []}
        anchors = dict.fromkeys(("left_hip", "right_hip", "left_shoulder", "right_shoulder", "pelvis", "neck"), 0)
        SkeletonFeatureExtractor({"name": "worm", "joint_names": names, **chain, **anchors})


def test_numbers_that_no_float_holds():
    with pytest.raises(SettingError, match=r"fps: expected float at most 1\.8e308, got 1000"):
        checked("fps", 10**400, float, above=0)
    with pytest.raises(SettingError, match="a number of 16610 bits"):
        checked("size", 10**5000, int, 1, 100)
    assert checked("size", 10**400, int, 1) == 10**400


def test_the_two_files_of_an_extractor_say_the_same(skeletons):
    change(skeletons / EXTRACTOR, max_gap=0.5)
    for load in (
        ActionLLMProcessor.from_pretrained,
        SkeletonFeatureExtractor.from_pretrained,
        load_feature_extractor,
        lambda folder: AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True),
    ):
        with pytest.raises(
            ModelFileError, match=r"preprocessor_config\.json, field max_gap: expected 1\.0, as in .*found"
        ):
            load(skeletons)
    change(skeletons / EXTRACTOR, max_gap=..., auto_map=...)  # a default that is not written, and no setting
    assert ActionLLMProcessor.from_pretrained(skeletons).feature_extractor.max_gap == 1.0
    (skeletons / EXTRACTOR).unlink()
    assert load_feature_extractor(skeletons).num_persons == 1
    change(skeletons / PROCESSOR, feature_extractor=...)
    with pytest.raises(OSError, match="has no feature extractor: expected its settings in"):
        ActionLLMProcessor.from_pretrained(skeletons)
    (skeletons / PROCESSOR).unlink()
    with pytest.raises(OSError, match=r"has no processor_config\.json"):
        ActionLLMProcessor.from_pretrained(skeletons)


def test_the_page_says_what_is_used(skeletons):
    from action_llm_recipes.hub import model_page

    settings = json.loads((skeletons / EXTRACTOR).read_text()) | {"fps": 15.0, "layout": "kinect20"}
    change(skeletons / PROCESSOR, feature_extractor=settings)
    (skeletons / EXTRACTOR).unlink()
    extractor = load_feature_extractor(skeletons)
    assert "20 joints in 3 dimensions (`kinect20`), resampled to 15 frames per second" in model_page._reads(extractor)
    assert model_page._example(extractor) == "recording.npy"


@pytest.mark.parametrize("class_name", ["VideoFeatureExtractor", "WhisperFeatureExtractor", "Nobody"])
def test_an_extractor_of_another_class_is_refused(skeletons, class_name):
    settings = json.loads((skeletons / EXTRACTOR).read_text()) | {"feature_extractor_type": class_name}
    for fields in (
        settings,
        {"feature_extractor_type": class_name},
    ):  # with the settings of skeletons, and without any
        (skeletons / EXTRACTOR).write_text(json.dumps(fields))
        change(skeletons / PROCESSOR, feature_extractor=fields)
        with pytest.raises(ModelFileError, match="feature_extractor"):
            SkeletonFeatureExtractor.from_pretrained(skeletons)
        if class_name != "VideoFeatureExtractor":
            with pytest.raises(ModelFileError, match=f"feature_extractor_type: .*found '{class_name}'"):
                ActionLLMProcessor.from_pretrained(skeletons)


def test_a_processor_of_another_class_and_unknown_settings_are_refused(skeletons):
    change(skeletons / PROCESSOR, processor_class="LlavaProcessor")
    with pytest.raises(
        ModelFileError, match="field processor_class: expected ActionLLMProcessor, found LlavaProcessor"
    ):
        ActionLLMProcessor.from_pretrained(skeletons)
    change(skeletons / PROCESSOR, processor_class="ActionLLMProcessor", run_length=True)
    with pytest.raises(ModelFileError, match="field run_length: expected one of the settings class_names"):
        ActionLLMProcessor.from_pretrained(skeletons)
    change(skeletons / PROCESSOR, run_length=..., run_lengths=True)
    with pytest.raises(
        ModelFileError, match="field run_lengths: expected False with a feature extractor of skeletons"
    ):
        ActionLLMProcessor.from_pretrained(skeletons)


def test_arguments_change_settings_and_their_errors_are_not_of_the_file(skeletons):
    processor = ActionLLMProcessor.from_pretrained(skeletons, class_names=["a", "b"], max_gap=0.5, padding_side="left")
    assert (processor.class_names, processor.feature_extractor.max_gap) == (["a", "b"], 0.5)
    assert processor.tokenizer.padding_side == "left"
    with pytest.raises(SettingError, match="num_soft_prompts: expected int at least 0, got -1"):
        ActionLLMProcessor.from_pretrained(skeletons, num_soft_prompts=-1)


CODE = """
open({marker!r}, "a").write(__name__)
class Theirs:
    pass
generate = Theirs
"""


@pytest.fixture
def hostile(skeletons, tmp_path, monkeypatch):
    """A folder whose files name code for everything, and whom it asked, as whose terminal says yes; the code leaves a file."""
    asked, marker = [], tmp_path / "code was run"
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    (skeletons / "theirs.py").write_text(CODE.format(marker=str(marker)))
    (skeletons / "custom_generate").mkdir()
    (skeletons / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoProcessor", "AutoFeatureExtractor")
    auto_map = dict.fromkeys(classes, "theirs.Theirs")
    for name in (PROCESSOR, EXTRACTOR, "config.json"):
        change(skeletons / name, auto_map=auto_map)
    settings = json.loads((skeletons / PROCESSOR).read_text())["feature_extractor"] | {"auto_map": auto_map}
    change(skeletons / PROCESSOR, feature_extractor=settings)
    pair = ["theirs.Theirs", "theirs.Theirs"]
    change(skeletons / TOKENIZER, auto_map={**auto_map, "AutoTokenizer": pair})
    yield skeletons, asked, marker
    assert not asked


def test_no_code_of_a_folder_is_run_and_nobody_is_asked(hostile):
    folder, _, marker = hostile
    for load in (
        ActionLLMProcessor.from_pretrained,
        SkeletonFeatureExtractor.from_pretrained,
        load_feature_extractor,
        load_tokenizer,
        ActionLLMForClassification.from_pretrained,
    ):
        assert type(load(folder)).__name__ != "Theirs"
    assert not marker.exists()


def test_what_only_code_of_a_folder_could_load_is_refused(hostile):
    folder, _, marker = hostile
    change(folder / TOKENIZER, tokenizer_class="Theirs")
    for load in (load_tokenizer, ActionLLMProcessor.from_pretrained):
        with pytest.raises(ModelFileError, match="trust_remote_code=True"):
            load(folder)
    change(folder / "config.json", model_type="theirs")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_language_model(str(folder))
    assert not marker.exists()


def test_a_tokenizer_with_code_loads_where_it_is_trusted(hostile):
    folder, _, marker = hostile
    change(folder / TOKENIZER, tokenizer_class="Theirs", auto_map={"AutoTokenizer": [None, "theirs.Theirs"]})
    (folder / "theirs.py").write_text(
        f"from transformers import PreTrainedTokenizerFast\nopen({str(marker)!r}, 'w')\n"
        "class Theirs(PreTrainedTokenizerFast):\n    pass\n"
    )
    processor = ActionLLMProcessor.from_pretrained(folder, trust_remote_code=True)
    assert type(processor.tokenizer).__name__ == "Theirs" and marker.exists()
    assert processor.prompt([1])


def test_everything_that_could_run_code_says_that_it_does_not():
    silent = []
    for path in sorted(
        path for room in ("modeling", "recipes", "datasets_scripts") for path in (REPOSITORY / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_load = isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "from_pretrained"
            if is_load and getattr(node.func.value, "id", "").startswith("Auto"):
                given = {keyword.arg or getattr(keyword.value, "id", None) for keyword in node.keywords}
                if not given & {"trust_remote_code", "source"}:
                    silent.append(f"{path.name}:{node.lineno}")
    assert not silent
