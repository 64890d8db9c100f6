"""Action sentences as token ids of prompts and completions, for stage 2."""


def tokenize(rows, processor, text_config, continuous: bool, of_classes: bool = False):
    """Prompt–completion rows as ids: `input_ids` and `completion_mask`, or `labels` and `latents` when continuous; with
    `of_classes` the prompt alone, and the index of the class as `labels`."""
    from action_llm.modeling_action_llm import check_context_length
    from action_llm_recipes.common.action_sentences import words_of

    names = rows.features["label"].names

    def tokenize_row(row):
        if continuous:
            prompt = processor.prompt(None, num_latents=len(row["action_ids"]))
        else:
            prompt = processor.prompt(words_of(row, processor))
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


def explained(rows, share: float):
    """The rows whose explanations are learnt: a share of those that have one, the same ones in every run."""
    from action_llm.recording_versions import stable_seed

    if "explanation" not in rows.features:
        raise ValueError("the sentences have no explanations: run encode_actions.py with --explanations.")
    if not 0 < share <= 1:
        raise ValueError(f"explanation_share must be above 0 and at most 1, got {share}.")
    chosen = [
        index
        for index, (name, encoding, said) in enumerate(
            zip(rows["sample_id"], rows["encoding"], rows["explanation"], strict=True)
        )
        if said and stable_seed("explained", name, encoding) % 10_000 < 10_000 * share
    ]
    if not chosen:
        raise ValueError(f"none of {len(rows)} sentences is explained: set a larger explanation_share.")
    return rows.select(chosen)


def tokenize_explanations(rows, processor, text_config):
    """Rows with an explanation as ids, as `tokenize` makes them: another instruction, and the explanation to be said."""
    from action_llm.modeling_action_llm import check_context_length
    from action_llm_recipes.common.action_sentences import words_of

    def tokenize_row(row):
        prompt = processor.prompt(words_of(row, processor), to_explain=True)
        prompt_ids, said_ids = processor.encode_prompt_and_label(prompt, row["explanation"])
        check_context_length(len(prompt_ids) + len(said_ids), text_config)
        return {
            "input_ids": prompt_ids + said_ids,
            "completion_mask": [0] * len(prompt_ids) + [1] * len(said_ids),
        }

    return rows.map(tokenize_row, remove_columns=rows.column_names, desc="explanations")
