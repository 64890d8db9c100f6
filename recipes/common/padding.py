"""Pads sequences of different lengths into batches."""


def padded(sequences: list, value: float = 0.0, side: str = "right"):
    """
    Pads sequences into a batch.

    Args:
        sequences: tensors (length, …) that differ in length only.
        value: of the padding.
        side: of the padding, "right" or "left".

    Returns:
        The batch (number of sequences, longest length, …) and its mask, int64 (number of sequences, longest length): 1 for
        entries of a sequence, 0 for padding.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    masks = [torch.ones(len(sequence), dtype=torch.long, device=sequence.device) for sequence in sequences]
    return (
        pad_sequence(sequences, batch_first=True, padding_value=value, padding_side=side),
        pad_sequence(masks, batch_first=True, padding_side=side),
    )


def collate(recordings: list[dict]) -> dict:
    """Batches what a feature extractor returns for each recording: `input_features` and `feature_attention_mask`, padded on the
    right with zeros, and `frame_rate` and `start_time` where it returns them."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    batch = {
        name: pad_sequence([recording[name][0] for recording in recordings], batch_first=True)
        for name in ("input_features", "feature_attention_mask")
    }
    # Only skeletons have a start time.
    scalars = [name for name in ("frame_rate", "start_time") if name in recordings[0]]
    return batch | {name: torch.cat([recording[name] for recording in recordings]) for name in scalars}


def pad_features(features: list) -> dict:
    """Pads features of videos, (length, …) each, into `input_features` and `feature_attention_mask`."""
    batch, mask = padded(features)
    return {"input_features": batch, "feature_attention_mask": mask}


def collate_features(rows: list[dict]) -> dict:
    """Batches rows of stored features (`feature_columns`): `input_features`, `feature_attention_mask` and `frame_rate`."""
    import torch

    features = [torch.as_tensor(row["features"]).reshape(tuple(row["shape"])) for row in rows]
    return {**pad_features(features), "frame_rate": torch.tensor([float(row["frame_rate"]) for row in rows])}


def pad_latents(latents: list, width: int) -> dict:
    """
    Pads the latents of recordings.

    Args:
        latents: of each recording, flat: (number of latents · width,).
        width: of a latent.

    Returns:
        `action_embeds` (number of recordings, most latents, width), padded on the right, and `action_embeds_mask`.
    """
    import torch

    batch, mask = padded([torch.as_tensor(recording).view(-1, width) for recording in latents])
    return {"action_embeds": batch, "action_embeds_mask": mask}
