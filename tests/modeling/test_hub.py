"""Push and pull with the real client over HTTP: every model, its processor, an adapter; and what goes wrong, told clearly.

What is pulled is pulled by processes in which the project is not there.
"""

import json
from pathlib import Path

import pytest
import torch
from fresh_python import python, start
from gguf_files import write_gguf
from hub_server import TOKEN, HubServer
from peft import LoraConfig, get_peft_model
from tiny_models import tiny_llm, tiny_tokenizer
from transformers import LlamaConfig

import action_llm
from action_llm import ActionLLMConfig, ActionLLMForClassification, ActionVQVAEConfig
from action_llm.llm_references import sha256_of
from action_llm.token_lexicon import TokenEntry

TESTS = Path(__file__).resolve().parents[1]

PUSH = """
import json, sys
import numpy as np, torch
from peft import LoraConfig, get_peft_model
from tiny_models import (
    CLASS_NAMES, tiny_action_model, tiny_llava, tiny_llm, tiny_processor, tiny_tokenizer, tiny_vst, tiny_vtem,
)
from action_llm import (
    ActionLLMForClassification, ActionLLMProcessor, ActionVQVAEModel, SkeletonFeatureExtractor, VideoFeatureExtractor,
)

home = sys.argv[1]
walk = np.random.default_rng(0).normal(size=(30, 25, 3)).astype(np.float32)
clip = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3)).astype(np.uint8)
np.savez(home + "/recordings.npz", walk=walk, clip=clip)
video = VideoFeatureExtractor(num_segments=8, frames_per_segment=1, height=32, width=32)
said = {}
with torch.no_grad():
    for name, model, extractor, recording in (
        ("vqvae", tiny_action_model(), SkeletonFeatureExtractor(num_persons=1), walk),
        ("vst", tiny_vst().eval(), video, clip),
        ("vtem", tiny_vtem(), video, clip),
    ):
        model.push_to_hub("tester/" + name)
        extractor.push_to_hub("tester/" + name)
        said[name] = model.encode(**extractor(recording)).action_ids.tolist()
    llm = tiny_llm()
    llm.push_to_hub("tester/base")
    tiny_tokenizer().push_to_hub("tester/base")
    see = ActionLLMProcessor(video, tiny_tokenizer(), class_names=CLASS_NAMES, num_action_tokens=16)
    for name, llm, action_model, processor, recording, home_of_llm in (
        ("skeletons", tiny_llm(), tiny_action_model(), tiny_processor(), walk, None),
        ("referenced", tiny_llm(), tiny_action_model(), tiny_processor(), walk, "tester/base"),
        ("videos", tiny_llava(), tiny_vtem(), see, clip, None),
    ):
        model = ActionLLMForClassification.from_llm(
            llm, action_token_offset=processor.action_token_offset, action_model=action_model, class_names=CLASS_NAMES,
            llm_name_or_path=home_of_llm,
        )
        if name == "referenced":
            torch.manual_seed(0)
            targets = r".*language_model.*(q_proj|v_proj)"
            adapted = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, target_modules=targets))
        model.push_to_hub("tester/" + name)
        processor.push_to_hub("tester/" + name)
        said[name] = [float(x).hex() for x in model(**processor(recording)).logits[0]]
print(json.dumps(said))
"""

