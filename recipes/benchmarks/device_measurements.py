"""
The checks of `device_check.py`. Each is a function of `Sizes` that returns a `Finding`, and runs in a process of its own.

A check raises `NotRun` if this machine lacks what it needs; any other error means that it failed.
"""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

# Recordings of NTU RGB+D 120 without those that its authors list as incomplete.
NTU_RECORDINGS = 114_000
# Exact scores of 120 names may take this many times as long as greedy decoding.
GOAL = 1.5


class NotRun(Exception):
    """The machine lacks what a check needs; the message says what."""


@dataclass
class Finding:
    """
    What a check found.

    Attributes:
        passed: whether everything agrees, or is within its limit.
        summary: for the page, in a line.
        facts: the measurements, for the JSON file.
        costs: times and memory, for the page, which leaves them out for tiny sizes.
    """

    passed: bool
    summary: str
    facts: dict
    costs: str = ""


@dataclass(frozen=True)
class Sizes:
    """
    How large the models of the checks are: those of the papers (the defaults), or `TINY`.

    Attributes:
        is_tiny: whether times mean nothing, because the models are tiny.
        action_model: fields of `ActionVQVAEConfig`.
        windows: number of windows of 64 frames in the batch of stage 1.
        scoring: fields of the arguments of `benchmark_label_scoring.py`, for the agreement of attention implementations.
        llm: size of the language model that scores names and is trained in 4 bit (`benchmark_efficiency.llm_config`).
        lora, prefix: fields of the arguments of `benchmark_efficiency.py`.
        layers_in_4_bit: number of layers of `llm` that are trained in 4 bit.
        recordings: number of recordings that are tokenised.
    """

    is_tiny: bool = False
    action_model: dict = field(default_factory=dict)
    windows: int = 256
    scoring: dict = field(default_factory=lambda: {"hidden_size": 4096, "num_layers": 8})
    llm: str = "llava-1.5-13b"
    lora: dict = field(default_factory=lambda: {"repetitions": 3})
    prefix: dict = field(
        default_factory=lambda: {
            "llm": "llava-1.5-7b",
            "action_model": "vtem",
            "backbone": "llava-1.5-tower",
            "height": 336,
            "width": 336,
            "num_segments": 80,
            "frames_per_segment": 1,
            "grid": 4,
            "sentence_length": 256,
            "micro_batch": 8,
            "batch": 128,
            "repetitions": 3,
        }
    )
    layers_in_4_bit: int = 4
    recordings: int = 1024


_TINY_VIDEO = {
    "llm": "tiny",
    "backbone": "tiny",
    "height": 32,
    "width": 32,
    "num_segments": 4,
    "frames_per_segment": 1,
}
_TINY_VIDEO |= {"sentence_length": 4, "micro_batch": 2, "batch": 2, "list_classes": False, "repetitions": 1}
TINY = Sizes(
    is_tiny=True,
    action_model={"hidden_width": 16, "codebook_dim": 32, "codebook_size": 16},
    windows=4,
    scoring={"hidden_size": 128, "num_layers": 2, "vocab_size": 2000},
    llm="tiny",
    lora=_TINY_VIDEO,
    prefix=_TINY_VIDEO | {"action_model": "vtem", "grid": 2},
    layers_in_4_bit=2,
    recordings=24,
)


