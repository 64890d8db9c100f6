"""Fingerprints of weights and recordings: what decides whether a run may be resumed, and whether two stages belong together."""


def weights_fingerprint(model) -> str:
    """A number that tells the weights of one action model from those of another, on every device.

    A decoder has no part in it: it writes no sentence, and recognisers of skeletons have none.
    """
    import hashlib

    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, weight in sorted(model.state_dict().items()):
        if name.startswith("decoder."):
            continue
        digest.update(name.encode())
        # Of every dtype, those that NumPy does not have as well.
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def recordings_fingerprint(dataset) -> str:
    """Changes with the recordings of any split: their names, classes and lengths, and which are held out."""
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for split, rows in sorted(dataset.items()):
        digest.update(repr((split, rows.features["label"].names)).encode())
        for name in ("sample_id", "label", "held_out", "shape", "num_frames", "version"):
            if name in rows.features:
                digest.update(repr(list(rows[name])).encode())
    return digest.hexdigest()
