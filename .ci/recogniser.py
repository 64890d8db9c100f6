"""
What `.ci/matrix` runs in each environment.

    recogniser.py make FOLDER    writes tiny recognisers with random weights, each with an adapter or prompts, as a push would
    recogniser.py check FOLDER   loads them as remote code, compares, explains, saves; prints JSON
"""

import contextlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKELETONS, VIDEOS = "skeletons", "long_videos"


def clip():
    """(40, 25, 3) metres: somebody who sways and lifts a hand; no random numbers."""
    import numpy as np

    time, joints = np.arange(40)[:, None] / 30, np.arange(25)[None]
    x = 0.1 * (joints % 5) - 0.2 + 0.05 * np.sin(3 * time)
    y = 0.07 * joints - 0.8 + 0.3 * time * (joints == 11)
    z = 3.0 + 0.02 * (joints % 3) + 0.1 * time
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


def film():
    """(20, 32, 32, 3) pixels: a light square that goes to the right."""
    import numpy as np

    frames = np.full((20, 32, 32, 3), 30, np.uint8)
    for time in range(20):
        frames[time, 8:16, time : time + 8] = 220
    return frames


RECORDINGS = {SKELETONS: clip, VIDEOS: film}


def make(folder: Path):
    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    from peft import LoraConfig, get_peft_model
    from tiny_models import (
        CLASS_NAMES,
        tiny_action_model,
        tiny_llava,
        tiny_llm,
        tiny_processor,
        tiny_tokenizer,
        tiny_vtem,
    )

    from action_llm import ActionLLMForClassification, ActionLLMProcessor, VideoFeatureExtractor

    reads_video = VideoFeatureExtractor(num_segments=8, frames_per_segment=1, height=32, width=32)
    for name, llm, action_model, processor in (
        (SKELETONS, tiny_llm("llama-gqa-tied"), tiny_action_model(), tiny_processor()),
        (
            VIDEOS,
            tiny_llava(),
            tiny_vtem(),
            ActionLLMProcessor(reads_video, tiny_tokenizer(), class_names=CLASS_NAMES, num_action_tokens=16),
        ),
    ):
        model = ActionLLMForClassification.from_llm(
            llm,
            action_token_offset=processor.action_token_offset,
            action_model=action_model,
            class_names=CLASS_NAMES,
            prefix_length=4 if name == VIDEOS else 0,
        )
        if name == SKELETONS:
            torch.manual_seed(0)
            layers = r".*language_model\..*\.(q_proj|v_proj)"
            get_peft_model(model, LoraConfig(r=4, target_modules=layers, init_lora_weights=False))
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        with torch.no_grad():
            logits = model(**processor(RECORDINGS[name]())).logits[0].double()
        (folder / f"{name}.json").write_text(json.dumps(logits.tolist()))


def check(folder: Path) -> dict:
    """Each thing that a recogniser does → what came of it."""
    sys.modules["action_llm"] = None  # the code comes from the folder, as it would from the Hub
    import torch
    from transformers import AutoModel, AutoProcessor, pipeline

    results = {}

    def attempt(name: str, what):
        try:
            results[name] = what()
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def load(path: Path):
        model = AutoModel.from_pretrained(path, trust_remote_code=True)
        return model, AutoProcessor.from_pretrained(path, trust_remote_code=True)

    def difference(path: Path, name: str) -> float:
        """The largest difference between logits here and those of the environment that made the folder."""
        model, processor = load(path)
        with torch.no_grad():
            logits = model(**processor(RECORDINGS[name]())).logits[0].double()
        return distance(logits, name)

    def distance(logits, name: str) -> float:
        expected = torch.tensor(json.loads((folder / f"{name}.json").read_text()), dtype=torch.float64)
        return float((logits - expected).abs().max())

    def explain() -> str:
        model, processor = load(folder / SKELETONS)
        return model.explain(processor, clip()).label

    def saved(name: str) -> float:
        with tempfile.TemporaryDirectory() as copy:
            model, processor = load(folder / name)
            model.save_pretrained(copy)
            processor.save_pretrained(copy)
            return difference(Path(copy), name)

    def generated() -> int:
        model, processor = load(folder / SKELETONS)
        inputs = processor(action_ids=[[1, 2, 3]])
        words = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        return model.generate(**words, max_new_tokens=4, do_sample=False).shape[1] - inputs["input_ids"].shape[1]

    def recognised() -> str:
        recognise = pipeline("action-recognition", model=str(folder / SKELETONS), trust_remote_code=True)
        return recognise(clip())[0]["label"]

    def read_by_peft() -> float:
        """The same difference for the repository without its adapter, which `PeftModel` then puts on."""
        from peft import PeftModel

        with tempfile.TemporaryDirectory() as plain:
            for path in (folder / SKELETONS).iterdir():
                if path.is_file():
                    Path(plain, path.name).write_bytes(path.read_bytes())
            model, processor = load(Path(plain))
        peft_model = PeftModel.from_pretrained(model, folder / SKELETONS / "adapter")
        with torch.no_grad():
            logits = peft_model.get_base_model()(**processor(clip())).logits[0].double()
        return distance(logits, SKELETONS)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attempt("logits", lambda: difference(folder / SKELETONS, SKELETONS))
        attempt("logits (prompts in layers)", lambda: difference(folder / VIDEOS, VIDEOS))
        attempt("saved again", lambda: max(saved(SKELETONS), saved(VIDEOS)))
        attempt("PeftModel", read_by_peft)
        attempt("explain", explain)
        attempt("generate", generated)
        attempt("pipeline", recognised)
    results["deprecated"] = sorted({str(w.message).split("\n")[0] for w in caught if w.category is FutureWarning})
    return results


if __name__ == "__main__":
    command, where = sys.argv[1], Path(sys.argv[2])
    if command == "make":
        make(where)
    else:
        with contextlib.redirect_stdout(sys.stderr):
            outcome = check(where)
        print(json.dumps(outcome))