def stage_1_agrees(sizes: Sizes) -> Finding:
    """Tokens, latents, loss and gradients of stage 1 for skeletons, beside those of the CPU in float32.

    TF32 and bfloat16 are measured and may differ; float32 must agree. With torch's defaults, convolutions use TF32.
    """
    import torch

    from action_llm import ActionVQVAEConfig, ActionVQVAEModel
    from action_llm_recipes.benchmarks import devices

    device = devices.device()
    torch.manual_seed(0)
    model = ActionVQVAEModel(ActionVQVAEConfig(**sizes.action_model | {"mmd_weight": 0.0})).eval()
    # Each coordinate is a random walk, about as large as a body.
    windows = torch.randn(sizes.windows, 64, model.config.num_channels).cumsum(dim=1) / 8

    def results(place: torch.device, autocast: bool = False) -> dict:
        model.to(place).zero_grad()
        inputs = windows.to(place)
        with torch.autocast(place.type, torch.bfloat16, enabled=autocast):
            outputs = model(input_features=inputs)
        outputs.loss.backward()
        with torch.no_grad(), torch.autocast(place.type, torch.bfloat16, enabled=autocast):
            latents = model.encode(input_features=inputs).latents
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        tensors = {"latents": latents, "loss": outputs.loss.detach(), "gradient": gradient}
        return {"tokens": outputs.action_ids.cpu()} | {name: value.cpu().double() for name, value in tensors.items()}

    expected = results(torch.device("cpu"))
    settings = {"float32": (False, False, False), "bfloat16": (False, False, True)}
    if device.type == "cuda":
        defaults = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        settings |= {"TF32": (True, True, False), "torch's defaults": (*defaults, False)}
    facts = {}
    for name, (matmul, convolution, autocast) in settings.items():
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
        actual = results(device, autocast)
        facts[name] = {"equal_tokens": (actual.pop("tokens") == expected["tokens"]).double().mean().item()}
        facts[name] |= {part: _relative_difference(value, expected[part]) for part, value in actual.items()}
    exact = facts["float32"]
    passed = exact["equal_tokens"] >= 0.99 and max(exact["latents"], exact["loss"], exact["gradient"]) < 1e-3
    texts = [
        f"{name}: {fact['equal_tokens']:.1%} of the tokens equal, gradient {fact['gradient']:.0e} off"
        for name, fact in facts.items()
    ]
    return Finding(passed, "; ".join(texts), facts)


