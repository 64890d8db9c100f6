"""
A recogniser as a plain causal language model, which serving engines load with no code of this project.

```bash
python recipes/hub/export.py --model runs/ntu60/sft/model --output_dir runs/ntu60/served
```

The adapter is merged, the vocabulary grows by the action words, the head has a matrix of its own, and a chat template makes the
prompt of a sentence: `[{"role": "user", "content": "<act_3><act_17>"}]`. Logits of text are those of the recogniser. Action
words are never the answer: they are in `suppress_tokens` of the generation config, and their rows of the head are zero. What
becomes a sentence of a recording is said by the action model, which stays where it is.

A recogniser that scores names by constrained decoding (`constrained_scoring`) is more than its weights: the page of the folder
says how to restrict a plain model to the class names, too.

Prompts in layers (P-Tuning v2) and continuous latents have no place in a plain model: that is an error.
"""

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)


@dataclass
class ExportArguments:
    """Which recogniser, and where to."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM"})
    output_dir: str = field(metadata={"help": "folder for the plain model and its tokenizer"})
    dtype: str | None = field(default=None, metadata={"help": "dtype of the weights; as trained by default"})

    def __post_init__(self):
        check_recogniser(self.model)


# Lines of the example on the page of a recogniser that scores names by constrained decoding.
RESTRICTION = """
# Nothing but class names: at each step, the tokens that continue one.
names = {names}
answers = [
    tokenizer.apply_chat_template([*messages, {{"role": "assistant", "content": name}}])["input_ids"] for name in names
]


def only_names(_, ids):
    ids = ids.tolist()
    return [answer[len(ids)] for answer in answers if answer[: len(ids)] == ids]


