"""
Stage 2: train a language model to read action sentences (LLM-AR, section 3.2; LoRA, Eq. 13).

```bash
accelerate launch recipes/sft.py --config recipes/configs/llm_ar/small_sft.yaml \\
    --tokenizer runs/utd_mhad/tokenizer/model \\
    --sentences runs/utd_mhad/sentences \\
    --llm_name_or_path runs/small_lm/model \\
    --output_dir runs/utd_mhad/sft
```

`--method` is one of

- `lora`: low-rank adapters; `qlora`: the same, with the language model in 4 bit;
- `prefix`: P-Tuning v2, trained prompts in some layers (VT-LVLM-AR, section III.B); `prompt`: soft prompts at the input;
- `full`: all weights of the language model (LLM-AR, Table 7, "all tuning");
- `none`: no training (zero-shot).

The recogniser in `OUTPUT_DIR/model` loads with `AutoModel.from_pretrained(folder, trust_remote_code=True)`. Runs resume
automatically from their last checkpoint.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.fingerprints import weights_fingerprint
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.recognisers import quantization
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.stage_records import llm_training
from action_llm_recipes.common.training_arguments import RunTrainingArguments
from action_llm_recipes.common.without_gpu import fit_language_model
from action_llm_recipes.common.written_folders import check_language_model, check_model_folder, check_written_folder
from action_llm_recipes.stages.chat_formats import chat_format_of
from action_llm_recipes.stages.prompts import explained, tokenize, tokenize_explanations
from action_llm_recipes.stages.standardized_words import standardized_words
from action_llm_recipes.stages.trained_weights import choose_trained, lora_config, save_trained, warn_of_full_training

logger = logging.getLogger(__name__)


@dataclass
class ActionSFTArguments:
    """The sentences, the language model, and how it is trained."""

    tokenizer: str = field(metadata={"help": "folder of the action model that wrote the sentences"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote"})
    llm_name_or_path: str = field(
        metadata={
            "help": "causal language model: Hub repository, folder, GGUF file (FILE.gguf, or OWNER/NAME:FILE.gguf on the "
            "Hub), or smollm2. Weights from a path are saved with the recogniser; others are referred to by name. If it "
            "replaces that of a YAML file, the llm_revision of the file is not used, and lora_target_modules must name layers "
            "of the new model"
        }
    )
    llm_revision: str | None = field(
        default=None,
        metadata={"help": "commit of the repository of the language model", "belongs_to": "llm_name_or_path"},
    )
    method: Literal["lora", "qlora", "prefix", "prompt", "full", "none"] = field(
        default="lora", metadata={"help": "which weights of the language model are trained"}
    )
    objective: Literal["words", "classes"] = field(
        default="words",
        metadata={
            "help": "training loss. words: cross-entropy of the words of the class name (LLM-AR, Eq. 13). classes: "
            "cross-entropy over the class list, for which the model scores every class name after every sentence"
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "label smoothing over the class list, from 0 to below 1 (objective classes)"},
    )
    constrained_scoring: bool = field(
        default=False,
        metadata={
            "help": "score class names by constrained decoding: each step is renormalised over the tokens that can continue "
            "a class name. By default, names are scored among all texts and normalised over the class list (VT-LVLM-AR, Eq. 7)",
            "formerly": "restrict_names",
        },
    )
    lora_r: int = field(default=64, metadata={"help": "rank of LoRA"})
    lora_alpha: int = field(default=16, metadata={"help": "scale of LoRA; its output is multiplied by alpha / rank"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout on the input of LoRA"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "names of the layers that get an adapter"}
    )
    hidden_dropout: float = field(
        default=0.0,
        metadata={
            "help": "dropout in the language model, on word embeddings, in each layer and on its output; helps with few "
            "recordings"
        },
    )
    prefix_length: int = field(
        default=16, metadata={"help": "number of prompts per layer (method prefix), or at the input (prompt)"}
    )
    prefix_layers: list[int] | None = field(
        default=None,
        metadata={"help": "layers with prompts (method prefix); by default the last 9/32 of the layers"},
    )
    train_action_embeddings: bool = field(
        default=False, metadata={"help": "also train the embeddings of action words"}
    )
    standardize_words: bool = field(
        default=False,
        metadata={
            "help": "shift and scale each channel of the action words, so that those of the training sentences have the mean "
            "and standard deviation of the words of the language model; by default the codes are used unchanged (LLM-AR)"
        },
    )
    injection_layer: int | None = field(
        default=None,
        metadata={
            "help": "layer before which continuous latents replace the hidden states (LLM-AR, Table 5). By default used only "
            "if the action model has no codebook: the middle layer, or layer 0 for visual events"
        },
    )
    instruction: str | None = field(
        default=None, metadata={"help": "instruction of the prompt, with a place for the sentence: {tokens}"}
    )
    instruction_with_classes: str | None = field(
        default=None, metadata={"help": "instruction of prompts with a class list, with {tokens} and {classes}"}
    )
    instruction_to_explain: str | None = field(
        default=None, metadata={"help": "instruction that asks for a description, with {tokens}"}
    )
    chat_format: str | None = field(
        default=None,
        metadata={
            "help": "text of a chat up to the answer, such as 'USER: {instruction} ASSISTANT:'. By default, that of the chat "
            "template of the language model's tokenizer; without a template, the prompt is the instruction alone: "
            "'{instruction}'",
            "belongs_to": "llm_name_or_path",
        },
    )
    list_classes: bool = field(default=False, metadata={"help": "list the classes in the prompt"})
    listed_classes: int | None = field(
        default=None,
        metadata={
            "help": "number of classes in the list of a training prompt: the recording's own and others at random, in a random "
            "order, so that the model learns to choose from any list (open vocabulary); by default all, in the order of labels"
        },
    )
    explanations: bool = field(
        default=False,
        metadata={"help": "also train to describe recordings (encode_actions.py --explanations)"},
    )
    explanation_share: float = field(
        default=0.1,
        metadata={
            "help": "share of the explained sentences whose explanation is trained. The loss is a mean over words, and an "
            "explanation has about ten times as many words as a class name"
        },
    )
    run_lengths: bool = field(
        default=False,
        metadata={"help": "write the run length after each token, where the action model merges equal tokens"},
    )
    hold_out: bool = field(
        default=False,
        metadata={"help": "leave the held-out training subjects out of training, and evaluate the loss on them"},
    )
    early_stopping: int | None = field(
        default=None,
        metadata={
            "help": "number of evaluations (eval_steps) without a lower loss on the held-out subjects after which training "
            "stops; needs hold_out, eval_strategy and load_best_model_at_end"
        },
    )
    dtype: str = field(default="auto", metadata={"help": "dtype of the language model"})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "attention of the language model: sdpa, eager, flash_attention_2"}
    )

    def __post_init__(self):
        check_model_folder(self.tokenizer)
        check_written_folder(self.sentences, "encode_actions.py")
        check_language_model(self.llm_name_or_path)


@dataclass
class ActionSFTConfig(RunTrainingArguments, base="trl.SFTConfig"):
    """
    `SFTConfig` with the settings of LLM-AR (section 4.2).

    The paper's 75,000 iterations are read as micro-batches of 4, as in the code that it builds on: 1,172 optimiser steps of
    256.
    """

    output_dir: str = field(default="runs/sft", metadata={"help": "folder of the run"})
    learning_rate: float = 3e-3
    lr_scheduler_type: str = "constant_with_warmup"
    warmup_steps: float = 100
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 64
    max_steps: int = 1172
    logging_steps: float = 10
    save_steps: float = 100
    save_total_limit: int | None = 2
    bf16: bool | None = field(default=None, metadata={"help": "train in bfloat16; by default if there is a GPU"})
    activation_checkpointing: bool | None = False
    # Prompts that are too long are an error here; TRL would truncate or drop them.
    max_length: int | None = None
    completion_only_loss: bool | None = True

    def __post_init__(self):
        import torch

        if self.bf16 is None:
            self.bf16 = torch.cuda.is_available()
        super().__post_init__()


ARGUMENTS = (ActionSFTArguments, ActionSFTConfig)


@writes_output_dir
def main(arguments: ActionSFTArguments, training: ActionSFTConfig):
    """Trains a recogniser in the folder of the run, and writes its record."""
    import transformers

    from action_llm.language_models import language_model_tokenizer
    from action_llm_recipes.common.action_sentences import load_action_sentences
    from action_llm_recipes.common.data_arguments import without_held_out
    from action_llm_recipes.common.run_cost import count_parameters
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.split_evidence import LANGUAGE_MODEL, SplitEvidence

    arguments = fit_language_model(arguments, training)
    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, training)
    sentences = load_action_sentences(arguments.sentences)
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights")
    if not run.begin_training(training, {"sentences": identity}):
        return

    rows = without_held_out(sentences["train"], arguments.hold_out)
    before = {
        "sentences": read_written(arguments.sentences, "record.json", "encode_actions.py"),
        "llm_training": llm_training(arguments.llm_name_or_path, arguments.llm_revision),
    }
    evidence = SplitEvidence.of_sentences(
        arguments.sentences, sentences, [arguments.llm_name_or_path], hold_out=arguments.hold_out
    )
    evidence.check_training(before, untrained=(LANGUAGE_MODEL,))
    text = language_model_tokenizer(arguments.llm_name_or_path, arguments.llm_revision)
    action_model = load_action_model(arguments, identity["weights"])
    arguments.injection_layer = choose_injection_layer(arguments, action_model.config)
    check_settings({**vars(arguments), **vars(training)}, reads_latents=arguments.injection_layer is not None)
    arguments.chat_format = arguments.chat_format or chat_format_of(text)
    processor = make_processor(arguments, text, rows.features["label"].names, action_model.config)
    llm = load_llm(arguments)
    # Counted before an adapter is added.
    llm_parameters = count_parameters(llm.parameters())
    if arguments.method == "full":
        warn_of_full_training(llm_parameters, training.learning_rate, llm.dtype)
    reference = llm_reference(arguments)
    model = make_recogniser(arguments, llm, action_model, processor, rows, reference)
    train_dataset, eval_dataset = make_examples(arguments, training, sentences["train"], rows, processor, model.config)

    if arguments.method == "none":
        if training.process_index == 0:
            model.as_classifier().save_pretrained(run.model)
        outcome = Outcome()
    else:
        outcome = train(arguments, training, run, model, processor, rows, train_dataset, eval_dataset)
    if training.process_index != 0:
        return
    processor.save_pretrained(run.model)
    run.write_record(
        evidence,
        stage="sft",
        method=arguments.method,
        llm=reference.get("llm_name_or_path")
        or f"{llm.config.model_type} of {llm_parameters:,} parameters, weights in this repository",
        llm_revision=reference.get("llm_revision"),
        llm_sha256=reference.get("llm_sha256"),
        training_classes=processor.class_names,
        hold_out=arguments.hold_out,
        seed=training.seed,
        dtype=str(model.dtype).removeprefix("torch."),
        settings=record_of_settings(arguments, training, model, outcome),
        **before,
        examples=len(train_dataset),
        cost=outcome.cost,
        final_loss=outcome.loss,
    )
    facts = [] if outcome.loss is None else [f"loss {outcome.loss:.3g}"]
    run.log_finished("Language model", *(["not trained"] if arguments.method == "none" else facts))
    logger.info("  in %s", run.model)


def load_action_model(arguments: ActionSFTArguments, weights: str):
    """
    Loads the action model that wrote the sentences, without its decoder.

    Raises:
        ValueError: if its fingerprint is not `weights`.
    """
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(arguments.tokenizer, trust_remote_code=False)
    if hasattr(config, "decodes"):
        config.decodes = False
    action_model = AutoModel.from_pretrained(arguments.tokenizer, config=config, trust_remote_code=False)
    if weights != weights_fingerprint(action_model):
        raise ValueError(
            f"{arguments.sentences} was not written by the action model in {arguments.tokenizer}: run encode_actions.py with "
            "that model, or name another --tokenizer."
        )
    return action_model


def load_llm(arguments: ActionSFTArguments):
    """Loads the language model, in 4 bit for QLoRA."""
    from action_llm.language_models import load_language_model

    return load_language_model(
        arguments.llm_name_or_path,
        arguments.llm_revision,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
        **quantization(arguments.method),
    )


def choose_injection_layer(arguments: ActionSFTArguments, config) -> int | None:
    """
    The layer before which continuous latents are injected (LLM-AR, Table 5); None for sentences of tokens.

    Args:
        arguments: of the recipe. Their `injection_layer` is returned if it is set.
        config: of the action model.
    """
    from action_llm.language_models import language_model_config

    if config.quantize or arguments.injection_layer is not None:
        return arguments.injection_layer
    if config.model_type == "vtem":  # the projector embeds visual events as words
        return 0
    llm_config = language_model_config(arguments.llm_name_or_path, arguments.llm_revision)
    return llm_config.get_text_config().num_hidden_layers // 2


def make_processor(arguments: ActionSFTArguments, text, class_names: list[str], config, processor_class=None):
    """
    The processor of the recogniser.

    Args:
        arguments: of the recipe.
        text: tokenizer of the language model.
        class_names: the class list.
        config: of the action model.
        processor_class: by default `ActionLLMProcessor`.
    """
    from action_llm import ActionLLMProcessor
    from action_llm.processing_action_llm import load_feature_extractor

    names = ("instruction", "instruction_with_classes", "instruction_to_explain", "chat_format")
    instructions = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if "instruction" in instructions and "instruction_with_classes" not in instructions:
        logger.warning(
            "instruction is set but instruction_with_classes is not: prompts with a class list have the default instruction."
        )
    return (processor_class or ActionLLMProcessor)(
        load_feature_extractor(arguments.tokenizer),
        text,
        class_names=class_names,
        num_action_tokens=config.num_action_tokens,
        codes_per_word=config.num_codebooks if arguments.injection_layer is None else 1,
        list_classes=arguments.list_classes,
        explains=arguments.explanations,
        run_lengths=arguments.run_lengths,
        num_soft_prompts=arguments.prefix_length if arguments.method == "prompt" else 0,
        **instructions,
    )


def make_recogniser(arguments: ActionSFTArguments, llm, action_model, processor, rows, reference: dict):
    """
    The recogniser before training, with `requires_grad` set for the weights that the method trains.

    Args:
        arguments: of the recipe.
        llm, action_model, processor: parts of the recogniser.
        rows: training sentences.
        reference: to the language model (`llm_reference`).
    """
    from action_llm import ActionLLMForConditionalGeneration
    from action_llm.token_lexicon import build_lexicon
    from action_llm_recipes.common.action_sentences import first_encodings

    model = ActionLLMForConditionalGeneration.from_llm(
        llm,
        action_token_offset=processor.action_token_offset,
        action_model=action_model,
        action_table=standardized_words(action_model, rows, llm) if arguments.standardize_words else None,
        **reference,
        class_names=processor.class_names,
        train_action_embeddings=arguments.train_action_embeddings,
        injection_layer=arguments.injection_layer,
        prefix_length=arguments.prefix_length if arguments.method == "prefix" else 0,
        prefix_layers=arguments.prefix_layers if arguments.method == "prefix" else None,
        num_soft_prompts=processor.num_soft_prompts,
        run_length_ids=processor.run_length_ids(),
        constrained_scoring=arguments.constrained_scoring,
    )
    choose_trained(model, arguments.method)
    if action_model.config.quantize:  # explanations name the classes in which a token is frequent
        model.lexicon = build_lexicon(
            first_encodings(rows), processor.class_names, action_model.config.num_action_tokens, num_examples=0
        )
    return model


def make_examples(arguments: ActionSFTArguments, training: ActionSFTConfig, train, rows, processor, config) -> tuple:
    """
    Tokenises the training and evaluation examples.

    Args:
        arguments, training: of the recipe.
        train: all sentences of the training split.
        rows: the sentences of it that are trained on.
        processor, config: of the recogniser.

    Returns:
        The training examples, and with `hold_out` those of the held-out subjects, else None.

    Raises:
        ValueError: if a loss is to be evaluated without `hold_out`.
    """
    from datasets import concatenate_datasets

    from action_llm_recipes.common.action_sentences import first_encodings
    from action_llm_recipes.common.data_arguments import held_out_rows

    continuous, of_classes = arguments.injection_layer is not None, arguments.objective == "classes"
    options = {"continuous": continuous, "of_classes": of_classes, "listed_classes": arguments.listed_classes}
    train_dataset = tokenize(rows, processor, config.text_config, **options)
    if arguments.explanations:
        chosen = explained(rows, arguments.explanation_share)
        train_dataset = concatenate_datasets(
            [train_dataset, tokenize_explanations(chosen, processor, config.text_config)]
        )
    if not arguments.hold_out:
        if training.eval_strategy != "no":
            raise ValueError(
                "eval_strategy needs held-out recordings to evaluate on during training: set hold_out, or eval_strategy: no."
            )
        return train_dataset, None
    held_out = first_encodings(held_out_rows(train))
    return train_dataset, tokenize(held_out, processor, config.text_config, **options)


@dataclass
class Outcome:
    """
    Facts about a training, for the record.

    Attributes:
        cost: parameters, time and memory (`report_cost`).
        loss: the last logged loss.
        steps: number of optimiser steps.
        dropout_layers: number of layers with hidden dropout, by their part; model families differ in their parts.
    """

    cost: dict = field(default_factory=dict)
    loss: float | None = None
    steps: int = 0
    dropout_layers: dict[str, int] | None = None


def train(
    arguments: ActionSFTArguments, training: ActionSFTConfig, run, model, processor, rows, train_dataset, eval_dataset
) -> Outcome:
    """
    Trains the recogniser and saves it in the folder of the run.

    Args:
        arguments, training: of the recipe.
        run: folder of the run.
        model, processor: the recogniser.
        rows: training sentences.
        train_dataset, eval_dataset: tokenised examples (`make_examples`).
    """
    from action_llm_recipes.common.run_cost import report_cost
    from action_llm_recipes.stages.hidden_dropout import add_hidden_dropout

    outcome = Outcome()
    trainer = make_trainer(arguments, training, run, model, processor, rows, train_dataset, eval_dataset)
    if arguments.hidden_dropout:  # after adapters are added, so that their inputs have dropout as well
        outcome.dropout_layers = add_hidden_dropout(model.model.language_model, arguments.hidden_dropout)
    outcome.cost = report_cost(trainer, "language model")
    run.train(trainer, "language model")
    save_trained(trainer, run.model)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    outcome.loss = losses[-1] if losses else None
    outcome.steps = trainer.state.global_step
    return outcome


def make_trainer(
    arguments: ActionSFTArguments, training: ActionSFTConfig, run, model, processor, rows, train_dataset, eval_dataset
):
    """The trainer for the objective. The arguments are those of `train`."""
    from transformers import EarlyStoppingCallback
    from trl import SFTTrainer

    from action_llm_recipes.common.action_sentences import words_of
    from action_llm_recipes.common.run_folder import JsonLinesCallback
    from action_llm_recipes.stages.class_loss import ClassTrainer
    from action_llm_recipes.stages.collators import ClassCollator, LatentsCollator

    continuous, of_classes = arguments.injection_layer is not None, arguments.objective == "classes"
    peft_config = None
    if arguments.method in ("lora", "qlora"):
        peft_config = lora_config(arguments, continuous and not model.config.reads_visual_features)
    if continuous or of_classes:
        training.dataset_kwargs = {"skip_prepare_dataset": True}
        training.remove_unused_columns = False
    text = processor.tokenizer
    padding = (
        text.pad_token_id if text.pad_token_id is not None else text.eos_token_id,
        model.config.action_config.codebook_dim,
    )
    common = {
        "args": training,
        "train_dataset": train_dataset,
        "eval_dataset": eval_dataset,
        "processing_class": text,
        "peft_config": peft_config,
        "callbacks": [JsonLinesCallback(run.metrics)],
    }
    if arguments.early_stopping is not None:
        common["callbacks"].append(EarlyStoppingCallback(arguments.early_stopping))
    if not of_classes:
        return SFTTrainer(model, data_collator=LatentsCollator(*padding) if continuous else None, **common)
    return ClassTrainer(
        model.as_classifier(),
        label_ids=processor(action_ids=[words_of(rows[0], processor)])["label_ids"],
        label_smoothing=arguments.label_smoothing,
        data_collator=ClassCollator(*padding),
        **common,
    )


def record_of_settings(arguments: ActionSFTArguments, training: ActionSFTConfig, model, outcome: Outcome) -> dict:
    """The settings in the record, which a model page shows."""
    names = (
        "objective",
        "label_smoothing",
        "constrained_scoring",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
        "hidden_dropout",
        "prefix_length",
        "train_action_embeddings",
        "standardize_words",
        "injection_layer",
        "chat_format",
        "list_classes",
        "listed_classes",
        "explanations",
        "run_lengths",
    )
    prefix, layers = model.model.prefix, outcome.dropout_layers
    return {
        **{name: getattr(arguments, name) for name in names},
        **({} if layers is None else {"hidden_dropout_layers": layers}),
        "prefix_layers": arguments.prefix_layers if prefix is None else prefix.layers,
        "explanation_share": arguments.explanation_share if arguments.explanations else None,
        **({} if arguments.early_stopping is None else {"early_stopping": arguments.early_stopping}),
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type.value,
        "warmup_steps": training.warmup_steps,
        "batch_size": training.per_device_train_batch_size
        * training.gradient_accumulation_steps
        * training.world_size,
        "steps": outcome.steps,
    }


def check_settings(settings: Mapping, reads_latents: bool):
    """
    Checks that the settings fit together.

    Args:
        settings: name → value, of all fields of `ARGUMENTS`.
        reads_latents: whether the language model reads continuous latents.

    Raises:
        ValueError: if settings exclude each other, or a number is out of range.
    """
    if not 0 <= settings["hidden_dropout"] < 1:
        raise ValueError(f"hidden_dropout must be at least 0 and below 1, got {settings['hidden_dropout']}.")
    if settings["method"] in ("prefix", "prompt") and settings["prefix_length"] < 1:
        raise ValueError(f"prefix_length must be at least 1, got {settings['prefix_length']}.")
    if reads_latents:
        for name in ("standardize_words", "run_lengths", "explanations", "packing", "padding_free"):
            if settings[name]:
                raise ValueError(
                    f"{name} needs sentences of tokens, but the language model reads continuous latents (injection_layer, "
                    f"or an action model with quantize: false): set {name} to false."
                )
        if settings["method"] == "none":
            raise ValueError(
                "method none trains nothing, but continuous latents need a trained projection: choose another method."
            )
    if settings["objective"] == "classes":
        if settings["packing"] or settings["padding_free"]:
            raise ValueError(
                "objective classes scores all class names after each prompt: set packing and padding_free to false."
            )
        if settings["explanations"]:
            raise ValueError(
                "explanations are trained on their words: set objective to words, or explanations to false."
            )
        if not 0 <= settings["label_smoothing"] < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {settings['label_smoothing']}.")
    elif settings["label_smoothing"]:
        raise ValueError("label_smoothing is defined over the class list: set objective to classes.")
    if settings["listed_classes"] is not None:
        if not settings["list_classes"] or settings["objective"] == "classes":
            raise ValueError(
                "listed_classes chooses which classes a prompt lists, and objective classes scores all of them: set "
                "list_classes, and objective to words."
            )
        if settings["listed_classes"] < 2:
            raise ValueError(f"listed_classes must be at least 2, got {settings['listed_classes']}.")
    if settings["early_stopping"] is not None:
        if settings["early_stopping"] < 1:
            raise ValueError(f"early_stopping must be at least 1, got {settings['early_stopping']}.")
        if not (settings["hold_out"] and settings["load_best_model_at_end"]):
            raise ValueError(
                "early_stopping needs the loss on the held-out subjects, and keeps the best model: set hold_out and "
                "load_best_model_at_end."
            )
    if settings["packing"] and settings["max_length"] is None:
        raise ValueError("packing needs max_length, the number of tokens of a packed row: set it.")


def llm_reference(arguments: ActionSFTArguments) -> dict[str, str]:
    """The fields of the recogniser's configuration that refer to a language model on the Hub or in a package. Empty for a path,
    and where all weights are trained: the weights are then saved with the recogniser."""
    from action_llm.llm_references import SMOLLM2, gguf_file, is_gguf, repository_of, sha256_of

    name, commit = arguments.llm_name_or_path, arguments.llm_revision
    if arguments.method == "full" or (Path(name).exists() and name != SMOLLM2):
        return {}
    reference = {"llm_name_or_path": name}
    if name != SMOLLM2:
        if commit is None:
            from huggingface_hub import model_info

            commit = model_info(repository_of(name)).sha
        reference["llm_revision"] = commit
    if is_gguf(name):
        reference["llm_sha256"] = sha256_of(gguf_file(name, commit))
    return reference


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