def _relative_difference(actual, expected) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def attention_agrees(sizes: Sizes) -> Finding:
    """Scores of 120 class names by each attention implementation, beside those of eager attention in float32.

    In float32, SDPA must agree. In bfloat16, SDPA and FlashAttention may be at most three times as far away as eager attention.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    from action_llm.label_scoring import LabelTrie, score_labels
    from action_llm_recipes.benchmarks import devices
    from action_llm_recipes.benchmarks.benchmark_label_scoring import (
        BenchmarkArguments,
        class_name_tokens,
        random_llama,
    )

    torch.manual_seed(0)
    arguments = BenchmarkArguments(output="", **sizes.scoring)
    model = random_llama(arguments).to(devices.device())
    prompt = torch.randint(2, arguments.vocab_size, (1, arguments.prompt_length), device=model.device)
    trie = LabelTrie(class_name_tokens())

    @torch.no_grad()
    def scores(implementation: str):
        model.set_attn_implementation(implementation)
        head, mask = lambda hidden: model.lm_head(hidden).float(), torch.ones_like(prompt)
        return score_labels(model.model, head, model.config, prompt, mask, trie)[0].cpu()

    expected = scores("eager")
    found = {"sdpa, float32": scores("sdpa")}
    model.bfloat16()
    found |= {"eager, bfloat16": scores("eager"), "sdpa, bfloat16": scores("sdpa")}
    missing = ""
    if is_flash_attn_2_available() and model.device.type != "cpu":
        found["flash, bfloat16"] = scores("flash_attention_2")
    else:
        missing = "; flash not run: it needs a GPU and the package flash-attn"
    facts = {
        name: {
            "largest_difference": (values - expected).abs().max().item(),
            "same_label": bool(values.argmax() == expected.argmax()),
        }
        for name, values in found.items()
    }
    limit = 3 * facts["eager, bfloat16"]["largest_difference"]
    passed = facts["sdpa, float32"]["largest_difference"] < 1e-3
    passed &= all(fact["largest_difference"] <= limit for fact in facts.values())
    texts = [f"{name} {fact['largest_difference']:.0e}" for name, fact in facts.items()]
    return Finding(passed, f"largest difference of a log-probability: {', '.join(texts)}{missing}", facts)


def exact_beside_greedy(sizes: Sizes) -> Finding:
    """Time of the exact scores of 120 class names, beside greedy decoding of as many tokens as a name has on average."""
    import torch

    from action_llm.label_scoring import LabelTrie, score_labels
    from action_llm.language_models import fresh_language_model
    from action_llm_recipes.benchmarks import devices
    from action_llm_recipes.benchmarks.benchmark_efficiency import llm_config
    from action_llm_recipes.benchmarks.benchmark_label_scoring import class_name_tokens, time_in_turns

    torch.manual_seed(0)
    with devices.creating():
        model = fresh_language_model(llm_config(sizes.llm)).eval()
    labels = class_name_tokens()
    trie, length = LabelTrie(labels), round(fmean(map(len, labels)))
    prompt = torch.randint(3, model.config.vocab_size, (1, 60), device=model.device)
    mask = torch.ones_like(prompt)

    def head(hidden):
        return model.lm_head(hidden).float()

    def greedy():
        return model.generate(
            prompt, attention_mask=mask, min_new_tokens=length, max_new_tokens=length, do_sample=False, pad_token_id=0
        )

    methods = {"exact": lambda: score_labels(model.model, head, model.config, prompt, mask, trie), "greedy": greedy}
    with torch.no_grad():
        time_in_turns(methods, 2)  # warms up
        seconds = time_in_turns(methods, 2 if sizes.is_tiny else 9)
    ratio = seconds["exact"] / seconds["greedy"]
    summary = f"a trie of {trie.num_nodes} nodes, beside greedy decoding of {length} tokens"
    costs = f"{ratio:.1f} × as long (goal: at most {GOAL} ×)"
    facts = {"seconds": seconds, "ratio": ratio, "goal": GOAL, "greedy_tokens": length, "nodes": trie.num_nodes}
    return Finding(sizes.is_tiny or ratio <= GOAL, summary, facts, costs)


def lora_step(sizes: Sizes) -> Finding:
    """Training steps with LoRA at the size of LLaVA-1.5-13B, whose language model has the size of LLaMA-13B."""
    return _training(sizes.lora, "lora")


def lora_clip(sizes: Sizes) -> Finding:
    """A video from its file to the probabilities of 60 classes, with LoRA."""
    return _clip(sizes.lora, "lora")


def prefix_step(sizes: Sizes) -> Finding:
    """Training steps of prompts in layers at the size of LLaVA-1.5-7B."""
    return _training(sizes.prefix, "prefix")


def prefix_clip(sizes: Sizes) -> Finding:
    """A video from its file to the probabilities of 60 classes, with prompts in layers."""
    return _clip(sizes.prefix, "prefix")


def _training(settings: dict, method: str) -> Finding:
    from action_llm_recipes.benchmarks.benchmark_efficiency import BenchmarkArguments, training

    facts = training(BenchmarkArguments(output="", **settings), method)
    summary = f"{facts['parameters']:,} weights, {facts['trainable_parameters']:,} of them trained"
    if not facts["fits"]:
        return Finding(False, f"{summary}: out of memory; {facts['state_gb']:.1f} GB without activations", facts)
    costs = (
        f"{facts['peak_memory_gb']:.1f} GB, {facts['seconds_per_micro_batch']:.3f} s for a micro-batch, "
        f"{facts['hours_per_epoch']:.2f} h for an epoch of NTU RGB+D 60"
    )
    return Finding(True, summary, facts, costs)


def _clip(settings: dict, method: str) -> Finding:
    from action_llm_recipes.benchmarks.benchmark_efficiency import PARTS, BenchmarkArguments, inference

    facts = inference(BenchmarkArguments(output="", **settings), method)
    costs = ", ".join(f"{name} {facts[name]:.3f} s" for name in PARTS)
    return Finding(True, "a video of 1920 × 1080 and 80 frames, from its file to the probabilities", facts, costs)


def qlora_step(sizes: Sizes) -> Finding:
    """QLoRA of the first layers of the language model, loaded from a folder in 4 bit as `sft.py --method qlora` does.

    The loss of a batch must fall, and the 4-bit weights must stay as they are.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise NotRun("bitsandbytes is not installed: pip install -e '.[qlora]'")
    import torch

    from action_llm import ActionLLMForConditionalGeneration, ActionVQVAEConfig, ActionVQVAEModel
    from action_llm.language_models import fresh_language_model, load_language_model
    from action_llm_recipes.benchmarks import devices
    from action_llm_recipes.benchmarks.benchmark_efficiency import (
        GIGABYTE,
        BenchmarkArguments,
        choose_weights,
        llm_config,
        prompts,
    )
    from action_llm_recipes.common.recognisers import quantization

    torch.manual_seed(0)
    config = llm_config(sizes.llm)
    num_layers = config.num_hidden_layers
    config.num_hidden_layers = sizes.layers_in_4_bit
    with tempfile.TemporaryDirectory() as folder:
        with devices.creating():
            fresh_language_model(config).save_pretrained(folder)
        llm = load_language_model(folder, None, dtype=torch.bfloat16, **quantization("qlora"))
    in_layers = sum(p.numel() * p.element_size() for p in llm.model.layers.parameters())
    action_model = ActionVQVAEModel(ActionVQVAEConfig(codebook_dim=config.hidden_size, hidden_width=16, decodes=False))
    model = ActionLLMForConditionalGeneration.from_llm(
        llm, action_token_offset=config.vocab_size, action_model=action_model.to(llm.device)
    )
    choose_weights(model, "lora")
    model.to(devices.device()).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    frozen = [weight for name, weight in model.named_parameters() if ".layers." in name and not weight.requires_grad]
    before = [weight.detach().clone() for weight in frozen]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    ids = prompts(BenchmarkArguments(output="", list_classes=False), model, 4)
    labels = ids.clone()
    labels[:, :-4] = -100
    losses = []
    for _ in range(5):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    unchanged = all(torch.equal(one, other) for one, other in zip(before, frozen, strict=True))
    facts = {
        "layers": sizes.layers_in_4_bit,
        "gb_of_all_layers": in_layers / sizes.layers_in_4_bit * num_layers / GIGABYTE,
        "losses": losses,
        "frozen_weights_unchanged": unchanged,
    }
    summary = (
        f"loss {losses[0]:.2f} → {losses[-1]:.2f} in {len(losses)} steps, {sizes.layers_in_4_bit} layers in 4 bit"
    )
    costs = f"all {num_layers} layers would take {facts['gb_of_all_layers']:.2f} GB (extrapolated)"
    return Finding(unchanged and losses[-1] < losses[0], summary, facts, costs)


