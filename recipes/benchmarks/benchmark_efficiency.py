"""Memory and time of the lines of videos on this machine: LoRA or prompts beside full tuning, and a video from file to class.

    python recipes/benchmarks/benchmark_efficiency.py --llm llava-1.5-13b --output efficiency_llava_13b
    python recipes/benchmarks/benchmark_efficiency.py --config recipes/configs/vt_lvlm_ar/efficiency.yaml --output efficiency_7b
    python recipes/benchmarks/benchmark_efficiency.py --llm runs/small_lm/model --backbone runs/video/backbone/model \\
        --height 60 --width 80 --output efficiency_small

LVLM-VAR, Table 4; VT-LVLM-AR, Table IV (the second command). The weights are random: memory and time do not depend on what
they say. `--llm` and `--backbone` are sizes that are known here by name, or a repository or folder of which the configuration
is read. Training is that of `sft.py`: micro-batches of prompts with an action sentence, LoRA r 8 on q, k, v and o, or 16
prompts in the last layers; each method runs in a process of its own, so that its peak of memory is its own. A method that does
not fit says so, with what its weights, gradients and AdamW's two moments alone would take. Writes `OUTPUT.json` and
`OUTPUT.md`.
"""

import dataclasses
import json
import multiprocessing
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace

GIGABYTE = 2**30
METHODS = {"lora": "LoRA", "prefix": "prompts in layers", "full": "all weights"}


@dataclass
class BenchmarkArguments:
    """What is measured, and how often."""

    output: str = field(metadata={"help": "path of the result without its suffix: .json and .md are written"})
    llm: str = field(
        default="llava-1.5-13b", metadata={"help": "llava-1.5-13b, llava-1.5-7b, or repository or folder"}
    )
    action_model: str = field(
        default="vst", metadata={"help": "vst, or vtem, whose tokens a projector makes words of"}
    )
    backbone: str = field(
        default="swinv2-base", metadata={"help": "swinv2-base, llava-1.5-tower, or repository or folder"}
    )
    height: int = field(default=256, metadata={"help": "of the pictures that the visual encoder sees"})
    width: int = field(default=256, metadata={"help": "of the pictures that the visual encoder sees"})
    num_segments: int = field(default=32, metadata={"help": "segments of a video"})
    frames_per_segment: int = field(default=2, metadata={"help": "frames of a segment"})
    grid: int = field(default=1, metadata={"help": "cells along height and width of a picture (vtem)"})
    methods: list[str] = field(default_factory=lambda: ["lora", "full"], metadata={"help": "lora, prefix, full"})
    micro_batch: int = field(default=4, metadata={"help": "sentences at a time in training"})
    batch: int = field(default=256, metadata={"help": "sentences between two steps of the optimiser"})
    activation_checkpointing: bool = field(default=True, metadata={"help": "in training"})
    sentence_length: int = field(default=16, metadata={"help": "action tokens of a sentence (LVLM-VAR, Fig. 1: 15.3)"})
    recordings: int = field(default=40_091, metadata={"help": "of an epoch; NTU RGB+D 60, X-Sub, by default"})
    repetitions: int = field(default=5, metadata={"help": "micro-batches and videos; the median counts"})


def llm_config(name: str):
    """Configuration of a language model."""
    from transformers import AutoConfig, LlamaConfig

    sizes = {
        "llava-1.5-13b": {"hidden_size": 5120, "intermediate_size": 13824, "layers": 40, "heads": 40},
        "llava-1.5-7b": {"hidden_size": 4096, "intermediate_size": 11008, "layers": 32, "heads": 32},
    }
    if name not in sizes:
        return AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
    size = dict(sizes[name])
    layers, heads = size.pop("layers"), size.pop("heads")
    return LlamaConfig(vocab_size=32_064, num_hidden_layers=layers, num_attention_heads=heads, **size)


def backbone_config(name: str):
    """Configuration of a visual encoder."""
    from transformers import AutoConfig, CLIPVisionConfig, Swinv2Config

    from action_llm.configuration_vtem import LLAVA_VISION_TOWER

    if name == "llava-1.5-tower":
        return CLIPVisionConfig(**LLAVA_VISION_TOWER)
    if name == "swinv2-base":
        return Swinv2Config(
            image_size=256, window_size=8, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]
        )
    return AutoConfig.from_pretrained(name, trust_remote_code=False)