"""


CONSTRAINED = """The recogniser scores names by constrained decoding: each
step is renormalised over the tokens that can continue a class name. Without `prefix_allowed_tokens_fn` this model may write
anything; an engine needs the names, each with a space before it, as the choices of its structured outputs. What it writes
greedily is then a class name, though not always the likeliest"""


class ExportError(ValueError):
    """The recogniser is more than a plain causal language model can be; the message says by what."""


ARGUMENTS = (ExportArguments,)


def main(arguments: ExportArguments):
    """Writes the plain model; returns it."""
    from transformers import AutoConfig

    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm.saved_weights import share_weights
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.stage_records import training_record

    kind = AutoConfig.from_pretrained(arguments.model, trust_remote_code=False).model_type
    if kind != ActionLLMForClassification.config_class.model_type:
        raise ExportError(
            f"{arguments.model} is a {kind}: what is exported is the recogniser that reads its tokens (sft.py)."
        )
    record = training_record(arguments.model)
    model = ActionLLMForClassification.from_pretrained(
        arguments.model, dtype=arguments.dtype or record.get("dtype", "auto")
    )
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    plain = to_causal_lm(model, len(processor.tokenizer))
    plain.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    tokenizer = processor.tokenizer
    tokenizer.chat_template = chat_template(processor)
    # What a processor left there names code that does not go along.
    for name in ("auto_map", "processor_class", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    folder = Path(arguments.output_dir)
    plain.save_pretrained(folder)
    share_weights(folder)
    tokenizer.save_pretrained(folder)
    constrained_scoring = model.config.constrained_scoring
    write_atomically(folder / "README.md", page(record, processor, plain, constrained_scoring))
    if constrained_scoring:
        logger.warning(
            "This recogniser scores names by constrained decoding (constrained_scoring), which a plain model does not do by "
            "itself: %s says how",
            folder / "README.md",
        )
    logger.info("A plain %s of %d words is in %s", plain.config.model_type, plain.config.vocab_size, folder)
    return plain


def to_causal_lm(model, vocab_size: int):
    """
    The language model of a recogniser with the action words in its own table.

    Args:
        model ([`ActionLLMForClassification`]): its LoRA is merged, in place.
        vocab_size (`int`): length of the processor's tokenizer: text, action words, placeholder, soft prompts.

    Raises:
        ExportError: it has prompts in layers, reads latents, is quantised, has an adapter other than LoRA, a language model
            without a class of its own, or words of several tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = model.config
    text_config = copy.deepcopy(config.text_config)
    if config.codes_per_word > 1:
        raise ExportError(
            f"a word of this model is the sum of {config.codes_per_word} tokens in one place, and a plain language model looks "
            "up one token in each."
        )
    if config.prefix_length:
        raise ExportError(
            f"this model has {config.prefix_length} prompts in its layers (P-Tuning v2): keys and values that no plain "
            "model has a place for. Train with --method lora or prompt to export it."
        )
    if config.injection_layer is not None:
        raise ExportError("this model reads continuous latents (injection_layer): a plain model reads words alone.")
    if getattr(model, "is_quantized", False):
        raise ExportError("a quantised language model is not merged into: load it unquantised to export it.")
    if type(text_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ExportError(
            f"the text side of this model, {text_config.model_type}, has no causal language model of its own."
        )
    merge_adapter(model)
    base, offset = model.base_model, config.action_token_offset
    text_table, head = base.language_model.get_input_embeddings().weight, model.lm_head
    rows = max(vocab_size, len(text_table))
    with torch.no_grad():
        # Not through the lookup: a family that scales its table scales these rows, too, when it reads them.
        embedding = base.action_embedding
        parts = [embedding.weight, embedding.weight.new_zeros(1, embedding.weight.shape[1])]
        words = torch.cat(parts + ([] if embedding.soft_prompts is None else [embedding.soft_prompts]))
        table = text_table.new_zeros(rows, text_table.shape[1])
        table[:offset], table[offset : offset + len(words)] = text_table[:offset], words.to(text_table.dtype)
        text_head = head.weight.new_zeros(rows, head.weight.shape[1])
        text_head[:offset] = head.weight[:offset]
    text_config.vocab_size, text_config.tie_word_embeddings = rows, False
    text_config.dtype = text_table.dtype
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(text_config)
    names = {module: name for name, module in plain.named_modules()}
    inner = plain.base_model_prefix
    state = {f"{inner}.{name}": value for name, value in base.language_model.state_dict().items()}
    state[f"{names[plain.get_input_embeddings()]}.weight"] = table
    state[f"{names[plain.get_output_embeddings()]}.weight"] = text_head
    if getattr(head, "bias", None) is not None:
        bias = head.bias.new_full((rows,), torch.finfo(head.bias.dtype).min)
        bias[:offset] = head.bias.detach()[:offset]
        state[f"{names[plain.get_output_embeddings()]}.bias"] = bias
    plain.load_state_dict(state, strict=True, assign=True)
    plain.generation_config = copy.deepcopy(model.generation_config)
    plain.generation_config.suppress_tokens = list(range(offset, rows))
    return plain


def merge_adapter(model) -> None:
    """Adds what LoRA learned to the weights of the language model, and takes the adapter away.

    Raises:
        ExportError: the adapter is no LoRA.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            setattr(model.get_submodule(parent), last, module.get_base_layer())
        elif isinstance(module, BaseTunerLayer):
            raise ExportError(
                f"the adapter at {name} is a {type(module).__name__}, which is not merged: only LoRA is."
            )
        elif isinstance(module, ModulesToSaveWrapper):
            setattr(model.get_submodule(parent), last, module.modules_to_save[module.active_adapters[0]])


def chat_template(processor) -> str:
    """Jinja that makes the prompt of a sentence, and the answer after it."""
    before, after = processor.prompt([(0, 1) if processor.run_lengths else 0]).split(
        "<act_0>" + " 1" * processor.run_lengths
    )
    ids = processor.encode_prompt_and_label(processor.prompt([(0, 1) if processor.run_lengths else 0]))[0]
    begins = "{{ bos_token }}" if ids[0] == processor.tokenizer.bos_token_id else ""
    # Clients send a text, or a list of parts.
    content = (
        "{% set content = message['content'] if message['content'] is string else "
        "message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
    )
    return (
        "{% for message in messages %}"
        f"{content}{{% if message['role'] == 'user' %}}{begins}{{{{ {json.dumps(before)} + content + {json.dumps(after)} }}}}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content + eos_token }}"
        "{% else %}{{ raise_exception('this model reads sentences of action tokens alone') }}{% endif %}"
        "{% endfor %}"
    )


def page(record: dict, processor, plain, constrained_scoring: bool) -> str:
    """The front page of the folder.

    Args:
        record: of the recogniser's training.
        processor: the recogniser's.
        plain: the exported model.
        constrained_scoring: whether the recogniser scores names by constrained decoding.
    """
    sentence = "<act_0> 1<act_1> 2" if processor.run_lengths else "<act_0><act_1>"
    from action_llm.escaping import markdown, markdown_code
    from action_llm_recipes.hub.model_page import is_simulated

    dataset = (record.get("sentences") or {}).get("dataset", "recordings that its record does not name")
    simulated = is_simulated(record)
    trained_on = "**simulated** recordings, " * simulated + markdown_code(dataset)
    first, last = min(plain.generation_config.suppress_tokens), plain.config.vocab_size - 1
    restriction, constrained, length = "", "", 20
    writes = "What it writes greedily is one class name, or none"
    if constrained_scoring:
        restriction = RESTRICTION.format(names=json.dumps(processor.class_names, ensure_ascii=False))
        constrained = ", prefix_allowed_tokens_fn=only_names"
        length = max(length, *map(len, processor.label_ids()))
        writes = CONSTRAINED
    return f"""---
license: other
library_name: transformers
pipeline_tag: text-generation
tags:
- action-recognition{chr(10) + "- simulated" if simulated else ""}
---

# An action recogniser as a plain language model

Exported from a recogniser that was trained on {trained_on}: adapter merged, action words in the vocabulary. It reads a
sentence of action tokens and says which action it was. The classes: {", ".join(map(markdown, processor.class_names))}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
messages = [{{"role": "user", "content": "{sentence}"}}]
inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
{restriction}answer = model.generate(**inputs, max_new_tokens={length}, do_sample=False{constrained})
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

Ids {first} to {last} are action words. `generate` never writes them (`suppress_tokens`); an engine that does not read the
generation config needs them as banned words. {writes}: the exact probability of every
class is given by the recogniser that this was exported from, which also makes sentences of recordings. The terms of its
language model ({markdown(record.get("llm", "not recorded"))}) and of the recordings hold for these weights.
"""


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
