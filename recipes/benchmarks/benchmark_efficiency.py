"""Memory and time of the video pipelines: LoRA or prompts beside full fine-tuning, and a video from its file to its class.

    python recipes/benchmarks/benchmark_efficiency.py --llm llava-1.5-13b --output efficiency_llava_13b
    python recipes/benchmarks/benchmark_efficiency.py --config recipes/configs/vt_lvlm_ar/efficiency.yaml --output efficiency_7b
    python recipes/benchmarks/benchmark_efficiency.py --llm runs/small_lm/model --backbone runs/video/backbone/model \\
        --height 60 --width 80 --output efficiency_small

LVLM-VAR, Table 4; VT-LVLM-AR, Table IV (the second command). The weights are random, since memory and time do not depend on
their values. `--llm` and `--backbone` are names of sizes, or a repository or folder whose configuration is read. Training is as
in `sft.py`: micro-batches of prompts with an action sentence and the list of the 60 classes of NTU RGB+D, LoRA with rank 8 on
q, k, v and o, or 16 prompts in the last layers. Videos are recognised with the same adapters and prompts. Each method trains in
a process of its own, whose peak memory is measured. If a method does not fit into memory, the page says so, and how much its
weights, gradients and AdamW's two moments would take. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import dataclasses
import functools
import multiprocessing
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace

GIGABYTE = 2**30
METHODS = {"lora": "LoRA", "prefix": "prompts in layers", "full": "all weights"}
# Tokens of the instruction and of the chat format around it.
INSTRUCTION_LENGTH = 24
# Parts of the way from a video file to the probabilities of its classes.
PARTS = ("decoding", "action tokens", "probabilities of 60 classes")


@dataclass
class BenchmarkArguments:
    """What is measured, and how often."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    llm: str = field(
        default="llava-1.5-13b", metadata={"help": "llava-1.5-13b, llava-1.5-7b, tiny, or a repository or folder"}
    )
    action_model: str = field(default="vst", metadata={"help": "vst, or vtem, whose tokens pass through a projector"})
    backbone: str = field(
        default="swinv2-base", metadata={"help": "swinv2-base, llava-1.5-tower, tiny, or a repository or folder"}
    )
    height: int = field(default=256, metadata={"help": "height in pixels of the visual encoder's input"})
    width: int = field(default=256, metadata={"help": "width in pixels of the visual encoder's input"})
    num_segments: int = field(default=32, metadata={"help": "segments per video"})
    frames_per_segment: int = field(default=2, metadata={"help": "frames per segment"})
    grid: int = field(default=1, metadata={"help": "cells along height and width of a frame (vtem)"})
    methods: list[str] = field(
        default_factory=lambda: ["lora", "full"], metadata={"help": "ways of training: lora, prefix, full"}
    )
    micro_batch: int = field(default=4, metadata={"help": "sentences in a micro-batch"})
    batch: int = field(default=256, metadata={"help": "sentences per optimiser step"})
    activation_checkpointing: bool = field(
        default=True, metadata={"help": "recompute activations in the backward pass"}
    )
    sentence_length: int = field(default=16, metadata={"help": "action tokens per sentence (LVLM-VAR, Fig. 1: 15.3)"})
    list_classes: bool = field(
        default=True,
        metadata={"help": "list the classes in the prompt, as vt_lvlm_ar/sft.yaml does; lvlm_var/sft.yaml does not"},
    )
    recordings: int = field(
        default=40_091, metadata={"help": "recordings per epoch; by default those of NTU RGB+D 60, X-Sub"}
    )
    repetitions: int = field(default=5, metadata={"help": "measured micro-batches and videos; the median is reported"})


def llm_config(name: str):
    """Configuration of a language model, by the name of a size or from a repository or folder."""
    from transformers import AutoConfig, LlamaConfig

    sizes = {
        "llava-1.5-13b": {"hidden_size": 5120, "intermediate_size": 13824, "layers": 40, "heads": 40},
        "llava-1.5-7b": {"hidden_size": 4096, "intermediate_size": 11008, "layers": 32, "heads": 32},
        "tiny": {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2},
    }
    if name not in sizes:
        return AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
    size = dict(sizes[name])
    layers, heads = size.pop("layers"), size.pop("heads")
    return LlamaConfig(vocab_size=32_064, num_hidden_layers=layers, num_attention_heads=heads, **size)


def backbone_config(name: str):
    """Configuration of a visual encoder, by the name of a size or from a repository or folder."""
    from transformers import AutoConfig, CLIPVisionConfig, ResNetConfig, Swinv2Config

    from action_llm.configuration_vtem import LLAVA_VISION_TOWER

    if name == "llava-1.5-tower":
        return CLIPVisionConfig(**LLAVA_VISION_TOWER)
    if name == "swinv2-base":
        return Swinv2Config(
            image_size=256, window_size=8, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32]
        )
    if name == "tiny":
        return ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return AutoConfig.from_pretrained(name, trust_remote_code=False)


