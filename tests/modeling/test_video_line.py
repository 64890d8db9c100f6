"""A language model that reads videos: one call from a file to a class, and a folder that loads without the project."""

import json
import subprocess
import sys

import pytest
import torch
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, WIDTH, tiny_backbone, tiny_llm, tiny_tokenizer, tiny_vst
from tiny_videos import tiny_video

from action_llm import ActionLLMForClassification, ActionLLMProcessor, VideoFeatureExtractor
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
print(json.dumps([type(model).__name__, [float(x).hex() for x in logits[0]]]))
"""


def processor():
    extractor = VideoFeatureExtractor(num_segments=4, frames_per_segment=2, height=32, width=32)
    return ActionLLMProcessor(
        extractor, tiny_tokenizer(), class_names=CLASS_NAMES, num_action_tokens=NUM_ACTION_TOKENS
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
    assert int(model.most_likely_label(**read(clip))) == int(outputs.logits[0].argmax())


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
    result = subprocess.run(
        [sys.executable, "-c", LOAD_ALONE, str(folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    name, logits = json.loads(result.stdout.splitlines()[-1])
    assert name == "ActionLLMForClassification"
    assert [float.fromhex(x) for x in logits] == expected[0].tolist(), "not equal to the bit"
