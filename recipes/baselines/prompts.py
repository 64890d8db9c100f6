"""The language model of a recogniser, trained again as `sft.py` trained it, on other prompts: descriptions that are written by
rules, in place of action tokens or beside them."""

from pathlib import Path

import numpy as np
from datasets import List, Value

from action_llm import ActionLLMProcessor

# Method → instruction, as of `sft.py`. The recogniser itself keeps its own.
INSTRUCTIONS = {
    "narration": "Given a description of a movement: {tokens} Please predict the corresponding action.",
    "tokens_and_narration": "Given a sequence of action tokens {tokens} Please predict the corresponding action.",
}


class TextProcessor(ActionLLMProcessor):
    """A processor whose sentences are lists of text."""

    def _word(self, word) -> str:
        return word if isinstance(word, str) else super()._word(word)


def train_and_predict(
    method: str, seed: int, recogniser: str, folder: str, hold_out: bool, wanted: set[str], run_folder: Path
) -> dict[str, int]:
    """
    Trains the language model of a recogniser with its settings, and predicts the evaluated recordings.

    Args:
        method: "recogniser" for prompts of tokens, or a key of `INSTRUCTIONS`.
        seed: of the training.
        recogniser: folder of the run of `sft.py`.
        folder: of the action sentences, with descriptions.
        hold_out: whether the held-out training subjects are evaluated, and not the test split.
        wanted: names of the recordings to predict.
        run_folder: of this training.

    Returns:
        `sample_id` → index of the predicted class.

    Raises:
        ValueError: if the recogniser reads continuous latents or was not trained, or the sentences lack a recording.
    """
    import transformers
    import yaml

    from action_llm.language_models import language_model_tokenizer
    from action_llm_recipes import sft
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split
    from action_llm_recipes.common.data_arguments import without_held_out
    from action_llm_recipes.common.launching import from_settings, renamed
    from action_llm_recipes.common.recognisers import load_recogniser
    from action_llm_recipes.common.records import read_written
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.without_gpu import fit_language_model
    from action_llm_recipes.evaluate_classifier import score
    from action_llm_recipes.stages.chat_formats import chat_format_of

    changed = {"output_dir": str(run_folder), "sentences": folder, "seed": seed, "hold_out": hold_out}
    if method in INSTRUCTIONS:
        changed["instruction"] = INSTRUCTIONS[method]
        changed["instruction_with_classes"] = f"{INSTRUCTIONS[method].removesuffix('.')} from {{classes}}."
        changed["explanations"] = False
    settings = renamed(sft.ARGUMENTS, yaml.safe_load(Path(recogniser, "config.yaml").read_bytes()))
    arguments, training = from_settings(sft.ARGUMENTS, {**settings, **changed})
    arguments = fit_language_model(arguments, training)
    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, training)
    sentences = load_action_sentences(folder)
    identity = read_written(folder, "identity.json", "encode_actions.py", "weights")
    text = language_model_tokenizer(arguments.llm_name_or_path, arguments.llm_revision)
    action_model = sft.load_action_model(arguments, identity["weights"])
    if arguments.method == "none" or sft.choose_injection_layer(arguments, action_model.config) is not None:
        raise ValueError(
            f"{recogniser} was not trained, or reads continuous latents: choose a recogniser that was trained on tokens."
        )
    evaluated = select_split(sentences, "held_out" if hold_out else "test")
    if missing := wanted - set(evaluated["sample_id"]):
        raise ValueError(
            f"{folder} lacks sentences of {len(missing)} recordings, such as {min(missing)}: encode the same data set."
        )
    arguments.chat_format = arguments.chat_format or chat_format_of(text)
    tokens = without_held_out(sentences["train"], hold_out)
    processor = sft.make_processor(arguments, text, tokens.features["label"].names, action_model.config, TextProcessor)
    run.begin_training(training, {"sentences": identity})
    llm, reference = sft.load_llm(arguments), sft.llm_reference(arguments)
    model = sft.make_recogniser(arguments, llm, action_model, processor, tokens, reference)
    train, rows = with_text(sentences["train"], method), with_text(tokens, method)
    examples = sft.make_examples(arguments, training, train, rows, processor, model.config)
    sft.train(arguments, training, run, model, processor, rows, *examples)
    model = load_recogniser(str(run.model), training.device)
    predicted = score(
        model, processor, with_text(evaluated, method), None, training.per_device_eval_batch_size
    ).argmax(axis=1)
    return dict(zip(evaluated["sample_id"], predicted.tolist(), strict=True))


def with_text(rows, method: str):
    """Rows of sentences with the text of the prompt, in place of `{tokens}`, as the only word of `action_ids`."""

    def text_of(row: dict) -> dict:
        tokens, narration = "".join(f"<act_{token}>" for token in np.ravel(row["action_ids"])), row.get("explanation")
        text = {
            "recogniser": tokens,
            "narration": narration,
            "tokens_and_narration": f"{tokens} and a description of the movement: {narration}",
        }
        return {"action_ids": [text[method]]}

    features = rows.features.copy()
    features["action_ids"] = List(Value("string"))
    return rows.map(text_of, features=features, desc=method)
