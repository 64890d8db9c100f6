"""
Train a small language model on text about bodies and actions, for use without access to the Hub: about two million parameters,
in about two minutes on two cores.

```bash
python recipes/pretraining/small_lm.py --output_dir runs/small_lm
python recipes/pretraining/small_lm.py --output_dir runs/larger_lm --passages 40000 --hidden_size 256 --num_attention_heads 8
```

It takes the place of the LLM of LLM-AR: `OUTPUT_DIR/model` is a Llama with a byte-level BPE of its own, which
`AutoModelForCausalLM` and `AutoTokenizer` load. Its only training data is the text of
`action_llm_datasets.simulation.body_text`. Runs resume automatically.

`run_line.py` and `quickstart.py` train one when they first need it, and keep it beside the Hub's cache, in
`$HF_HOME/action_llm/small_lm` (`~/.cache/huggingface` by default).
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from action_llm.model_files import ModelFileError, read_json_object
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.training_arguments import RunTrainingArguments

logger = logging.getLogger(__name__)

# Held-out passages are generated from here on, far from the training passages.
HELD_OUT_START = 10**9


@dataclass
class SmallLMArguments:
    """The training text, and the size of the model."""

    passages: int = field(default=8000, metadata={"help": "training passages, of about 46 tokens each"})
    held_out_passages: int = field(default=400, metadata={"help": "passages to measure perplexity on"})
    text_seed: int = field(default=0, metadata={"help": "seed of the text"})
    unseen_of: str | None = field(
        default=None,
        metadata={"help": "protocol with unseen classes (ntu120-unseen-0), whose actions are left out of the text"},
    )
    vocabulary_size: int = field(default=1536, metadata={"help": "size of the byte-level BPE vocabulary"})
    block_length: int = field(default=128, metadata={"help": "tokens per training example; passages are joined"})
    hidden_size: int = field(default=192, metadata={"help": "width of the model"})
    intermediate_size: int = field(default=512, metadata={"help": "width of the feed-forward layers"})
    num_hidden_layers: int = field(default=4, metadata={"help": "number of layers"})
    num_attention_heads: int = field(default=6, metadata={"help": "number of query heads"})
    num_key_value_heads: int = field(default=2, metadata={"help": "number of key and value heads"})
    max_position_embeddings: int = field(default=1024, metadata={"help": "context length in tokens"})
    tie_word_embeddings: bool = field(
        default=True, metadata={"help": "use the same matrix for input and output embeddings"}
    )


@dataclass
class SmallLMConfig(RunTrainingArguments, base="transformers.TrainingArguments"):
    """`TrainingArguments` for two minutes on two cores. The optimiser is Muon (see `muon`), whatever `optim` says."""

    output_dir: str = field(default="runs/small_lm", metadata={"help": "folder of the run"})
    learning_rate: float = 1.2e-2
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 20
    weight_decay: float = 0.1
    per_device_train_batch_size: int = 16
    num_train_epochs: float = 1.0
    logging_steps: float = 20
    save_steps: float = 100
    save_total_limit: int | None = 1


ARGUMENTS = (SmallLMArguments, SmallLMConfig)


@writes_output_dir
def main(arguments: SmallLMArguments, training: SmallLMConfig):
    """Generates the text, trains tokenizer and model, and measures perplexity; returns the record."""
    import transformers

    from action_llm.processing_action_llm import INSTRUCTION, INSTRUCTION_WITH_CLASSES
    from action_llm_datasets.simulation.body_text import passages
    from action_llm_recipes.common.run_cost import report_cost
    from action_llm_recipes.common.run_folder import JsonLinesCallback, RunFolder
    from action_llm_recipes.pretraining.muon import Muon

    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, training)
    if run.finished:
        return run.read_record()
    run.configure(training)

    left_out = left_out_classes(arguments.unseen_of)
    source = {"seed": arguments.text_seed, "without": frozenset(left_out.values())}
    text = list(passages(arguments.passages, **source))
    held_out = list(passages(arguments.held_out_passages, start=HELD_OUT_START, **source))
    # The tokenizer learns the words of the prompt as single tokens, which halves the length of prompts.
    prompts = [INSTRUCTION.format(tokens=""), INSTRUCTION_WITH_CLASSES.format(tokens="", classes="")]
    tokenizer = train_tokenizer(
        text + prompts * (len(text) // 20), arguments.vocabulary_size, arguments.max_position_embeddings
    )
    model = make_model(arguments, tokenizer)
    rows = encode(tokenizer, text)
    trainer = transformers.Trainer(
        model=model,
        args=training,
        train_dataset=join_in_blocks(rows, arguments.block_length),
        processing_class=tokenizer,
        optimizers=(Muon(model, lr=training.learning_rate, weight_decay=training.weight_decay), None),
        callbacks=[JsonLinesCallback(run.metrics)],
    )
    cost = report_cost(trainer, "small language model")
    run.train(trainer, "small language model")
    if not trainer.is_world_process_zero():
        return {}
    # Not trainer.save_model, which also writes a pickle of its arguments.
    model.save_pretrained(run.model)
    tokenizer.save_pretrained(run.model)

    held_out_rows = encode(tokenizer, held_out)
    unseen = set(held_out) - set(text)
    result = {
        "stage": "small_lm",
        "classes_without_text": list(left_out),
        "training_tokens": sum(map(len, rows)),
        "held_out_tokens": sum(map(len, held_out_rows)),
        "held_out_passages_not_in_training_text": len(unseen) / len(set(held_out)),
        "held_out_perplexity": {
            "model": model_perplexity(model, held_out_rows),
            "bigram": bigram_perplexity(rows, held_out_rows, len(tokenizer)),
            "unigram": unigram_perplexity(rows, held_out_rows, len(tokenizer)),
        },
        "samples": write_samples(model, tokenizer, training.seed),
    }
    run.write_record(**result, seed=training.seed, cost=cost)
    perplexity = "perplexity {model:.2f} on held-out text (bigrams {bigram:.2f})"
    run.log_finished("Small language model", perplexity.format(**result["held_out_perplexity"]))
    logger.info("  in %s", run.model)
    return run.read_record()


def make_model(arguments: SmallLMArguments, tokenizer):
    """A Llama with random weights for the vocabulary of a tokenizer."""
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=arguments.hidden_size,
            intermediate_size=arguments.intermediate_size,
            num_hidden_layers=arguments.num_hidden_layers,
            num_attention_heads=arguments.num_attention_heads,
            num_key_value_heads=arguments.num_key_value_heads,
            max_position_embeddings=arguments.max_position_embeddings,
            tie_word_embeddings=arguments.tie_word_embeddings,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def kept_small_lm(arguments: SmallLMArguments, seed: int) -> str:
    """
    The folder of a small language model with these settings and those of `SmallLMConfig`. It is trained if this machine has
    none; a second process waits for the first to finish.

    Args:
        arguments (`SmallLMArguments`): training text, and size of the model.
        seed (`int`): seed of the weights and of the order of the text.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock

    from action_llm_recipes.common.run_folder import RunFolder

    folder = Path(constants.HF_HOME, "action_llm", "small_lm", fingerprint(arguments, seed))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The processes of a distributed run train it together, and must not wait for each other.
    is_distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with contextlib.nullcontext() if is_distributed else WeakFileLock(folder.with_suffix(".lock")):
        damage = damage_of_model(folder / "model")
        if RunFolder.has_record(folder) and damage is None:
            logger.info("Using the small language model in %s", folder / "model")
        else:
            if (folder / "record.json").is_file() and damage is not None:
                logger.warning("%s is damaged (%s): it is trained again", folder / "model", damage)
                (folder / "record.json").unlink()
            logger.info("Training a small language model on text about bodies and actions, once on this machine")
            main(arguments, SmallLMConfig(output_dir=str(folder), seed=seed))
    return str(folder / "model")


