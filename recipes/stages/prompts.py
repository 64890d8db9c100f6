"""Token ids of prompts and completions, made from action sentences, for stage 2."""

import random


def tokenize(
    rows, processor, text_config, continuous: bool, of_classes: bool = False, listed_classes: int | None = None
):
    """
    The rows of a split as token ids.

    Args:
        rows (`datasets.Dataset`): sentences.
        processor (`ActionLLMProcessor`): the processor of the recogniser.
        text_config: configuration of the language model.
        continuous: whether the language model reads continuous latents in place of tokens.
        of_classes: whether the objective is `classes`.
        listed_classes: number of classes that each prompt lists (`list_of_classes`); by default all.

    Returns:
        `datasets.Dataset` with `input_ids`, and
        - `completion_mask`, 1 for the tokens of the class name;
        - if `continuous`, `labels` and `latents` instead;
        - if `of_classes`, the class index as `labels` instead, and `input_ids` without the class name.

    Raises:
        ValueError: if a prompt is longer than the context of the language model, or latents are read and there are none.
    """
    from action_llm.language_models import check_context_length
    from action_llm_recipes.common.action_sentences import words_of

    names = rows.features["label"].names

    def tokenize_row(row):
        listed = None if listed_classes is None else list_of_classes(row, names, listed_classes)
        if continuous:
            prompt = processor.prompt(None, listed, num_latents=len(row["action_ids"]))
        else:
            prompt = processor.prompt(words_of(row, processor), listed)
        prompt_ids, label_ids = processor.encode_prompt_and_label(prompt, names[row["label"]])
        check_context_length(len(prompt_ids) + len(label_ids), text_config)
        if of_classes:
            latents = {"latents": row["latents"]} if continuous else {}
            return {"input_ids": prompt_ids, "labels": row["label"], **latents}
        if continuous:
            return {
                "input_ids": prompt_ids + label_ids,
                "labels": [-100] * len(prompt_ids) + label_ids,
                "latents": row["latents"],
            }
        return {
            "input_ids": prompt_ids + label_ids,
            "completion_mask": [0] * len(prompt_ids) + [1] * len(label_ids),
        }

    if continuous and "latents" not in rows.features:
        raise ValueError("injection_layer needs sentences with latents: run encode_actions.py with --latents true.")
    return rows.map(tokenize_row, remove_columns=rows.column_names, desc="prompts")


def list_of_classes(row, names: list[str], number: int) -> list[str]:
    """
    The class name of a sentence and others at random, in a random order. A sentence always has the same list.

    Args:
        row: of the sentences.
        names: the class list.
        number: number of names; all if there are fewer.
    """
    from action_llm.recording_versions import stable_seed

    chance = random.Random(stable_seed("listed classes", row["sample_id"], row["encoding"]))
    own = names[row["label"]]
    others = [name for name in names if name != own]
    listed = [own, *chance.sample(others, min(number - 1, len(others)))]
    chance.shuffle(listed)
    return listed


def explained(rows, share: float):
    """
    The sentences whose explanations are training examples.

    Args:
        rows (`datasets.Dataset`): sentences.
        share: share of the sentences with an explanation that are chosen, always the same ones.

    Raises:
        ValueError: if the sentences have no explanations, or none is chosen.
    """
    from action_llm.recording_versions import stable_seed

    if "explanation" not in rows.features:
        raise ValueError("the sentences have no explanations: run encode_actions.py with --explanations.")
    if not 0 < share <= 1:
        raise ValueError(f"explanation_share must be above 0 and at most 1, got {share}.")
    chosen = [
        index
        for index, (name, encoding, explanation) in enumerate(
            zip(rows["sample_id"], rows["encoding"], rows["explanation"], strict=True)
        )
        if explanation and stable_seed("explained", name, encoding) % 10_000 < 10_000 * share
    ]
    if not chosen:
        raise ValueError(
            f"explanation_share {share} chooses none of {len(rows)} sentences: set a larger one, or check that sentences have "
            "explanations."
        )
    return rows.select(chosen)


def tokenize_explanations(rows, processor, text_config):
    """Rows with an explanation as token ids, as of [`tokenize`], with the instruction to explain and the explanation as the
    completion."""
    from action_llm.language_models import check_context_length
    from action_llm_recipes.common.action_sentences import words_of

    def tokenize_row(row):
        prompt = processor.prompt(words_of(row, processor), to_explain=True)
        prompt_ids, explanation_ids = processor.encode_prompt_and_label(prompt, row["explanation"])
        check_context_length(len(prompt_ids) + len(explanation_ids), text_config)
        return {
            "input_ids": prompt_ids + explanation_ids,
            "completion_mask": [0] * len(prompt_ids) + [1] * len(explanation_ids),
        }

    return rows.map(tokenize_row, remove_columns=rows.column_names, desc="explanations")
