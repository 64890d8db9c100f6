"""Which weights of a recogniser stage 2 trains, and how it saves them."""

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

# With all weights of a language model of this size trained, learning rates above the second number usually diverge. LoRA and
# prompts are trained with twenty to thirty times that.
LARGE_MODEL, HIGH_RATE = 1_000_000_000, 1e-4


def warn_of_full_training(parameters: int, learning_rate: float, dtype) -> None:
    """
    Warns of settings made for LoRA or prompts with which training all weights fails.

    Args:
        parameters: number of weights of the language model.
        learning_rate: of the training.
        dtype (`torch.dtype`): of the weights.
    """
    if parameters > LARGE_MODEL and learning_rate > HIGH_RATE:
        logger.warning(
            "learning_rate %g is for LoRA or prompts: training all weights of a language model of %.1f billion diverges above "
            "about %g. Set --learning_rate 2e-5, or use a YAML file for method full, such as ntu60_sft_full.yaml.",
            learning_rate,
            parameters / 1e9,
            HIGH_RATE,
        )
    if dtype.itemsize == 2:
        logger.warning(
            "all weights are trained in %s, which rounds most small updates away: set --dtype float32; bf16 still computes in "
            "bfloat16.",
            str(dtype).removeprefix("torch."),
        )


def choose_trained(model, method: str):
    """Sets `requires_grad` for a method of `sft.py`. For LoRA, PEFT does the rest."""
    model.requires_grad_(method == "full")
    base = model.model
    if method in ("prefix", "prompt"):
        # Latents of an action model that is not a visual encoder go through a projection that has to be learned.
        for module in (base.prefix, base.action_projector):
            if module is not None:
                module.requires_grad_(True)
    model._freeze_own_weights()
    if base.action_embedding.soft_prompts is not None:
        base.action_embedding.soft_prompts.requires_grad_(True)


def lora_config(arguments, with_projector: bool):
    """
    PEFT's `LoraConfig` for a recogniser (LoRA; LLM-AR, Eq. 13).

    Args:
        arguments (`ActionSFTArguments`): of `sft.py`.
        with_projector: whether the projection of continuous latents is trained as well.
    """
    from peft import LoraConfig

    trained_modules = ["action_embedding"] * arguments.train_action_embeddings + ["action_projector"] * with_projector
    return LoraConfig(
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        # Only layers of the language model: the action model may have layers of the same names.
        target_modules=rf".*language_model\..*\.({'|'.join(arguments.lora_target_modules)})",
        modules_to_save=trained_modules or None,
        # For a causal LM, PEFT passes arguments that a classifier does not take.
        task_type="CAUSAL_LM" if arguments.objective == "words" else None,
    )


def save_trained(trainer, folder: Path):
    """Saves the trained model as a repository. All processes must call it; the first process writes."""
    state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    if hasattr(model, "get_base_model"):
        prefix = "base_model.model."
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
        classifier = model.get_base_model().as_classifier()
        # Adapters are trained in float32, and saved in the dtype of a 16-bit model, in which they are used. Checkpoints keep
        # float32.
        if classifier.dtype.itemsize == 2:
            state_dict = {
                key: value.to(classifier.dtype) if ".lora_" in key else value for key, value in state_dict.items()
            }
    else:
        classifier = model.as_classifier()
    classifier.save_pretrained(folder, state_dict=state_dict)