def damage_of_model(folder: Path) -> str | None:
    """What is wrong with the files of a small language model, in a few words; None if they are intact."""
    from action_llm_recipes.common.checkpoints import damage_of_weights

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        try:
            read_json_object(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except ModelFileError as error:
            return f"{name} contains {error.actual}"
    return damage_of_weights(folder)


def fingerprint(arguments: SmallLMArguments, seed: int) -> str:
    """A hash of everything that a small language model depends on: settings, seed, text, code and libraries."""
    from action_llm.processing_action_llm import INSTRUCTION, INSTRUCTION_WITH_CLASSES
    from action_llm_datasets.simulation.body_text import passages
    from action_llm_recipes.pretraining import muon

    digest = hashlib.blake2b(json.dumps([asdict(arguments), seed], sort_keys=True).encode(), digest_size=8)
    without = frozenset(left_out_classes(arguments.unseen_of).values())
    for passage in passages(arguments.passages, seed=arguments.text_seed, without=without):
        digest.update(passage.encode())
    digest.update(f"{INSTRUCTION}{INSTRUCTION_WITH_CLASSES}".encode())
    for path in (__file__, muon.__file__):
        digest.update(Path(path).read_bytes())
    for name in ("torch", "transformers", "tokenizers", "accelerate"):
        digest.update(f"{name} {importlib.metadata.version(name)}".encode())
    return digest.hexdigest()


def left_out_classes(protocol: str | None) -> dict[str, str]:
    """Class name → action that is left out of the text, for the unseen classes of a protocol; empty without a protocol.

    Raises:
        ValueError: if there is no such protocol, or it has no unseen classes.
    """
    from action_llm_datasets.unseen_classes import unseen_classes

    if protocol is None:
        return {}
    try:
        return unseen_classes(protocol)
    except ValueError as error:
        raise ValueError(f"unseen_of: {error}") from error


def train_tokenizer(text: list[str], vocabulary_size: int, max_length: int):
    """A byte-level BPE like GPT-2's (words include the space before them, digits are split from letters).

    Its special tokens are `<pad>`, `<s>`, which is added before each text, and `</s>`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer, text: list[str]) -> list[list[int]]:
    """Token ids of each passage, from `<s>` to `</s>`."""
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(text)["input_ids"]]


def join_in_blocks(rows: list[list[int]], length: int):
    """Data set of examples of `length` tokens, cut from the joined passages; the incomplete last example is left out.

    Raises:
        ValueError: if the text is shorter than `length`.
    """
    import numpy as np
    from datasets import Dataset

    joined = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    if len(joined) < length:
        raise ValueError(
            f"the text has {len(joined)} tokens, too few for an example of block_length={length}: set more passages."
        )
    blocks = joined[: len(joined) // length * length].reshape(-1, length)
    return Dataset.from_dict({"input_ids": blocks, "labels": blocks})


def model_perplexity(model, rows: list[list[int]], batch_size: int = 32) -> float:
    """Perplexity per token: exp of the mean negative log-likelihood, over all tokens of each passage but the first."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    model.eval()
    total, count = 0.0, 0
    ordered = sorted(rows, key=len)
    for start in range(0, len(ordered), batch_size):
        batch = [torch.tensor(row) for row in ordered[start : start + batch_size]]
        ids = pad_sequence(batch, batch_first=True).to(model.device)
        labels = pad_sequence(batch, batch_first=True, padding_value=-100).to(model.device)[:, 1:]
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=(ids != model.config.pad_token_id).long()).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.double().mT, labels, reduction="sum")
        total, count = total + losses.item(), count + int((labels >= 0).sum())
    return float(torch.tensor(total / count).exp())


