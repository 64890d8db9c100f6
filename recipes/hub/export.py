"""
Export a recogniser as a plain causal language model, which serving engines load without the code of this project.

```bash
python recipes/hub/export.py --model runs/ntu60/sft/model --output_dir runs/ntu60/served
```

The adapter is merged, the vocabulary is extended by the action tokens, the output embeddings are no longer tied to the input
embeddings, and a chat template turns a sentence into the prompt: `[{"role": "user", "content": "<act_3><act_17>"}]`. The logits
of text tokens equal those of the recogniser. Action tokens are never generated: they are in `suppress_tokens` of the generation
config, and the output embeddings that are added for them are zero. The action model, which turns recordings into sentences, is
not exported.

A recogniser with `constrained_scoring` scores names by constrained decoding, which weights alone cannot do: the README.md in
the folder shows how to constrain the plain model to the class names.

`client/engine_client.py` in the folder computes the recogniser's class probabilities by requests to vLLM or SGLang.

A word of several tokens (`num_codebooks` above 1, as in the `small` preset for skeletons) is the sum of their embeddings, but a
plain model reads one token at a position. The chat template of such a model refuses sentences; the client sends prompts as
embeddings, from `client/words.safetensors`.

Prompts in layers (P-Tuning v2) and continuous latents cannot be exported: they raise an error.
"""

import copy
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)

CLIENT = Path(__file__).with_name("engine_client.py")


@dataclass
class ExportArguments:
    """Which recogniser is exported, and where."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM"})
    output_dir: str = field(metadata={"help": "folder for the plain model and its tokenizer"})
    dtype: str | None = field(default=None, metadata={"help": "dtype of the weights; by default that of the training"})

    def __post_init__(self):
        check_recogniser(self.model)


# Lines in the example of README.md, for a recogniser that scores names by constrained decoding.
CONSTRAINT = """
# Constrained decoding: at each step, only tokens that can continue a class name.
names = {names}
answers = [
    tokenizer.apply_chat_template([*messages, {{"role": "assistant", "content": name}}])["input_ids"] for name in names
]


def only_names(_, ids):
    ids = ids.tolist()
    return [answer[len(ids)] for answer in answers if answer[: len(ids)] == ids]


