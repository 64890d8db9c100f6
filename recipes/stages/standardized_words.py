"""Action words in the coordinates of a language model's words."""

WORDS_AT_A_TIME = 4096


def standardized_words(action_model, rows, llm):
    """
    The codes in the coordinates of a language model's words: of each channel, the action words of `rows` have the mean and the
    standard deviation that the rows of the word table have. A word of several tokens is the sum of their rows, here too.

    Returns:
        `torch.Tensor` of shape `(num_action_tokens, width)`, float32.

    Raises:
        ValueError: the action words are made by the language model's own projector.
    """
    import numpy as np
    import torch

    if action_model.config.model_type == "vtem":
        raise ValueError("standardize_words: visual events become words by the language model's own projector.")
    codes = action_model.codebook.detach()
    sentences = [np.asarray(sentence) for sentence in rows["action_ids"]]
    words, counts = np.unique(np.concatenate(sentences), axis=0, return_counts=True)
    words, share = torch.from_numpy(words).long(), torch.from_numpy(counts / counts.sum()).to(codes.device)[:, None]
    mean = torch.zeros(codes.shape[1], dtype=torch.float64, device=codes.device)
    square = torch.zeros_like(mean)
    for chosen in torch.arange(len(words)).split(WORDS_AT_A_TIME):
        spoken = codes[words[chosen]].double()
        spoken = spoken.sum(dim=1) if spoken.ndim == 3 else spoken
        mean += (share[chosen] * spoken).sum(dim=0)
        square += (share[chosen] * spoken.square()).sum(dim=0)
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    table = llm.get_input_embeddings().weight.detach().double().to(codes.device)
    # A channel in which words do not differ keeps its scale.
    scale = torch.where(deviation > 1e-4 * codes.std(), table.std(dim=0, correction=0) / deviation, 1.0)
    moved = codes.double() * scale
    moved[: action_model.config.codebook_size] += table.mean(dim=0) - mean * scale
    return moved.float()