def build(arguments: BenchmarkArguments, **settings):
    """An `ActionLLMForConditionalGeneration` with random weights on the device: bfloat16 on a GPU, else float32."""
    import torch
    from transformers import AutoModel

    from action_llm import ActionLLMForConditionalGeneration, VSTModel, VTEMModel
    from action_llm.language_models import VisualProjector, fresh_language_model
    from action_llm.visual_encoder import VisualEncoder

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            llm = fresh_language_model(llm_config(arguments.llm))
            backbone = AutoModel.from_config(backbone_config(arguments.backbone))
            width = llm.config.get_text_config().hidden_size
            if arguments.action_model == "vtem":
                llm.__dict__["projector"] = VisualProjector(VisualEncoder(backbone).feature_size, width)
    finally:
        torch.set_default_dtype(default)
    if arguments.action_model == "vtem":
        cells = arguments.num_segments * arguments.grid**2
        events = min(arguments.sentence_length, cells)
        layer = -2 if arguments.backbone == "llava-1.5-tower" else None
        options = {"grid": arguments.grid, "feature_layer": layer, "max_events": events, "window_cells": cells}
        action_model = VTEMModel.from_backbone(backbone, **options)
    else:
        action_model = VSTModel.from_backbone(backbone, codebook_dim=width)
    model = ActionLLMForConditionalGeneration.from_llm(
        llm,
        action_token_offset=llm.get_input_embeddings().weight.shape[0],
        action_model=action_model.to(device),
        **settings,
    )
    return model.to(device)


def prompts(arguments: BenchmarkArguments, model, count: int):
    """Random prompts of NTU's length with an action sentence in them: int64 (count, 24 + sentence_length)."""
    import torch

    words = torch.randint(3, model.config.action_token_offset, (count, 24 + arguments.sentence_length))
    actions = torch.randint(model.config.num_action_tokens, (count, arguments.sentence_length))
    words[:, 10 : 10 + arguments.sentence_length] = model.config.action_token_offset + actions
    return words.to(model.device)


def training(arguments: BenchmarkArguments, method: str) -> dict:
    """Parameters, memory and time of one way of training."""
    import torch
    from peft import get_peft_model

    from action_llm_recipes.sft import ActionSFTArguments, lora_config
    from action_llm_recipes.stages.trained_weights import choose_trained

    torch.manual_seed(0)
    model = build(arguments, **({"prefix_length": 16} if method == "prefix" else {}))
    # What writes the sentences is no part of stage 2.
    model.model.action_model = None
    total = sum(parameter.numel() for parameter in model.parameters())
    if method == "lora":
        # Of the arguments of sft.py those of LoRA: there are no folders that it could check.
        settings = {field.name: field.default for field in dataclasses.fields(ActionSFTArguments)} | {
            "lora_r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.1,
            "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        }
        model.requires_grad_(False)
        model = get_peft_model(model, lora_config(SimpleNamespace(**settings), with_projector=False))
    else:
        choose_trained(model, method)
    if arguments.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainable = sum(parameter.numel() for parameter in trained)
    state = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    state += sum(3 * parameter.numel() * parameter.element_size() for parameter in trained)
    found = {
        "parameters": total,
        "trainable_parameters": trainable,
        "trainable_share": trainable / total,
        "state_gb": state / GIGABYTE,
    }
    try:
        found |= _steps(arguments, model, trained)
    except torch.OutOfMemoryError:
        found["fits"] = False
    return found


def _steps(arguments: BenchmarkArguments, model, trained) -> dict:
    import torch

    from action_llm_recipes.common.run_cost import peak_memory

    cuda = torch.cuda.is_available()
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model

    def timed(work) -> float:
        started = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def micro_batch():
        ids = prompts(arguments, base, arguments.micro_batch)
        labels = ids.clone()
        labels[:, :-4] = -100
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()

    def step():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    micro_batch()  # warms up, and makes what the optimiser keeps
    step()
    micro = median(timed(micro_batch) for _ in range(arguments.repetitions))
    steps = []
    for _ in range(arguments.repetitions):
        micro_batch()
        steps.append(timed(step))
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory()
    seconds = arguments.recordings * (micro / arguments.micro_batch + median(steps) / arguments.batch)
    return {
        "fits": True,
        "seconds_per_micro_batch": micro,
        "seconds_per_optimizer_step": median(steps),
        "hours_per_epoch": seconds / 3600,
        "peak_memory_gb": peak / GIGABYTE,
    }


def inference(arguments: BenchmarkArguments) -> dict:
    """Seconds from the file of a video to its class among 60, in parts; medians."""
    import numpy as np
    import torch

    from action_llm import VideoFeatureExtractor
    from action_llm_datasets.rendering import write_video
    from action_llm_recipes.benchmarks.benchmark_label_scoring import class_name_tokens

    torch.manual_seed(0)
    generator = build(arguments).eval()
    model, cuda = generator.as_classifier().eval(), torch.cuda.is_available()
    extractor = VideoFeatureExtractor(
        arguments.num_segments, arguments.frames_per_segment, height=arguments.height, width=arguments.width
    )
    names = class_name_tokens()[:60]
    # Numbered anew, so that they fit into a small vocabulary, too: what counts is what names share, and how long they are.
    numbers = {token: number for number, token in enumerate(sorted({token for name in names for token in name}))}
    label_ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([numbers[token] for token in name]) for name in names], batch_first=True, padding_value=-100
    )
    prompt = prompts(arguments, model, 1)
    asked = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "label_ids": label_ids}
    action_model = model.model.action_model
    seconds: dict[str, list[float]] = {}

    @torch.no_grad()
    def timed(name: str, work):
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        result = work()
        if cuda:
            torch.cuda.synchronize()
        seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "clip.mp4")
        noise = np.random.default_rng(0).integers(0, 80, (1080, 2240, 3), dtype=np.uint8)
        write_video(video, (noise[None, :, 4 * t : 4 * t + 1920] for t in range(80)), 30)
        for _ in range(arguments.repetitions + 1):
            features = timed("decoding", lambda: extractor(video)).to(model.device)
            timed("action tokens", lambda given=features: action_model.encode(**given))
            timed("probabilities of 60 classes", lambda: model(**asked))
            timed("the likeliest class alone", lambda: model.most_likely_label(**asked))
    return {name: median(values[1:]) for name, values in seconds.items()}


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.run_folder import describe_hardware

    context = multiprocessing.get_context("spawn")
    result = {"arguments": asdict(arguments), "training": {}}
    for method in arguments.methods:
        if method not in METHODS:
            raise ValueError(f"methods: expected some of {', '.join(METHODS)}, found {method!r}.")
        with context.Pool(1) as pool:
            result["training"][method] = pool.apply(training, (arguments, method))
    with context.Pool(1) as pool:
        result["inference"] = pool.apply(inference, (arguments,))
    del result["arguments"]["output"]
    result["hardware"] = describe_hardware()
    write_atomically(Path(f"{arguments.output}.json"), json.dumps(result, indent=1) + "\n")
    write_atomically(Path(f"{arguments.output}.md"), report(result))
    return result


