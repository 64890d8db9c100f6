"""Action words with the mean and standard deviation of a language model's word embeddings."""

WORDS_AT_A_TIME = 4096


def standardized_words(action_model, rows, llm):
    """
    Shifts and scales the codes so that, in each channel, the action words of some sentences have the mean and standard
    deviation of the language model's word embeddings. The embedding of a word of several tokens is the sum over its tokens.

    Args:
        action_model (`PreTrainedModel`): the action model.
        rows (`datasets.Dataset`): the training sentences.
        llm (`PreTrainedModel`): the language model.

    Returns:
        `torch.Tensor` of shape `(num_action_tokens, width)`, float32: the embeddings of the action tokens.

    Raises:
        ValueError: if the action model is a VTEM.
    """
    import numpy as np
    import torch

    if action_model.config.model_type == "vtem":
        raise ValueError(
            "standardize_words must be false for a VTEM: the projector of the language model maps visual events to words."
        )
    codes = action_model.codebook.detach()
    sentences = [np.asarray(sentence) for sentence in rows["action_ids"]]
    words, counts = np.unique(np.concatenate(sentences), axis=0, return_counts=True)
    words, share = torch.from_numpy(words).long(), torch.from_numpy(counts / counts.sum()).to(codes.device)[:, None]
    mean = torch.zeros(codes.shape[1], dtype=torch.float64, device=codes.device)
    square = torch.zeros_like(mean)
    for chosen in torch.arange(len(words)).split(WORDS_AT_A_TIME):
        embeddings = codes[words[chosen]].double()
        embeddings = embeddings.sum(dim=1) if embeddings.ndim == 3 else embeddings
        mean += (share[chosen] * embeddings).sum(dim=0)
        square += (share[chosen] * embeddings.square()).sum(dim=0)
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    table = llm.get_input_embeddings().weight.detach().double().to(codes.device)
    # A constant channel keeps its scale.
    scale = torch.where(deviation > 1e-4 * codes.std(), table.std(dim=0, correction=0) / deviation, 1.0)
    embeddings = codes.double() * scale
    # Each word has one code of the first codebook, so the shift goes there.
    embeddings[: action_model.config.codebook_size] += table.mean(dim=0) - mean * scale
    return embeddings.float()