def tokenisation(sizes: Sizes) -> Finding:
    """Time to turn recordings into features and action sentences, extrapolated to those of NTU RGB+D 120."""
    import torch

    from action_llm import ActionVQVAEConfig, ActionVQVAEModel, SkeletonFeatureExtractor
    from action_llm_datasets.load import load_action_dataset
    from action_llm_recipes.benchmarks import devices
    from action_llm_recipes.encode_actions import encode_features

    torch.manual_seed(0)
    model = ActionVQVAEModel(ActionVQVAEConfig(**sizes.action_model)).eval().to(devices.device())
    extractor = SkeletonFeatureExtractor(num_persons=model.config.num_persons)
    with tempfile.TemporaryDirectory() as folder:
        simulate_recordings(folder)
        split = load_action_dataset("simulated-xsub", folder, cache_dir=f"{folder}/cache")["train"]
        rows = list(split.with_format("numpy"))
    rows = [rows[index % len(rows)] for index in range(sizes.recordings)]
    features, reading = devices.timed(lambda: [extractor(row, return_tensors="pt") for row in rows])
    encode_features(model, features[:64], 64, [])  # warms up
    sentences, encoding = devices.timed(lambda: encode_features(model, features, 64, []))
    frames = fmean(part["input_features"].shape[1] for part in features)
    hours = {
        "features": reading / sizes.recordings * NTU_RECORDINGS / 3600,
        "tokens": encoding / sizes.recordings * NTU_RECORDINGS / 3600,
    }
    facts = {"recordings": sizes.recordings, "frames": frames, "seconds": {"features": reading, "tokens": encoding}}
    facts |= {"extrapolated_to": NTU_RECORDINGS, "extrapolated_hours": hours}
    costs = (
        f"features {reading:.2f} s (one process of the CPU), tokens {encoding:.2f} s; {NTU_RECORDINGS:,} would take "
        f"{hours['features']:.2f} h and {hours['tokens']:.2f} h (extrapolated)"
    )
    summary = f"{sizes.recordings:,} simulated recordings of {frames:.0f} frames"
    return Finding(all(len(sentence["action_ids"]) for sentence in sentences), summary, facts, costs)


