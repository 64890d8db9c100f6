"""A language model that reads videos: one call from a file to a class, and a folder that loads without the project."""

import json

import pytest
import torch
from fresh_python import python
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, WIDTH, tiny_backbone, tiny_llm, tiny_tokenizer, tiny_vst
from tiny_videos import tiny_video

from action_llm import ActionLLMForClassification, ActionLLMProcessor, VideoFeatureExtractor
from action_llm.explanations import explain
from action_llm.modeling_vst import VSTModel

LOAD_ALONE = """
import json, sys
sys.modules["action_llm"] = None  # the package may be installed here: as if it were not
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor
folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(**processor(folder + "/clip.mp4")).logits
reason = model.explain(processor, model(**processor(folder + "/clip.mp4")))
print(json.dumps([type(model).__name__, [float(x).hex() for x in logits[0]], reason.label, reason.text]))
"""


def processor(num_segments=4, **settings):
    extractor = VideoFeatureExtractor(num_segments=num_segments, frames_per_segment=2, height=32, width=32)
    return ActionLLMProcessor(
        extractor, tiny_tokenizer(), class_names=CLASS_NAMES, num_action_tokens=NUM_ACTION_TOKENS, **settings
    )


def compose(vst, **settings):
    return ActionLLMForClassification.from_llm(
        tiny_llm(), action_token_offset=len(tiny_tokenizer()), action_model=vst, class_names=CLASS_NAMES, **settings
    )


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(30))
    return tmp_path / "clip.mp4"


def test_from_a_file_to_a_class(clip):
    model, read = compose(tiny_vst(codebook_dim=WIDTH)), processor()
    with torch.no_grad():
        outputs = model(**read([clip, clip]))
    assert outputs.logits.shape == (2, len(CLASS_NAMES)) and torch.equal(outputs.logits[0], outputs.logits[1])
    assert outputs.end_times.max() == 1.0 and outputs.probabilities.sum(-1).allclose(torch.ones(2))
    ids = outputs.action_ids[0][outputs.action_attention_mask[0].bool()]
    with torch.no_grad():
        written = model(**read(action_ids=[ids.tolist()]))
    torch.testing.assert_close(written.logits[0], outputs.logits[0], atol=1e-4, rtol=1e-4)


def test_lengths_of_runs_as_numbers(clip, tmp_path):
    """What the model writes by itself is what the processor writes of pairs; a token is left out with its number."""
    read = processor(num_segments=12, run_lengths=True)
    vst = tiny_vst(codebook_dim=WIDTH)
    # Every segment gets one of two codes: runs, also longer than nine.
    with torch.no_grad():
        vst.quantizers[0].weight[2:] = 1e3
    model = compose(vst, run_length_ids=read.run_length_ids())
    assert read.prompt([(3, 2), (0, 11)]) == (
        "Given a sequence of action tokens <act_3> 2<act_0> 11, please predict the corresponding action."
    )
    found = set()
    for frames in (2, 5, 30):
        (tmp_path / "other.mp4").write_bytes(tiny_video(frames))
        with torch.no_grad():
            outputs = model(**read(tmp_path / "other.mp4"))
        mask = outputs.action_attention_mask[0].bool()
        pairs = list(zip(outputs.action_ids[0][mask].tolist(), outputs.run_lengths[0][mask].tolist(), strict=True))
        assert sum(length for _, length in pairs) == 12
        found |= {length for _, length in pairs}
        with torch.no_grad():
            torch.testing.assert_close(model(**read(action_ids=[pairs])).logits, outputs.logits, atol=1e-4, rtol=1e-4)
    assert max(found) > 1
    one = explain(model, read, [(3, 2), (0, 11), (5, 1)])
    assert {(entry.place, entry.action_id) for entry in one.evidence} == {(0, 3), (1, 0), (2, 5)}
    with torch.no_grad():
        whole, without = (
            model(**read(action_ids=[words])).logits[0].log_softmax(-1)
            for words in ([(3, 2), (0, 11), (5, 1)], [(3, 2), (5, 1)])
        )
    contribution = next(entry.contribution for entry in one.evidence if entry.place == 1)
    assert contribution == pytest.approx(float((whole - without)[int(whole.argmax())]), abs=1e-4)
    model.save_pretrained(tmp_path / "saved")
    read.save_pretrained(tmp_path / "saved")
    again = ActionLLMProcessor.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        loaded = ActionLLMForClassification.from_pretrained(tmp_path / "saved")(**again(tmp_path / "other.mp4"))
    assert torch.equal(loaded.logits, outputs.logits)


def test_lengths_where_none_are_read_and_none_where_some_are():
    plain, with_lengths = processor(), processor(run_lengths=True)
    assert plain.run_length_ids() is None and len(with_lengths.run_length_ids()) == 4
    with pytest.raises(ValueError, match=r"reads tokens without lengths, got \(3, 2\)"):
        plain.prompt([(3, 2)])
    with pytest.raises(ValueError, match="reads pairs of a token and the length of its run, got 3"):
        with_lengths.prompt([3])
    with pytest.raises(ValueError, match="the length of a run must be at least 1, got 0"):
        with_lengths.prompt([(3, 0)])


def test_direct_feature_projection(clip):
    """LVLM-VAR, Table 2: without the module, features go to the language model as they are, by a projection."""
    settings = {"quantize": False, "direct": True, "codebook_size": NUM_ACTION_TOKENS}
    direct = VSTModel.from_backbone(tiny_backbone("resnet"), **settings)
    model = compose(direct, injection_layer=0)
    with torch.no_grad():
        outputs = model(**processor()(clip))
    assert torch.isfinite(outputs.logits).all() and outputs.action_ids is None
    assert model.model.action_projector.weight.shape == (WIDTH, 16)


def test_loads_as_remote_code_in_a_process_without_the_project(clip, tmp_path):
    folder = tmp_path / "repository"
    model, read = compose(tiny_vst(codebook_dim=WIDTH)), processor()
    model.save_pretrained(folder)
    read.save_pretrained(folder)
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    with torch.no_grad():
        expected = model(**read(clip)).logits
    alone = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    result = python("-c", LOAD_ALONE, folder, cwd=tmp_path, env=alone)
    assert result.returncode == 0, result.stderr[-3000:]
    name, logits, label, text = json.loads(result.stdout.splitlines()[-1])
    assert text.startswith(f"{label}, with a probability of") and label == CLASS_NAMES[int(expected[0].argmax())]
    assert name == "ActionLLMForClassification"
    assert [float.fromhex(x) for x in logits] == expected[0].tolist(), "not equal to the bit"
