"""Memory of the weights, gradients and optimiser of stage 2 at the papers' sizes, counted on the meta device.

    python recipes/benchmarks/count_memory.py --output memory

A row for each YAML file of the papers, as the cost report of `sft.py` counts it (`state_gb`): weights, gradients, and the two
moments of AdamW in float32. FSDP shares all of it among GPUs, but does not share 4-bit weights. Activations, buffers of
collective operations and the layer that FSDP gathers come on top; `device_check.py` and the cost report measure them.

Hours are computed, not measured: the arithmetic of all steps at 100 TFLOP/s. For each token, a forward pass takes two
operations per weight; recomputed activations, gradients of activations, and gradients of weights if they are trained take as
many each.
Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

from dataclasses import dataclass, field
from pathlib import Path

# YAML file → size of its language model, and number of action tokens of a prompt.
SETTINGS = {
    "llm_ar/ntu60_sft.yaml": ("llava-1.5-13b", 20),
    "llm_ar/ntu60_sft_qlora_24gb.yaml": ("llava-1.5-13b", 20),
    "llm_ar/ntu60_sft_full.yaml": ("llava-1.5-13b", 20),
    "lvlm_var/sft.yaml": ("llava-1.5-13b", 16),
    "lvlm_var/sft_full.yaml": ("llava-1.5-13b", 16),
    "vt_lvlm_ar/sft.yaml": ("llava-1.5-7b", 256),
    "vt_lvlm_ar/sft_full.yaml": ("llava-1.5-7b", 256),
}
GPUS = (1, 4, 8, 32)
# NF4 with double quantisation: 4 bits per weight, 8 bits for each block of 64 weights, 32 for each 256 blocks.
BYTES_IN_4_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass
class MemoryArguments:
    """Where the results go."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})


def count(config: str, llm: str, sentence: int) -> dict:
    """
    Counts of a YAML file in `recipes/configs`.

    Args:
        config: path of the file.
        llm: size of its language model (`benchmark_efficiency.llm_config`).
        sentence: number of action tokens of a prompt.

    Returns:
        `method`, `dtype`, what `count_state` returns, and `exaflop`, the arithmetic of the whole training.
    """
    import torch
    import yaml

    from action_llm import ActionLLMForConditionalGeneration, ActionVQVAEConfig, ActionVQVAEModel
    from action_llm.language_models import fresh_language_model
    from action_llm_recipes.benchmarks.benchmark_efficiency import (
        GIGABYTE,
        INSTRUCTION_LENGTH,
        choose_weights,
        class_list_length,
        llm_config,
    )
    from action_llm_recipes.common.run_cost import count_state

    path = Path(__file__).resolve().parents[1] / "configs" / config
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    method, dtype = settings["method"], getattr(torch, settings["dtype"])
    with torch.device("meta"):
        language_model = fresh_language_model(llm_config(llm)).to(dtype)
        width = language_model.config.hidden_size
        model = ActionLLMForConditionalGeneration.from_llm(
            language_model,
            action_token_offset=language_model.config.vocab_size,
            action_model=ActionVQVAEModel(ActionVQVAEConfig(codebook_dim=width, hidden_width=16, decodes=False)),
            prefix_length=settings["prefix_length"] if method == "prefix" else 0,
        )
        model.model.action_model = None  # has few weights, and is not trained
        lora = {name: value for name, value in settings.items() if name.startswith("lora_")}
        choose_weights(model, "lora" if method == "qlora" else method, **lora)
    counts = count_state(model)
    if method == "qlora":
        linear = [
            module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and ".layers." in name and "lora_" not in name
        ]
        saved = sum(module.weight.numel() for module in linear) * (dtype.itemsize - BYTES_IN_4_BIT)
        counts["state_gb"] = round(counts["state_gb"] - saved / GIGABYTE, 3)
    examples = settings["max_steps"] * settings["total_batch_size"]
    tokens = INSTRUCTION_LENGTH + sentence + settings.get("list_classes", False) * class_list_length()
    passes = 3 + (method == "full")
    exaflop = 2 * counts["parameters"] * tokens * examples * passes / 1e18
    return {
        "method": method,
        "dtype": settings["dtype"],
        **counts,
        "tokens": tokens,
        "examples": examples,
        "exaflop": exaflop,
    }


ARGUMENTS = (MemoryArguments,)


def main(arguments: MemoryArguments) -> dict:
    """Counts and writes the results; returns the contents of the JSON file."""
    from action_llm_recipes.benchmarks.results import write_results

    record = {config: count(config, *sizes) for config, sizes in SETTINGS.items()}
    write_results(arguments.output, record, page(record))
    return record


def page(record: dict) -> str:
    """The results as a page in Markdown."""
    heads = " | ".join(f"{number} GPUs" for number in GPUS).replace("1 GPUs", "1 GPU")
    lines = [
        "# Memory of stage 2 at the papers' sizes, in GiB on each GPU",
        "",
        "Counted, not measured: weights, gradients and AdamW, without activations. Several GPUs share them by FSDP, which does "
        "not share 4-bit weights. Hours are computed: the arithmetic of all steps, at 100 TFLOP/s of all GPUs together.",
        "",
        f"| settings | method | weights | trained | {heads} | hours at 100 TFLOP/s |",
        f"|---|---|---:|---:|{'---:|' * len(GPUS)}---:|",
    ]
    for config, row in record.items():
        is_shared = row["method"] != "qlora"
        shares = " | ".join(f"{row['state_gb'] / (gpus if is_shared else 1):.1f}" for gpus in GPUS)
        lines.append(
            f"| `{config}` | {row['method']}, {row['dtype']} | {row['parameters'] / 1e9:.2f} billion | "
            f"{row['trainable_parameters']:,} | {shares} | {row['exaflop'] * 1e4 / 3600:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