def resuming(sizes: Sizes) -> Finding:
    """Both stages on tiny models: stopped after two of four steps and run again, they must end with the same weights.

    Where they differ, a second uninterrupted run tells how much two runs differ on this device.
    """
    # The trainers would use every GPU; a launch of several processes is another check.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    with tempfile.TemporaryDirectory() as folder:
        run = TinyRun(Path(folder))
        found = {}
        for name, stage in (("stage 1", run.train_tokenizer), ("stage 2", run.sft)):
            whole, stopped = Path(folder, name, "whole"), Path(folder, name, "stopped")
            stage(whole)
            stage(stopped)
            forget_last_steps(stopped)
            stage(stopped)
            found[name] = {"resumed": difference_of_weights(whole, stopped)}
            if found[name]["resumed"]:
                stage(Path(folder, name, "again"))
                found[name]["repeated"] = difference_of_weights(whole, Path(folder, name, "again"))
    passed = all(fact["resumed"] <= 10 * fact.get("repeated", 0.0) for fact in found.values())
    texts = [
        f"{name}: equal weights"
        if not fact["resumed"]
        else f"{name}: weights {fact['resumed']:.0e} off, those of a second run {fact['repeated']:.0e}"
        for name, fact in found.items()
    ]
    return Finding(passed, "; ".join(texts), found)


def sharded_training(sizes: Sizes) -> Finding:
    """LoRA of a tiny model by accelerate's FSDP on all GPUs, stopped and resumed, with the weights of an uninterrupted run."""
    import torch

    import action_llm_recipes

    if not torch.cuda.is_available():
        raise NotRun("accelerate runs FSDP on GPUs only; without one, it switches FSDP off and says nothing")
    recipes, processes = Path(action_llm_recipes.__file__).parent, torch.cuda.device_count()
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    launch += ["--config_file", str(recipes / "accelerate_configs" / "fsdp.yaml"), str(recipes / "sft.py")]
    with tempfile.TemporaryDirectory() as folder:
        run = TinyRun(Path(folder))
        options = run.sft_options()

        def train(output: Path):
            given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            done = subprocess.run([*launch, *given, "--output_dir", str(output)], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])

        whole, stopped = Path(folder, "whole"), Path(folder, "stopped")
        train(whole)
        train(stopped)
        forget_last_steps(stopped)
        train(stopped)
        facts = {
            "processes": processes,
            "distributed_type": json.loads((whole / "record.json").read_text())["cost"]["distributed_type"],
            "resumed": difference_of_weights(whole, stopped),
        }
    passed = facts["distributed_type"] == "FSDP" and facts["resumed"] < 1e-3
    summary = f"{facts['distributed_type']} on {processes} GPUs; resumed weights {facts['resumed']:.0e} off"
    return Finding(passed, summary, facts)


CHECKS = {
    "stage 1 beside the CPU": stage_1_agrees,
    "attention implementations": attention_agrees,
    "resuming": resuming,
    "120 exact scores": exact_beside_greedy,
    "LoRA, 13B: training": lora_step,
    "LoRA, 13B: a clip": lora_clip,
    "prompts in layers, 7B: training": prefix_step,
    "prompts in layers, 7B: a clip": prefix_clip,
    "QLoRA": qlora_step,
    "FSDP": sharded_training,
    "tokenisation": tokenisation,
}


def simulate_recordings(folder: str | os.PathLike) -> None:
    """Writes 36 simulated recordings: three people, four actions, three cameras."""
    from action_llm_datasets.simulation.simulate import simulate

    simulate(folder, performers=3, replications=1, actions=[22, 23, 27, 58], num_proc=1)


