"""Training examples of stage 1 for skeletons: windows of augmented recordings."""

import numpy as np
from torch.utils.data import Dataset

from action_llm.recording_versions import stable_seed


class RecordingWindows(Dataset):
    """One window of each recording per epoch, augmented anew each time.

    An example depends only on the seed, the epoch and its index, so a resumed run sees the same examples as one that was not
    interrupted.

    Args:
        rows (`datasets.Dataset`): recordings.
        extractor (`SkeletonFeatureExtractor`): feature extractor.
        length (`int`): length of a window, in frames; shorter recordings are padded.
        seed (`int`): seed of the augmentation and of the position of windows.
        augment (`bool`): whether recordings are augmented.
        denoise (`bool`): whether examples have `target_features`, the same frames without augmentation.
        mixup (`float`): α of the beta distribution by which a window is blended with one of another recording; its own share is
            the larger one. 0 disables mixup (Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018).
        with_labels (`bool`): whether examples have `labels`: their class or, with mixup, the shares of classes (num_classes,).
    """

    def __init__(
        self,
        rows,
        extractor,
        length: int,
        seed: int,
        augment: bool,
        denoise: bool = False,
        mixup: float = 0.0,
        with_labels: bool = False,
    ):
        columns = ["keypoints", "shape", "layout", "fps", "cleaned", "sample_id"] + ["label"] * with_labels
        self.rows = rows.select_columns(columns).with_format("numpy")
        self.extractor = extractor
        self.length = length
        self.seed = seed
        self.augment = augment
        self.denoise = denoise
        self.mixup = mixup
        self.with_labels = with_labels
        self.num_classes = rows.features["label"].num_classes if with_labels else None
        self.epoch = 0

    def start_epoch(self, epoch: int):
        """Called at the beginning of every epoch. It is not named `set_epoch`, since accelerate calls methods of that name with
        an epoch that starts at 0 again when a run is resumed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        seed = stable_seed(self.seed, self.epoch, int(index))
        example = self._window(int(index), seed)
        if self.mixup == 0:
            return example
        generator = np.random.default_rng(stable_seed(seed, "mixup"))
        share = generator.beta(self.mixup, self.mixup)
        other = self._window(int(generator.integers(len(self))), stable_seed(seed, "other"))
        return self._blended(example, other, np.float32(max(share, 1 - share)))

    def _window(self, index: int, seed: int) -> dict:
        """A window of a recording, without mixup."""
        row = self.rows[index]
        features = self.extractor(
            row,
            augment=self.augment,
            seed=seed,
            return_original=self.denoise,
            return_tensors="np",
        )
        window = self.extractor.crop(features, self.length, seed)
        example = {name: window[name][0] for name in ("input_features", "feature_attention_mask")}
        if self.denoise:
            example["target_features"] = window["original_features"][0]
        if self.with_labels:
            example["labels"] = int(row["label"])
        return example

    def _blended(self, example: dict, other: dict, share: np.float32) -> dict:
        """`share` of an example and the rest of another. Frames that the other does not have stay as they are."""
        shares = np.where(other["feature_attention_mask"][:, None] > 0, share, np.float32(1))
        blended = dict(example)
        for name in ("input_features", "target_features"):
            if name in example:
                blended[name] = shares * example[name] + (1 - shares) * other[name]
        if self.with_labels:
            labels = np.zeros(self.num_classes, dtype=np.float32)
            labels[example["labels"]] += share
            labels[other["labels"]] += 1 - share
            blended["labels"] = labels
        return blended
