"""The chat format in which an instruction-tuned language model is asked."""


def chat_format_of(tokenizer) -> str | None:
    """
    The chat format of a tokenizer, for [`ActionLLMProcessor`].

    Args:
        tokenizer (`PreTrainedTokenizerBase`): tokenizer of a language model.

    Returns:
        The text of its chat template with one message of the user, up to the answer, where `{instruction}` stands for the
        message. It has no begin token if the tokenizer adds one to every text. `None` without a chat template.

    Raises:
        ValueError: if the chat template does not show a message of the user.
    """
    if not tokenizer.chat_template:
        return None
    # Templates of vision-language models read a list of parts.
    for content in ("{instruction}", [{"type": "text", "text": "{instruction}"}]):
        messages = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if text.count("{instruction}") == 1:
            break
    else:
        raise ValueError(
            "the chat template of the tokenizer does not show the user's message: set chat_format to the text of a chat, with "
            "{instruction} in place of the message."
        )
    begin = tokenizer.bos_token
    if begin and text.startswith(begin) and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]:
        return text.removeprefix(begin)
    return text
