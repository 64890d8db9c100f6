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
            the larger one. Absent people are not blended. 0 disables mixup (Zhang et al., "mixup: Beyond Empirical Risk
            Minimization", 2018).
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
        """`share` of an example and the rest of another, in frames in which both have a person; what the other does not have
        stays as it is. The other's class has its mean share of the people and frames of the example."""
        here, there = (self._people(of["input_features"]) for of in (example, other))  # (T, persons, values)
        shown = np.any(here != 0, axis=2)
        shares = np.where(shown & np.any(there != 0, axis=2), share, np.float32(1))[..., None]
        blended = dict(example)
        for name in ("input_features", "target_features"):
            if name in example:
                mixed = shares * self._people(example[name]) + (1 - shares) * self._people(other[name])
                blended[name] = mixed.reshape(example[name].shape)
        if self.with_labels:
            # The sum of equal float32 numbers is exact in float64.
            own = np.float32(shares[shown].mean(dtype=np.float64)) if shown.any() else np.float32(1)
            labels = np.zeros(self.num_classes, dtype=np.float32)
            labels[example["labels"]] += own
            labels[other["labels"]] += 1 - own
            blended["labels"] = labels
        return blended

    def _people(self, features: np.ndarray) -> np.ndarray:
        """Features (T, C) as (T, persons, values); those of absent people and of padding are zeros."""
        return features.reshape(len(features), self.extractor.num_persons, -1)