class TinyRun:
    """Recordings, a language model and the stages of LLM-AR with tiny settings, in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.recordings, self.llm = folder, folder / "recordings", folder / "llm"
        simulate_recordings(self.recordings)
        self._save_language_model()
        self.training = {"max_steps": 4, "save_steps": 2, "logging_steps": 2, "warmup_steps": 1, "disable_tqdm": True}

    def _save_language_model(self):
        from action_llm_datasets.simulation.body_text import passages
        from action_llm_recipes.pretraining import small_lm

        sizes = {"vocabulary_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}  # as LLaMA
        arguments = small_lm.SmallLMArguments(**sizes)
        text = list(passages(100))
        tokenizer = small_lm.train_tokenizer(text, arguments.vocabulary_size, arguments.max_position_embeddings)
        tokenizer.save_pretrained(self.llm)
        small_lm.make_model(arguments, tokenizer).save_pretrained(self.llm)

    def _data(self):
        from action_llm_recipes.common.data_arguments import DataArguments

        cache = str(self.folder / "cache")
        return DataArguments(dataset="simulated-xsub", data_dir=str(self.recordings), cache_dir=cache)

    def train_tokenizer(self, output: Path):
        """Stage 1, four steps, with checkpoints at the second and the fourth."""
        from action_llm_recipes import train_tokenizer as recipe
        from action_llm_recipes.stages.skeleton_stage import ActionVQVAEArguments, SkeletonArguments

        recipe.main(
            recipe.TokenizerArguments(llm_name_or_path=str(self.llm), window=32),
            self._data(),
            ActionVQVAEArguments(hidden_width=16, codebook_size=16, kmeans_init=True),
            SkeletonArguments(),
            recipe.TokenizerTrainingArguments(
                output_dir=str(output), per_device_train_batch_size=8, learning_rate=1e-3, **self.training
            ),
        )

    def sft_options(self) -> dict:
        """Options of `sft.py` without its output; trains stage 1 and writes the sentences if there are none."""
        from action_llm_recipes import encode_actions as recipe

        tokenizer, sentences = self.folder / "tokenizer", self.folder / "sentences"
        if not sentences.exists():
            self.train_tokenizer(tokenizer)
            recipe.main(
                recipe.EncodingArguments(tokenizer=str(tokenizer / "model"), output_dir=str(sentences)), self._data()
            )
        options = {"tokenizer": f"{tokenizer}/model", "sentences": str(sentences), "llm_name_or_path": str(self.llm)}
        options |= {"lora_r": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
        return options | self.training

    def sft(self, output: Path):
        """Stage 2 with LoRA, four steps, with checkpoints at the second and the fourth."""
        from action_llm_recipes import sft as recipe

        options = self.sft_options()
        names = {part.name for part in dataclasses.fields(recipe.ActionSFTArguments)}
        recipe.main(
            recipe.ActionSFTArguments(**{name: value for name, value in options.items() if name in names}),
            recipe.ActionSFTConfig(
                output_dir=str(output), **{name: value for name, value in options.items() if name not in names}
            ),
        )


def forget_last_steps(output: Path) -> None:
    """
    Leaves the folder of a finished run as if it had been killed after its second step.

    Raises:
        ValueError: if the run could not be resumed from that step. It would start again, and end with equal weights.
    """
    from action_llm_recipes.common.run_folder import RunFolder

    shutil.rmtree(output / "model")
    shutil.rmtree(output / "checkpoints" / "checkpoint-4")
    (output / "record.json").unlink()
    checkpoint = RunFolder(output).last_checkpoint()
    if checkpoint is None or checkpoint.name != "checkpoint-2":
        raise ValueError(f"{output.name}: expected the undamaged checkpoint-2, found {checkpoint}")


def difference_of_weights(one: Path, other: Path) -> float:
    """The largest difference between two weights of the models in the folders of two runs."""
    from safetensors.torch import load_file

    largest = 0.0
    for path in sorted((one / "model").rglob("*.safetensors")):
        weights, others = load_file(path), load_file(other / path.relative_to(one))
        if weights.keys() != others.keys():
            raise ValueError(
                f"{path.name}: the runs saved other weights: {sorted(weights.keys() ^ others.keys())[:3]}"
            )
        largest = max(largest, *((w.float() - others[name].float()).abs().max().item() for name, w in weights.items()))
    return largest