def build(arguments: BenchmarkArguments, method: str):
    """
    A recogniser with random weights, in bfloat16 on an accelerator, else in float32 on the CPU.

    Args:
        arguments: of the benchmark.
        method: "lora", "prefix" or "full"; the weights that it trains have `requires_grad`.

    Returns:
        An `ActionLLMForConditionalGeneration`, with PEFT's layers for LoRA.
    """
    from transformers import AutoModel

    from action_llm import ActionLLMForConditionalGeneration, VSTModel, VTEMModel
    from action_llm.language_models import VisualProjector, fresh_language_model
    from action_llm.visual_encoder import VisualEncoder
    from action_llm_recipes.benchmarks import devices

    with devices.creating():
        llm = fresh_language_model(llm_config(arguments.llm))
        backbone = AutoModel.from_config(backbone_config(arguments.backbone))
        width = llm.config.get_text_config().hidden_size
        if arguments.action_model == "vtem":
            llm.__dict__["projector"] = VisualProjector(VisualEncoder(backbone).feature_size, width)
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
        action_model=action_model.to(devices.device()),
        prefix_length=16 if method == "prefix" else 0,
    )
    choose_weights(model, method)
    return model.to(devices.device())


def choose_weights(model, method: str, **lora) -> None:
    """
    Sets `requires_grad` of the weights that a way of training trains; for LoRA, adds adapters.

    Args:
        model: the recogniser; PEFT's layers are put into the model itself.
        method: "lora", "prefix" or "full".
        **lora: arguments of `sft.py` such as `lora_r`; by default those of LVLM-VAR.
    """
    from peft import get_peft_model

    from action_llm_recipes.sft import ActionSFTArguments, lora_config
    from action_llm_recipes.stages.trained_weights import choose_trained

    if method == "lora":
        # The default arguments of sft.py, without its checks of folders.
        settings = {field.name: field.default for field in dataclasses.fields(ActionSFTArguments)} | {
            "lora_r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.1,
            "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        }
        model.requires_grad_(False)
        get_peft_model(model, lora_config(SimpleNamespace(**settings | lora), with_projector=False))
    else:
        choose_trained(model, method)


@functools.cache
def class_list_length() -> int:
    """Number of tokens of the list of the 60 classes of NTU RGB+D."""
    from action_llm_datasets.protocols import ntu_class_names
    from action_llm_recipes.benchmarks.benchmark_label_scoring import text_tokenizer

    return len(text_tokenizer().encode(", ".join(ntu_class_names()[:60])).ids)


def prompts(arguments: BenchmarkArguments, model, count: int):
    """Random prompts as long as those of NTU RGB+D 60, with an action sentence: int64 (count, length)."""
    import torch

    words = INSTRUCTION_LENGTH + arguments.list_classes * class_list_length()
    words = torch.randint(3, model.config.action_token_offset, (count, words + arguments.sentence_length))
    actions = torch.randint(model.config.num_action_tokens, (count, arguments.sentence_length))
    words[:, 10 : 10 + arguments.sentence_length] = model.config.action_token_offset + actions
    return words.to(model.device)


def training(arguments: BenchmarkArguments, method: str) -> dict:
    """Numbers of parameters, memory and time of a way of training."""
    import torch

    torch.manual_seed(0)
    model = build(arguments, method)
    # Stage 2 trains without the action model.
    model.model.action_model = None
    total = sum(parameter.numel() for parameter in model.parameters())
    if arguments.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trainable = sum(parameter.numel() for parameter in trained)
    state = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    state += sum(3 * parameter.numel() * parameter.element_size() for parameter in trained)
    result = {
        "parameters": total,
        "trainable_parameters": trainable,
        "trainable_share": trainable / total,
        "state_gb": state / GIGABYTE,
    }
    try:
        result |= time_steps(arguments, model, trained)
    except torch.OutOfMemoryError:
        result["fits"] = False
    return result


def time_steps(arguments: BenchmarkArguments, model, trained) -> dict:
    """Time of micro-batches and optimiser steps, the peak memory, and the last loss."""
    import torch

    from action_llm_recipes.benchmarks import devices

    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def micro_batch():
        ids = prompts(arguments, model, arguments.micro_batch)
        labels = ids.clone()
        labels[:, :-4] = -100
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss.backward()
        return loss

    def step():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    micro_batch()  # warms up, and allocates the state of the optimiser
    step()
    micro = median(devices.timed(micro_batch)[1] for _ in range(arguments.repetitions))
    steps = []
    for _ in range(arguments.repetitions):
        loss = micro_batch()
        steps.append(devices.timed(step)[1])
    seconds = arguments.recordings * (micro / arguments.micro_batch + median(steps) / arguments.batch)
    return {
        "fits": True,
        "seconds_per_micro_batch": micro,
        "seconds_per_optimizer_step": median(steps),
        "hours_per_epoch": seconds / 3600,
        "peak_memory_gb": devices.peak_memory() / GIGABYTE,
        "loss": loss.item(),
    }


def inference(arguments: BenchmarkArguments, method: str) -> dict:
    """Median seconds of each part of the way from a video file to its class among 60, with the model of a way of training."""
    import numpy as np
    import torch

    from action_llm import VideoFeatureExtractor
    from action_llm_datasets.rendering import write_video
    from action_llm_recipes.benchmarks import devices
    from action_llm_recipes.benchmarks.benchmark_label_scoring import class_name_tokens

    torch.manual_seed(0)
    model = build(arguments, method).as_classifier().eval()
    extractor = VideoFeatureExtractor(
        arguments.num_segments, arguments.frames_per_segment, height=arguments.height, width=arguments.width
    )
    names = class_name_tokens()[:60]
    # Token ids from 0 fit into a small vocabulary; the time depends only on lengths and shared prefixes of names.
    ids = {token: index for index, token in enumerate(sorted({token for name in names for token in name}))}
    label_ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([ids[token] for token in name]) for name in names], batch_first=True, padding_value=-100
    )
    prompt = prompts(arguments, model, 1)
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "label_ids": label_ids}
    action_model = model.model.action_model
    seconds: dict[str, list[float]] = {}

    @torch.no_grad()
    def timed(name: str, work):
        result, taken = devices.timed(work)
        seconds.setdefault(name, []).append(taken)
        return result

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "clip.mp4")
        noise = np.random.default_rng(0).integers(0, 80, (1080, 2240, 3), dtype=np.uint8)
        write_video(video, (noise[None, :, 4 * t : 4 * t + 1920] for t in range(80)), 30)
        for _ in range(arguments.repetitions + 1):
            features = timed("decoding", lambda: extractor(video)).to(model.device)
            timed("action tokens", lambda features=features: action_model.encode(**features))
            timed("probabilities of 60 classes", lambda: model(**inputs))
    return {name: median(values[1:]) for name, values in seconds.items()}


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.common.run_folder import describe_hardware

    context = multiprocessing.get_context("spawn")
    result = {"arguments": asdict(arguments), "training": {}, "inference": {}}
    for method in arguments.methods:
        if method not in METHODS:
            raise ValueError(f"methods: expected some of {', '.join(METHODS)}, found {method!r}.")
        with context.Pool(1) as pool:
            result["training"][method] = pool.apply(training, (arguments, method))
        with context.Pool(1) as pool:
            result["inference"][method] = pool.apply(inference, (arguments, method))
    del result["arguments"]["output"]
    result["hardware"] = describe_hardware()
    write_results(arguments.output, result, report(result))
    return result


