"""Training examples of stage 1 for skeletons: windows of augmented recordings."""

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
        with_labels (`bool`): whether examples have `labels`, their classes.
    """

    def __init__(
        self, rows, extractor, length: int, seed: int, augment: bool, denoise: bool = False, with_labels: bool = False
    ):
        columns = ["keypoints", "shape", "layout", "fps", "cleaned", "sample_id"] + ["label"] * with_labels
        self.rows = rows.select_columns(columns).with_format("numpy")
        self.extractor = extractor
        self.length = length
        self.seed = seed
        self.augment = augment
        self.denoise = denoise
        self.with_labels = with_labels
        self.epoch = 0

    def start_epoch(self, epoch: int):
        """Called at the beginning of every epoch. It is not named `set_epoch`, since accelerate calls methods of that name with
        an epoch that starts at 0 again when a run is resumed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        seed = stable_seed(self.seed, self.epoch, int(index))
        row = self.rows[int(index)]
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