def unigram_perplexity(rows: list[list[int]], held_out: list[list[int]], vocabulary_size: int) -> float:
    """Perplexity of token frequencies (with add-one smoothing), over the same tokens as `model_perplexity`."""
    import numpy as np

    log_probs = np.log(_unigram(rows, vocabulary_size))
    return float(np.exp(-np.mean(np.concatenate([log_probs[row[1:]] for row in held_out]))))


def bigram_perplexity(rows: list[list[int]], held_out: list[list[int]], vocabulary_size: int) -> float:
    """Perplexity of bigrams with absolute discounting by 0.75 and interpolation with unigrams (Ney, Essen and Kneser 1994, "On
    structuring probabilistic dependences in stochastic language modelling")."""
    import numpy as np

    probabilities = _bigram(rows, vocabulary_size)
    values = [probabilities[row[:-1], row[1:]] for row in held_out]
    return float(np.exp(-np.mean(np.log(np.concatenate(values)))))


def _unigram(rows, vocabulary_size):
    import numpy as np

    counts = np.bincount(np.concatenate([row[1:] for row in rows]), minlength=vocabulary_size) + 1.0
    return counts / counts.sum()


def _bigram(rows, vocabulary_size, discount=0.75):
    """(V, V) float64: row v is P(next token | v)."""
    import numpy as np

    counts = np.zeros((vocabulary_size, vocabulary_size))
    for row in rows:
        np.add.at(counts, (row[:-1], row[1:]), 1)
    totals = counts.sum(1, keepdims=True)
    kept = np.maximum(counts - discount, 0) / np.maximum(totals, 1)
    left = np.where(totals > 0, discount * (counts > 0).sum(1, keepdims=True) / np.maximum(totals, 1), 1.0)
    return kept + left * _unigram(rows, vocabulary_size)


def write_samples(model, tokenizer, seed: int, count: int = 4, length: int = 60) -> list[str]:
    """Passages that the model generates from `<s>` at temperature 0.7."""
    import torch

    torch.manual_seed(seed)
    model.eval()
    start = torch.full((count, 1), tokenizer.bos_token_id, device=model.device)
    ids = model.generate(
        start, attention_mask=torch.ones_like(start), do_sample=True, temperature=0.7, max_new_tokens=length
    )
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
