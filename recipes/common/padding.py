"""Batches of sequences of different lengths, padded with one function."""


def padded(sequences: list, value: float = 0.0, side: str = "right"):
    """
    Sequences of different lengths as one batch.

    Args:
        sequences: tensors (length, …) that agree in all but their length.
        value: what fills the places behind, or before, a sequence.
        side: "right" or "left".

    Returns:
        The batch (number of sequences, longest length, …), and its mask (number of sequences, longest length): int64, 1 where a
        sequence is.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    masks = [torch.ones(len(sequence), dtype=torch.long, device=sequence.device) for sequence in sequences]
    return (
        pad_sequence(sequences, batch_first=True, padding_value=value, padding_side=side),
        pad_sequence(masks, batch_first=True, padding_side=side),
    )


def collate(recordings: list[dict]) -> dict:
    """What feature extractors return for single recordings as one batch, padded on the right with zeros."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    batch = {
        name: pad_sequence([recording[name][0] for recording in recordings], batch_first=True)
        for name in ("input_features", "feature_attention_mask")
    }
    # Skeletons also say when their first frame is.
    scalars = [name for name in ("frame_rate", "start_time") if name in recordings[0]]
    return batch | {name: torch.cat([recording[name] for recording in recordings]) for name in scalars}


def pad_features(features: list) -> dict:
    """Features (length, …) of single videos as the `input_features` and `feature_attention_mask` of a model."""
    batch, mask = padded(features)
    return {"input_features": batch, "feature_attention_mask": mask}


def collate_features(rows: list[dict]) -> dict:
    """Rows of stored features as one batch, padded on the right with zeros, with their `frame_rate`."""
    import torch

    features = [torch.as_tensor(row["features"]).reshape(tuple(row["shape"])) for row in rows]
    return {**pad_features(features), "frame_rate": torch.tensor([float(row["frame_rate"]) for row in rows])}


def pad_latents(latents: list, width: int) -> dict:
    """Flat latents of recordings as `action_embeds` (recordings, num_latents, width) and their mask, padded on the right."""
    import torch

    batch, mask = padded([torch.as_tensor(recording).view(-1, width) for recording in latents])
    return {"action_embeds": batch, "action_embeds_mask": mask}