def report(result: dict) -> str:
    """Markdown with the rows of LVLM-VAR's Table 4 and of VT-LVLM-AR's Table IV."""
    arguments, found = result["arguments"], result["training"]
    columns = list(found)

    def row(name: str, say) -> str:
        cells = (say(found[method]) if found[method]["fits"] else "does not fit" for method in columns)
        return f"| {name} | {' | '.join(cells)} |"

    parts = result["inference"]
    whole = parts["decoding"] + parts["action tokens"] + parts["probabilities of 60 classes"]
    lines = [
        f"# Memory and time: {'/'.join(Path(arguments['llm']).parts[-2:])} with "
        f"{'/'.join(Path(arguments['backbone']).parts[-2:])}",
        "",
        f"Measured on {result['hardware']}, medians of {arguments['repetitions']}, random weights. Micro-batches of "
        f"{arguments['micro_batch']}, steps of {arguments['batch']}, an epoch of {arguments['recordings']:,} recordings, "
        f"{arguments['sentence_length']} action tokens a sentence.",
        "",
        f"| training | {' | '.join(METHODS[method] for method in columns)} |",
        "|---|" + "---:|" * len(columns),
        "| trained parameters | "
        + " | ".join(
            f"{found[method]['trainable_parameters']:,} ({found[method]['trainable_share']:.2%})" for method in columns
        )
        + " |",
        row("seconds a micro-batch", lambda one: f"{one['seconds_per_micro_batch']:.3f}"),
        row("hours an epoch", lambda one: f"{one['hours_per_epoch']:.2f}"),
        row("memory at its peak, GB", lambda one: f"{one['peak_memory_gb']:.1f}"),
        "| of that weights, gradients, AdamW (computed), GB | "
        + " | ".join(f"{found[method]['state_gb']:.1f}" for method in columns)
        + " |",
        "",
        "| a video of 1920 × 1080, 80 frames | seconds |",
        "|---|---:|",
        *(f"| {name} | {value:.3f} |" for name, value in parts.items()),
        f"| **from its file to the probabilities** | **{whole:.3f}** |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