PULL = """
import json, os, sys
sys.modules["action_llm"] = None  # the package may be installed here: as if it were not
import numpy as np, torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification, AutoProcessor, AutoTokenizer, pipeline,
)

recordings = np.load(sys.argv[1] + "/recordings.npz")
revision = {} if len(sys.argv) == 2 else {"revision": sys.argv[2]}
said, remote = {}, {"trust_remote_code": True, **revision}
with torch.no_grad():
    for name, recording in () if revision else (("vqvae", "walk"), ("vst", "clip"), ("vtem", "clip")):
        model = AutoModel.from_pretrained("tester/" + name, **remote)
        extractor = AutoFeatureExtractor.from_pretrained("tester/" + name, **remote)
        said[name] = model.encode(**extractor(recordings[recording])).action_ids.tolist()
    for name, recording in (("skeletons", "walk"), ("referenced", "walk"), ("videos", "clip")):
        if revision and name != "skeletons":
            continue
        model = AutoModel.from_pretrained("tester/" + name, **remote)
        processor = AutoProcessor.from_pretrained("tester/" + name, **remote)
        said[name] = [float(x).hex() for x in model(**processor(recordings[recording])).logits[0]]
        assert type(model).__name__ == "ActionLLMForClassification"
        if "HF_HUB_OFFLINE" not in os.environ:
            # A second load in the same process, and the parts by themselves.
            again = AutoModel.from_pretrained("tester/" + name, **remote)
            inputs = processor(recordings[recording])
            assert torch.equal(again(**inputs).logits, model(**inputs).logits)
            assert AutoConfig.from_pretrained("tester/" + name, **remote).model_type == "action_llm"
            assert AutoFeatureExtractor.from_pretrained("tester/" + name, **remote).to_dict()
            assert AutoTokenizer.from_pretrained("tester/" + name, **remote).convert_tokens_to_ids("<act_1>") > 0
        recognise = pipeline("action-recognition", model="tester/" + name, device="cpu", **remote)
        found = recognise(recordings[recording], top_k=1, return_tokens=True, explain=True)
        loaded = pipeline("action-recognition", model=model, processor=processor, device="cpu")
        assert loaded(recordings[recording], top_k=1)[0]["label"] == found[0]["label"]
        assert found[0]["label"] == model.config.id2label[int(model(**processor(recordings[recording])).logits.argmax())]
    if not revision and "HF_HUB_OFFLINE" not in os.environ:
        # What is part of a recogniser goes its own way, with its code.
        model.model.action_model.save_pretrained(sys.argv[1] + "/part")
        part = AutoModel.from_pretrained(sys.argv[1] + "/part", trust_remote_code=True)
        features = processor.feature_extractor(recordings[recording])
        assert torch.equal(part.encode(**features).action_ids, model.model.action_model.encode(**features).action_ids)
        classifier = AutoModelForVideoClassification.from_pretrained("tester/videos", **remote)
        assert type(classifier).__name__ == "ActionLLMForClassification"
        recognise.save_pretrained(sys.argv[1] + "/saved")
        pipeline("action-recognition", model=sys.argv[1] + "/saved", trust_remote_code=True)
print(json.dumps(said))
"""

FAIL = """
import json, sys
sys.modules["action_llm"] = None
from transformers import AutoModel

said = []
for name in sys.argv[1:]:
    try:
        AutoModel.from_pretrained(name, trust_remote_code=True)
        said.append("loaded")
    except OSError as error:
        said.append(str(error))
print(json.dumps(said))
"""


# Who is logged in nowhere says who he is by an argument.
TOKEN_ALONE = """
import json, sys
sys.modules["action_llm"] = None
import numpy as np
from transformers import AutoModel, AutoProcessor, pipeline

folder, name, token = sys.argv[1:]
walk = np.load(folder + "/recordings.npz")["walk"]
model = AutoModel.from_pretrained(name, trust_remote_code=True, token=token)
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True, token=token)
piped = pipeline("action-recognition", model=name, trust_remote_code=True, token=token, device="cpu")
logits = [float(x).hex() for x in model(**processor(walk)).logits[0]]
print(json.dumps([logits, len(model.lexicon), piped(walk)[0]["label"] in processor.class_names]))
"""


def run(script: str, environment: dict, *arguments):
    done = python("-c", script, *arguments, env=environment | {"PYTHONPATH": str(TESTS)})
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pushed(hub, home):
    """What the models said before they were pushed."""
    return run(PUSH, hub.environment(home / "push"), home)


