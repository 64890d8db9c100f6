"""Fingerprints of weights and recordings, by which a resumed run and later stages notice that these have changed."""


def weights_fingerprint(model) -> str:
    """
    A fingerprint of the weights of an action model, the same on every device.

    The decoder is left out: it does not change sentences, and recognisers do not keep it.
    """
    import hashlib

    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, weight in sorted(model.state_dict().items()):
        if name.startswith("decoder."):
            continue
        digest.update(name.encode())
        # As bytes, since NumPy lacks some dtypes.
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def recordings_fingerprint(dataset) -> str:
    """A fingerprint of all splits: of the names, classes and lengths of the recordings, and of which are held out."""
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for split, rows in sorted(dataset.items()):
        digest.update(repr((split, rows.features["label"].names)).encode())
        for name in ("sample_id", "label", "held_out", "shape", "num_frames", "version"):
            if name in rows.features:
                digest.update(repr(list(rows[name])).encode())
    return digest.hexdigest()