"""


CONSTRAINED = """The recogniser scores names by constrained decoding: each
step is renormalised over the tokens that can continue a class name. Without `prefix_allowed_tokens_fn` this model may generate
any text; in a serving engine, set the class names{space} as the choices of its structured outputs.
Greedy decoding then gives a class name, though not always the most likely one"""


class ExportError(ValueError):
    """The recogniser cannot be exported as a plain causal language model; the message says why."""


ARGUMENTS = (ExportArguments,)


def main(arguments: ExportArguments):
    """Writes the plain model; returns it."""
    from safetensors.torch import save_file
    from transformers import AutoConfig

    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm.saved_weights import share_weights
    from action_llm_datasets.atomic_files import write_atomically, written_whole
    from action_llm_recipes.common.stage_records import training_record

    model_type = AutoConfig.from_pretrained(arguments.model, trust_remote_code=False).model_type
    expected_type = ActionLLMForClassification.config_class.model_type
    if model_type != expected_type:
        raise ExportError(
            f"{arguments.model}: expected a recogniser ({expected_type}), which sft.py writes, found the type {model_type}."
        )
    record = training_record(arguments.model)
    model = ActionLLMForClassification.from_pretrained(
        arguments.model, dtype=arguments.dtype or record.get("dtype", "auto")
    )
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    codes_per_word = model.config.codes_per_word
    plain = to_causal_lm(model, len(processor.tokenizer))
    plain.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    tokenizer = processor.tokenizer
    tokenizer.chat_template = chat_template(processor)
    # These settings of the processor name code that is not exported.
    for name in ("auto_map", "processor_class", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer._set_processor_class(None)
    folder = Path(arguments.output_dir)
    plain.save_pretrained(folder)
    share_weights(folder)
    tokenizer.save_pretrained(folder)
    # A folder of its own, because engines load every .safetensors file beside config.json as weights of the model.
    client = folder / "client"
    write_atomically(client / CLIENT.name, CLIENT.read_bytes())
    facts = json.dumps(recogniser_facts(model, processor, plain), ensure_ascii=False)
    write_atomically(client / "recogniser.json", facts + "\n")
    if codes_per_word > 1:
        with written_whole(client / "words.safetensors") as unfinished:
            save_file(word_tables(model, plain), unfinished)
    write_atomically(folder / "README.md", page(record, processor, plain, model.config))
    if model.config.constrained_scoring and codes_per_word == 1:
        logger.warning(
            "This recogniser scores names by constrained decoding (constrained_scoring), which a plain model does not do by "
            "itself: see %s",
            folder / "README.md",
        )
    logger.info(
        "The %s with a vocabulary of %d tokens is in %s", plain.config.model_type, plain.config.vocab_size, folder
    )
    return plain


def to_causal_lm(model, vocab_size: int):
    """
    The language model of a recogniser, with the action tokens in its own embeddings.

    Args:
        model ([`ActionLLMForClassification`]): the recogniser; its LoRA adapter is merged in place.
        vocab_size (`int`): length of the processor's tokenizer: text, action tokens, placeholder, soft prompts.

    Returns:
        The model, as `AutoModelForCausalLM` loads it.

    Raises:
        ExportError: if the recogniser has prompts in layers, reads continuous latents, is quantised, has an adapter other than
            LoRA, a text decoder without a causal language model of its own, or words of several tokens and scaled embeddings.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = model.config
    text_config = copy.deepcopy(config.text_config)
    text_embeddings = model.base_model.language_model.get_input_embeddings()
    if config.codes_per_word > 1 and getattr(text_embeddings, "embed_scale", None) is not None:
        raise ExportError(
            f"words of this model are sums of {config.codes_per_word} embeddings, which engines read as prompt embeddings, but "
            f"{text_config.model_type} scales its embeddings, and engines differ in whether they scale those of a prompt."
        )
    if config.prefix_length:
        raise ExportError(
            f"this model has {config.prefix_length} prompts in its layers (P-Tuning v2), which a plain model cannot hold: "
            "train with --method lora or prompt to export it."
        )
    if config.injection_layer is not None:
        raise ExportError(
            "this model reads continuous latents (injection_layer), and a plain model reads tokens alone."
        )
    if getattr(model, "is_quantized", False):
        raise ExportError("LoRA cannot be merged into a quantised language model: load it unquantised to export it.")
    if type(text_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ExportError(
            f"the text decoder of this model, {text_config.model_type}, has no causal language model of its own."
        )
    merge_adapter(model)
    base, offset = model.base_model, config.action_token_offset
    text_table, head = base.language_model.get_input_embeddings().weight, model.lm_head
    rows = max(vocab_size, len(text_table), len(head.weight))
    with torch.no_grad():
        # The stored rows, since a model that scales its embeddings scales these rows too.
        words = action_rows(model)
        table = text_table.new_zeros(rows, text_table.shape[1])
        table[:offset], table[offset : offset + len(words)] = text_table[:offset], words.to(text_table.dtype)
        # All rows, also those behind the text of a padded head: probabilities are normalised over them.
        text_head = head.weight.new_zeros(rows, head.weight.shape[1])
        text_head[: len(head.weight)] = head.weight
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
        bias[: len(head.bias)] = head.bias.detach()
        state[f"{names[plain.get_output_embeddings()]}.bias"] = bias
    plain.load_state_dict(state, strict=True, assign=True)
    plain.generation_config = copy.deepcopy(model.generation_config)
    plain.generation_config.suppress_tokens = list(range(offset, rows))
    return plain


def merge_adapter(model) -> None:
    """Merges LoRA into the weights of the language model in place, and removes the adapter.

    Raises:
        ExportError: if the adapter is not LoRA.
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
            raise ExportError(f"the adapter at {name} is a {type(module).__name__}: only LoRA can be merged.")
        elif isinstance(module, ModulesToSaveWrapper):
            setattr(model.get_submodule(parent), last, module.modules_to_save[module.active_adapters[0]])


def recogniser_facts(model, processor, plain) -> dict:
    """What `engine_client.py` has to know of a recogniser, beside the weights.

    Args:
        model ([`ActionLLMForClassification`]): the recogniser.
        processor ([`ActionLLMProcessor`]): its processor.
        plain: the exported model.
    """
    config, offset = model.config, processor.action_token_offset
    words, numbers = processor.word_ids, processor.run_length_ids()
    if words is not None:
        word, id_of_word = range(0, processor.num_action_tokens, words.codebook_size), words.first
    else:
        word, id_of_word = ((0, 1) if numbers else 0), offset
    prompt = processor.encode_prompt_and_label(processor.prompt([word]))[0]
    place, length = prompt.index(id_of_word), 1 + (len(numbers[0]) if numbers else 0)
    form = f"a list of tokens from 0 to {processor.num_action_tokens - 1}"
    if words is not None:
        form = f"a list of words, each of {words.codes_per_word} tokens, one of each codebook of {words.codebook_size}"
    elif numbers:
        form = f"a list of pairs of a token from 0 to {processor.num_action_tokens - 1} and a length from 1 to {len(numbers)}"
    head = len(model.lm_head.weight)
    return {
        "class_names": processor.class_names,
        "label_ids": processor.label_ids(),
        "before": prompt[:place],
        "after": prompt[place + length :],
        "words": form,
        "num_action_tokens": processor.num_action_tokens,
        "action_token_offset": offset,
        "codes_per_word": config.codes_per_word,
        "run_length_ids": numbers,
        "constrained_scoring": config.constrained_scoring,
        "temperature": 1.0 if model.calibration is None else model.calibration.temperature(1),
        # Tokens that the head of the recogniser lacks. Their logits are all equal.
        "silent_tokens": {"first": head, "count": plain.config.vocab_size - head},
    }


def word_tables(model, plain) -> dict:
    """The embeddings of prompts for words that are sums: `text` (offset, width) in the model's dtype, and in float32 `codes`
    (action tokens, placeholder and soft prompts, width)."""
    text = plain.get_input_embeddings().weight[: model.config.action_token_offset]
    return {"text": text.detach().clone(), "codes": action_rows(model).detach()}


def action_rows(model):
    """The embeddings of the action tokens, the placeholder (zeros) and the soft prompts, in float32."""
    import torch

    embedding = model.base_model.action_embedding
    parts = [embedding.weight, embedding.weight.new_zeros(1, embedding.weight.shape[1])]
    return torch.cat(parts + ([] if embedding.soft_prompts is None else [embedding.soft_prompts]))


def chat_template(processor) -> str:
    """The Jinja template of the prompt with a sentence, and of the answer after it."""
    if processor.codes_per_word > 1:
        refusal = f"words of this model are sums of {processor.codes_per_word} embeddings: send them by client/engine_client.py"
        return f"{{{{ raise_exception({json.dumps(refusal)}) }}}}"
    before, after = processor.prompt([(0, 1) if processor.run_lengths else 0]).split(
        "<act_0>" + " 1" * processor.run_lengths
    )
    ids = processor.encode_prompt_and_label(processor.prompt([(0, 1) if processor.run_lengths else 0]))[0]
    begin = processor.tokenizer.bos_token
    begins = begin and ids[0] == processor.tokenizer.bos_token_id and not before.startswith(begin)
    user = f"{json.dumps(before)} + content + {json.dumps(after)}"
    # Clients send a string, or a list of parts.
    content = (
        "{% set content = message['content'] if message['content'] is string else "
        "message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
    )
    return (
        "{% for message in messages %}"
        f"{content}{{% if message['role'] == 'user' %}}{{{{ {'bos_token + ' if begins else ''}{user} }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ '{processor.separator}' + content + eos_token }}}}"
        "{% else %}{{ raise_exception('this model reads user and assistant messages alone') }}{% endif %}"
        "{% endfor %}"
    )


def page(record: dict, processor, plain, config) -> str:
    """The README.md of the folder.

    Args:
        record: record of the recogniser's training.
        processor: processor of the recogniser.
        plain: the exported model.
        config ([`ActionLLMConfig`]): configuration of the recogniser.
    """
    from huggingface_hub import ModelCardData

    from action_llm.escaping import markdown, markdown_code
    from action_llm.llm_references import repository_of
    from action_llm_recipes.hub.model_page import is_simulated

    dataset = (record.get("sentences") or {}).get("dataset", "recordings that the record does not name")
    simulated = is_simulated(record)
    base_model = config.llm_name_or_path and repository_of(config.llm_name_or_path)
    card = ModelCardData(
        license="other",
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["action-recognition"] + ["simulated"] * simulated,
        base_model=base_model,
        # With the adapter merged, the weights are fine-tuned ones; what the Hub calls a merge is of several models.
        base_model_relation=base_model and "finetune",
    )
    trained_on = "**simulated** recordings, " * simulated + markdown_code(dataset)
    return f"""---
{card.to_yaml()}
---

# An action recogniser as a plain language model

Exported from a recogniser that was trained on {trained_on}, with the adapter merged and the action tokens in the vocabulary.
It reads a sentence of action tokens and writes the name of the action. Classes:
{", ".join(map(markdown, processor.class_names))}.

{_sums_usage(processor) if config.codes_per_word > 1 else _text_usage(processor, plain, config.constrained_scoring)}

## Class probabilities

`client/engine_client.py` computes the exact class probabilities of the recogniser by requests to vLLM or SGLang. It needs no
other code of ActionLLM. Its first lines say how to start the engines, which were not run: the requests were tested against a
server that implements their documented interface.

The recogniser that this model was exported from also turns recordings into sentences, which this model does not. The terms of
its language model ({markdown(record.get("llm", "not recorded"))}) and of the recordings apply to these weights.
"""


def _text_usage(processor, plain, constrained_scoring: bool) -> str:
    """How to use a model whose sentences are text."""
    sentence = "<act_0> 1<act_1> 2" if processor.run_lengths else "<act_0><act_1>"
    first, last = min(plain.generation_config.suppress_tokens), plain.config.vocab_size - 1
    constraint, option, length = "", "", 20
    decoding = "Greedy decoding gives a class name, or another text"
    if constrained_scoring:
        constraint = CONSTRAINT.format(names=json.dumps(processor.class_names, ensure_ascii=False))
        option = ", prefix_allowed_tokens_fn=only_names"
        length = max(length, *map(len, processor.label_ids()))
        decoding = CONSTRAINED.format(space=", each with a space before it," if processor.separator else "")
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
messages = [{{"role": "user", "content": "{sentence}"}}]
inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
{constraint}answer = model.generate(**inputs, max_new_tokens={length}, do_sample=False{option})
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

Token ids {first} to {last} are action tokens. `generate` never returns them (`suppress_tokens`); an engine that does not read
the generation config must ban them. {decoding}."""


def _sums_usage(processor) -> str:
    """How to use a model whose words are sums of embeddings."""
    word = list(range(0, processor.num_action_tokens, processor.num_action_tokens // processor.codes_per_word))
    return f"""A word is the sum of the embeddings of {processor.codes_per_word} tokens, one of each codebook. A language model
reads one token at a position, so sentences cannot be sent as text: `client/engine_client.py` adds up the embeddings and sends
them as the prompt.

```bash
vllm serve FOLDER --enable-prompt-embeds --max-logprobs 128
```

```python
import sys

sys.path.append("FOLDER/client")
from engine_client import EngineClient

print(EngineClient("http://127.0.0.1:8000", "vllm").probabilities([{word}, {word}]))
```"""


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