def test_what_is_pulled_says_what_was_pushed_to_the_bit(hub, home, pushed):
    assert run(PULL, hub.environment(home / "pull"), home) == pushed
    # Again, with nothing but the cache: the Hub is not asked.
    before = len(hub.requests)
    offline = hub.environment(home / "pull") | {"HF_HUB_OFFLINE": "1"}
    assert run(PULL, offline, home) == pushed
    assert len(hub.requests) == before


def test_a_pinned_commit_stays_what_it_was(hub, home, pushed):
    repository = hub.repositories["model", "tester/skeletons"]
    pinned, files = repository.commits[-1]
    worse = {path: data for path, data in files.items() if not path.endswith(".py")}
    repository.commit(worse, "the code is gone")
    try:
        found = run(PULL, hub.environment(home / "pinned"), home, pinned)
    finally:
        repository.commit(files, "back")
    assert found == {"skeletons": pushed["skeletons"]}


def test_a_repository_holds_no_pickle_no_path_no_token_and_not_the_referenced_llm(hub, home, pushed):
    for (_, name), repository in hub.repositories.items():
        for path, data in repository.commits[-1][1].items():
            assert not path.endswith((".bin", ".pt", ".pkl", ".ckpt")), path
            if path.endswith((".json", ".md", ".yaml")):
                text = data.decode()
                assert str(home) not in text and str(TESTS) not in text and TOKEN not in text, (name, path)
    files = hub.files("tester/referenced")
    assert "adapter/adapter_model.safetensors" in files
    whole = len(hub.files("tester/skeletons")["model.safetensors"])
    assert len(files["model.safetensors"]) < whole - len(hub.files("tester/base")["model.safetensors"]) + 4096
    assert json.loads(files["config.json"])["llm_name_or_path"] == "tester/base"


def test_at_the_sizes_of_the_paper_a_repository_without_its_llm_is_below_200_megabytes():
    """LLaMA-13B, 512 words as wide as its own, LoRA of rank 64 on q and v (LLM-AR, section 4.2), on the meta device."""
    llama = LlamaConfig(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40)
    config = ActionLLMConfig(
        text_config=llama,
        action_config=ActionVQVAEConfig(codebook_dim=5120, decodes=False),
        llm_name_or_path="llama",
        action_token_offset=32000,
    )
    with torch.device("meta"):
        model = ActionLLMForClassification(config)
        model = get_peft_model(model, LoraConfig(r=64, target_modules=r".*language_model.*\.(q_proj|v_proj)"))
    assert sum(p.numel() for name, p in model.named_parameters() if "language_model" in name) > 13e9 - 32000 * 5120
    own, lora = 0, 0
    for name, value in model.get_base_model().state_dict().items():
        if ".lora_" in name:
            lora += 2 * value.numel()  # saved as the language model is, in 16 bits
        elif not model.get_base_model()._is_llm_key(name):
            own += value.nbytes
    assert round(lora / 1e6) == 105
    code = sum(path.stat().st_size for path in Path(action_llm.__file__).parent.glob("*.py"))
    assert own + lora + code < 200e6, f"{own / 1e6:.0f} + {lora / 1e6:.0f} MB"