def report(result: dict) -> str:
    """The results as a page in Markdown, with the rows of LVLM-VAR's Table 4 and VT-LVLM-AR's Table IV."""
    arguments, training = result["arguments"], result["training"]
    columns = list(training)

    def row(name: str, key: str, digits: int) -> str:
        cells = (f"{training[m][key]:.{digits}f}" if training[m]["fits"] else "does not fit" for m in columns)
        return f"| {name} | {' | '.join(cells)} |"

    inference = [result["inference"][method] for method in columns]
    totals = [sum(parts[name] for name in PARTS) for parts in inference]
    listed = f", {class_list_length()} tokens of class names" if arguments["list_classes"] else ""
    heads, rule = " | ".join(METHODS[method] for method in columns), "|---|" + "---:|" * len(columns)
    lines = [
        f"# Memory and time: {'/'.join(Path(arguments['llm']).parts[-2:])} with "
        f"{'/'.join(Path(arguments['backbone']).parts[-2:])}",
        "",
        f"Measured on {result['hardware']}; medians of {arguments['repetitions']}; random weights. Micro-batches of "
        f"{arguments['micro_batch']} sentences, {arguments['batch']} per optimiser step, {arguments['recordings']:,} "
        f"recordings per epoch. A prompt has {INSTRUCTION_LENGTH} tokens of the instruction{listed} and "
        f"{arguments['sentence_length']} action tokens.",
        "",
        f"| training | {heads} |",
        rule,
        "| trainable parameters | "
        + " | ".join(
            f"{training[method]['trainable_parameters']:,} ({training[method]['trainable_share']:.2%})"
            for method in columns
        )
        + " |",
        row("seconds per micro-batch", "seconds_per_micro_batch", 3),
        row("hours per epoch", "hours_per_epoch", 2),
        row("peak memory, GB", "peak_memory_gb", 1),
        "| weights, gradients and AdamW's moments (computed), GB | "
        + " | ".join(f"{training[method]['state_gb']:.1f}" for method in columns)
        + " |",
        "",
        f"| a video of 1920 × 1080, 80 frames: seconds | {heads} |",
        rule,
        *(f"| {name} | {' | '.join(f'{parts[name]:.3f}' for parts in inference)} |" for name in inference[0]),
        f"| **total, from the file to the probabilities** | {' | '.join(f'**{total:.3f}**' for total in totals)} |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
