"""Training examples of stage 1: one window of each recording, augmented anew in every epoch."""

from torch.utils.data import Dataset

from action_llm.recording_versions import stable_seed


class RecordingWindows(Dataset):
    """Windows of `length` frames, one a recording and epoch.

    What an example is depends on the seed, the epoch and its index alone, so that a resumed run sees what the run that was
    not stopped would have seen.

    Args:
        rows (`datasets.Dataset`): recordings.
        extractor (`SkeletonFeatureExtractor`): makes their features.
        length (`int`): frames of a window; shorter recordings are padded.
        seed (`int`): seed of augmentation and windows.
        augment (`bool`): whether recordings are varied.
    """

    def __init__(self, rows, extractor, length: int, seed: int, augment: bool):
        self.rows = rows.select_columns(["keypoints", "shape", "layout", "fps", "cleaned", "sample_id"]).with_format(
            "numpy"
        )
        self.extractor = extractor
        self.length = length
        self.seed = seed
        self.augment = augment
        self.epoch = 0

    def start_epoch(self, epoch: int):
        """Called at the beginning of every epoch. Not named `set_epoch`: accelerate calls that too, and counts from 0 again
        when a run is resumed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        seed = stable_seed(self.seed, self.epoch, int(index))
        features = self.extractor(self.rows[int(index)], augment=self.augment, seed=seed, return_tensors="np")
        window = self.extractor.crop(features, self.length, seed)
        return {name: window[name][0] for name in ("input_features", "feature_attention_mask")}