def test_what_goes_wrong_is_told_clearly(hub, home, pushed):
    files = hub.files("tester/referenced")
    base = hub.repositories["model", "tester/base"]

    def elsewhere(name: str, **llm):
        config = json.loads(files["config.json"]) | llm
        hub.repositories["model", name] = type(base)()
        hub.repositories["model", name].commit(files | {"config.json": json.dumps(config).encode()})

    # The client tries again and again, and waits for longer each time.
    unreachable = hub.environment(home / "unreachable") | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    unreached = start("-c", FAIL, "tester/skeletons", env=unreachable)

    elsewhere("tester/gone", llm_name_or_path="tester/nobody")
    elsewhere("tester/old", llm_revision="a" * 40)
    base.gated = True
    try:
        names = ["tester/nothing", "tester/referenced", "tester/gone"]
        nothing, gated, gone = run(FAIL, hub.environment(home / "refused", token=None), *names)
        (not_let_in,) = run(FAIL, hub.environment(home / "other", token="hf_somebody_else"), "tester/referenced")
        (old,) = run(FAIL, hub.environment(home / "old"), "tester/old")
    finally:
        base.gated = False
    assert "tester/nothing is not a local folder and is not a valid model identifier" in nothing
    assert f"tester/base is gated: accept its terms at {hub.url}/tester/base" in gated
    assert not_let_in == gated
    assert "hf auth login" in gated and "the repository tester/nobody does not exist or is private" in gone
    assert f"tester/base no longer has the commit {'a' * 40}" in old
    assert unreached.wait() == 0
    assert "couldn't connect to 'http://127.0.0.1:9'" in json.loads(unreached.said()[0].splitlines()[-1])[0]
    # The repository is in the cache, and its language model is not.
    for folder in (home / "old").rglob("models--tester--base"):
        assert not list(folder.rglob("*.safetensors"))
    hub.repositories["model", "tester/base"].gated = False
    assert run(FAIL, hub.environment(home / "half"), "tester/gone") == [gone]
    half = hub.environment(home / "half") | {"HF_HUB_OFFLINE": "1"}
    (missing,) = run(FAIL, half, "tester/gone")
    assert "the Hub cannot be reached, and tester/nobody is not in the cache" in missing


def test_a_token_that_is_passed_opens_the_model_its_language_model_adapter_and_lexicon(hub, home, pushed):
    lexicon = json.dumps([TokenEntry(code).to_dict() for code in range(16)]).encode()
    hub.repositories["model", "tester/closed"] = closed = type(hub.repositories["model", "tester/base"])(private=True)
    closed.commit(hub.files("tester/referenced") | {"lexicon.json": lexicon})
    base = hub.repositories["model", "tester/base"]
    base.private = True
    try:
        found = run(TOKEN_ALONE, hub.environment(home / "alone", token=None), home, "tester/closed", TOKEN)
    finally:
        base.private = False
    assert found == [pushed["referenced"], 16, True]


def test_the_language_model_can_be_a_gguf_file_on_the_hub(hub, home, pushed, tmp_path):
    pytest.importorskip("gguf", reason="the package gguf is not installed: pip install -e '.[smollm2]'")
    sha256 = sha256_of(write_gguf(tmp_path / "tiny.gguf", tiny_llm(), tiny_tokenizer()))
    hub.add("tester/files", tmp_path)
    files = hub.files("tester/referenced")
    reference = {"llm_name_or_path": "tester/files:tiny.gguf", "llm_revision": None, "llm_sha256": sha256}
    files = files | {"config.json": json.dumps(json.loads(files["config.json"]) | reference).encode()}
    hub.repositories["model", "tester/gguf"] = type(hub.repositories["model", "tester/base"])()
    hub.repositories["model", "tester/gguf"].commit(
        files | {"lexicon.json": json.dumps([TokenEntry(code).to_dict() for code in range(16)]).encode()}
    )
    logits, *_ = run(TOKEN_ALONE, hub.environment(home / "gguf"), home, "tester/gguf", TOKEN)
    # The file stores a constant of the norms in float32.
    expected = [float.fromhex(logit) for logit in pushed["referenced"]]
    assert [float.fromhex(logit) for logit in logits] == pytest.approx(expected, rel=1e-5)


def test_no_code_is_run_unless_it_is_trusted_and_importing_asks_nobody(hub, home, pushed):
    script = """
import json, sys
sys.modules["action_llm"] = None
from transformers import AutoModel
try:
    AutoModel.from_pretrained("tester/skeletons", trust_remote_code=False)
    print(json.dumps("loaded"))
except ValueError as error:
    print(json.dumps(str(error)))
"""
    assert "trust_remote_code=True" in run(script, hub.environment(home / "trust"))
    assert not any((home / "trust").rglob("modeling_action_llm.py")), "code was fetched that nobody trusts"
    before = len(hub.requests)
    run("import action_llm, action_llm_datasets; print(1)", hub.environment(home / "import"))
    assert len(hub.requests) == before
