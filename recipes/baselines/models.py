"""Small classifiers of sequences as baselines: kernel ridge, a transformer, a graph network (ST-GCN).

All of them take a list of sequences, an array for each recording, and integer labels (N,). Kernel ridge gives scores, the two
networks give log-probabilities, both (N, classes). `fit` trains the networks.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from action_llm_recipes.common.padding import padded

if TYPE_CHECKING:
    from action_llm.skeleton_layouts import SkeletonLayout


class KernelRidge:
    """Kernel ridge regression to one-hot classes, from frames resampled in time and their differences.

    The kernel is exp(-gamma d² / m), where d is the distance between two recordings and m the median of d² over the training
    recordings. (K + ridge I) A = Y - mean(Y) is solved exactly, in float64.

    Args:
        num_classes: number of classes.
        frames: number of frames that every recording is resampled to, by linear interpolation.
        difference_weight: weight of the differences between consecutive resampled frames; the frames have weight 1.
        gamma: γ of the kernel; the higher, the narrower.
        ridge: weight of the ridge penalty.
    """

    def __init__(
        self,
        num_classes: int,
        frames: int = 16,
        difference_weight: float = 0.6,
        gamma: float = 3.0,
        ridge: float = 0.1,
    ):
        self.num_classes = num_classes
        self.frames = frames
        self.difference_weight = difference_weight
        self.gamma = gamma
        self.ridge = ridge

    def fit(self, sequences: Sequence[np.ndarray], labels: np.ndarray) -> "KernelRidge":
        """Fits sequences (frames, channels) and labels (N,)."""
        self.vectors = self._vectors(sequences)
        squared = _squared_distances(self.vectors, self.vectors)
        above = squared[np.triu_indices(len(squared), 1)]
        self.scale = float(np.median(above)) if above.size and above.any() else 1.0
        targets = np.eye(self.num_classes)[labels]
        self.mean = targets.mean(axis=0)
        kernel = np.exp(-self.gamma * squared / self.scale)
        self.weights = np.linalg.solve(kernel + self.ridge * np.eye(len(kernel)), targets - self.mean)
        return self

    def scores(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """float64 (N, classes): higher means more likely; not probabilities."""
        squared = _squared_distances(self._vectors(sequences), self.vectors)
        return np.exp(-self.gamma * squared / self.scale) @ self.weights + self.mean

    def _vectors(self, sequences):
        vectors = []
        for sequence in sequences:
            joints = resample(np.asarray(sequence, dtype=np.float64), self.frames)
            vectors.append(np.concatenate([joints.ravel(), self.difference_weight * np.diff(joints, axis=0).ravel()]))
        return np.stack(vectors)


class SequenceTransformer(nn.Module):
    """Transformer encoder over a sequence, mean over its positions, linear classifier.

    Set `input_size` to read vectors (joints, continuous latents, code vectors), which are standardised by the training data;
    set `vocabulary_size` to read token ids, which are embedded.

    Raises:
        ValueError: unless exactly one of `input_size` and `vocabulary_size` is given.
    """

    def __init__(
        self,
        num_classes: int,
        input_size: int | None = None,
        vocabulary_size: int | None = None,
        hidden_size: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        dropout: float = 0.2,
    ):
        super().__init__()
        if (input_size is None) == (vocabulary_size is None):
            raise ValueError(f"expected either input_size or vocabulary_size; got {input_size} and {vocabulary_size}.")
        if input_size is None:
            self.embed = nn.Embedding(vocabulary_size, hidden_size)
        else:
            self.embed = nn.Sequential(_Standardize(input_size), nn.Linear(input_size, hidden_size))
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            hidden_size, num_heads, 4 * hidden_size, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(hidden_size), enable_nested_tensor=False)
        self.classify = nn.Linear(hidden_size, num_classes)

    def forward(self, sequences: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        Args:
            sequences: float (B, W, D); token ids int (B, W), or (B, W, R) for words of several tokens.
            mask: bool (B, W), False where padded.

        Returns:
            Logits (B, classes).
        """
        hidden = self.embed(sequences)
        if hidden.ndim == 4:  # the embedding of a word is the sum of those of its tokens
            hidden = hidden.sum(dim=2)
        hidden = self.dropout(hidden + _positions(hidden.shape[1], hidden.shape[2]).to(hidden))
        hidden = self.encoder(hidden, src_key_padding_mask=~mask)
        weights = mask.to(hidden)[..., None]
        return self.classify((hidden * weights).sum(dim=1) / weights.sum(dim=1))


class SkeletonGraphNetwork(nn.Module):
    """A small spatial-temporal graph network after ST-GCN (Yan et al. 2018).

    Each block sums graph convolutions over three partitions of the bones (the joint itself, towards the root, away from it)
    with learned weights on the bones, and then convolves over time. The network reads joints, bone vectors and motion.
    Recordings are resampled to `frames` frames; features are averaged over the people who are present.
    """

    def __init__(
        self,
        num_classes: int,
        layout: "SkeletonLayout",
        num_persons: int,
        coordinates: int,
        frames: int = 32,
        channels: Sequence[int] = (48, 48, 96, 96),
        dropout: float = 0.2,
    ):
        super().__init__()
        self.persons, self.joints, self.coordinates, self.frames = num_persons, layout.num_joints, coordinates, frames
        self.register_buffer("adjacency", torch.tensor(bone_partitions(layout), dtype=torch.float32))
        # The root has no bone: its bone vector is 0.
        self.parents = [joint if parent < 0 else parent for joint, parent in enumerate(layout.parents)]
        self.normalize = nn.BatchNorm1d(3 * coordinates * layout.num_joints)
        self.blocks = nn.ModuleList()
        previous = 3 * coordinates
        for size in channels:
            stride = 2 if self.blocks and size > previous else 1
            self.blocks.append(_GraphBlock(previous, size, self.adjacency, stride, dropout))
            previous = size
        self.classify = nn.Linear(previous, num_classes)

    def forward(self, sequences: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Float (B, T, persons * joints * coordinates) and bool (B, T), False where padded → logits (B, classes)."""
        batch = len(sequences)
        people = _resample_batch(sequences, mask, self.frames)
        people = people.view(batch, self.frames, self.persons, self.joints, self.coordinates)
        people = people.transpose(1, 2).flatten(0, 1)  # (B P, T, J, C)
        present = people.abs().sum(dim=(1, 2, 3)) > 0
        present |= ~present.view(batch, self.persons).any(dim=1).repeat_interleave(self.persons)
        people = people[present]
        bones = people - people[:, :, self.parents]
        motion = torch.diff(people, dim=1, append=people[:, -1:])
        hidden = torch.cat([people, bones, motion], dim=-1).permute(0, 3, 1, 2)  # (N, C, T, J)
        flat = self.normalize(hidden.transpose(2, 3).flatten(1, 2))
        hidden = flat.unflatten(1, (hidden.shape[1], self.joints)).transpose(2, 3)
        for block in self.blocks:
            hidden = block(hidden)
        pooled = hidden.mean(dim=(2, 3))
        owner = present.nonzero().squeeze(1) // self.persons
        total = torch.zeros(batch, pooled.shape[1], device=pooled.device).index_add(0, owner, pooled)
        return self.classify(total / torch.bincount(owner, minlength=batch)[:, None])


class _GraphBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, adjacency: torch.Tensor, stride: int, dropout: float):
        super().__init__()
        self.adjacency = adjacency
        self.importance = nn.Parameter(torch.ones_like(adjacency))
        self.spatial = nn.Conv2d(inputs, outputs * len(adjacency), 1)
        self.temporal = nn.Sequential(
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, (5, 1), (stride, 1), (2, 0)),
            nn.BatchNorm2d(outputs),
            nn.Dropout(dropout),
        )
        keeps_shape = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity()
            if keeps_shape
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, (stride, 1)), nn.BatchNorm2d(outputs))
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, C, T, J) → (N, C', T / stride, J)."""
        graph = (self.adjacency.to(hidden) * self.importance).transpose(1, 2)  # (3, from, to)
        parts = self.spatial(hidden).unflatten(1, (len(graph), -1))
        mixed = sum(parts[:, index] @ graph[index] for index in range(len(graph)))
        return torch.relu(self.temporal(mixed) + self.shortcut(hidden))


class _Standardize(nn.Module):
    """Standardises each channel to mean 0 and standard deviation 1 over the training data (see `fit`)."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def measure(self, sequences: Sequence[np.ndarray]):
        """Sets mean and standard deviation to those over all positions of the sequences (W, size)."""
        stacked = np.concatenate([np.asarray(sequence, dtype=np.float64) for sequence in sequences])
        self.mean.copy_(torch.from_numpy(stacked.mean(axis=0)))
        # A constant channel becomes 0.
        self.deviation.copy_(torch.from_numpy(np.maximum(stacked.std(axis=0), 1e-3)))

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        return (sequences - self.mean) / self.deviation


def fit(
    model: nn.Module,
    sequences: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    steps: int,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    label_smoothing: float = 0.1,
    seed: int = 0,
) -> nn.Module:
    """Trains a network with cross-entropy, AdamW and a cosine schedule. Equal arguments give equal results.

    Args:
        model: a network of this file, or another that takes padded sequences and their mask. The caller initialises it.
        sequences: an array of vectors (W, D) or of token ids (W,) for each example.
        labels: (N,) integers, the class of each sequence.
        steps: number of optimiser steps.
        batch_size: number of sequences in a batch.
        learning_rate, weight_decay: settings of AdamW.
        label_smoothing: label smoothing of the cross-entropy.
        seed: seed of the order of examples and of dropout.

    Raises:
        ValueError: if there is no sequence, or the numbers of sequences and labels differ.
    """
    if len(sequences) != len(labels) or not len(labels):
        raise ValueError(
            f"expected a label for each sequence, and at least one; got {len(sequences)} sequences and {len(labels)} labels."
        )
    for module in model.modules():
        if isinstance(module, _Standardize):
            module.measure(sequences)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    order = _batches(len(labels), batch_size, np.random.default_rng(seed))
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(steps):
            chosen = next(order)
            logits = model(*collate([sequences[index] for index in chosen]))
            target = torch.as_tensor(np.asarray(labels)[chosen], dtype=torch.long)
            loss = nn.functional.cross_entropy(logits, target, label_smoothing=label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def log_probabilities(model: nn.Module, sequences: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
    """Log-probabilities of the classes of each sequence, float64 (N, classes)."""
    model.eval()
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    result: list[np.ndarray | None] = [None] * len(sequences)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        logits = model(*collate([sequences[index] for index in chosen])).double()
        for index, row in zip(chosen, logits.log_softmax(dim=-1).numpy(), strict=True):
            result[index] = row
    return np.stack(result)


def collate(sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads arrays (W, D) or (W,) to a tensor, float32 or for token ids int64; returns it and its bool mask (B, W).

    Raises:
        ValueError: if a sequence is empty.
    """
    ids = np.issubdtype(np.asarray(sequences[0]).dtype, np.integer)
    tensors = [
        torch.as_tensor(np.asarray(sequence), dtype=torch.long if ids else torch.float32) for sequence in sequences
    ]
    if empty := [index for index, tensor in enumerate(tensors) if len(tensor) == 0]:
        raise ValueError(f"sequence {empty[0]} of the batch is empty.")
    batch, mask = padded(tensors)
    return batch, mask.bool()


def join_frames(features: np.ndarray, count: int) -> np.ndarray:
    """Joins groups of frames, as many as a token covers, to vectors: (T, D) → (T / count, count D).

    Raises:
        ValueError: if T is not a multiple of `count`.
    """
    if len(features) % count:
        raise ValueError(f"{len(features)} frames cannot be joined in groups of {count}.")
    return features.reshape(len(features) // count, -1)


def resample(sequence: np.ndarray, frames: int) -> np.ndarray:
    """Resamples (T, ...) to (frames, ...) by linear interpolation from the first frame to the last."""
    position = np.linspace(0, len(sequence) - 1, frames)
    early = np.floor(position).astype(int)
    late = np.minimum(early + 1, len(sequence) - 1)
    weight = (position - early).reshape(-1, *[1] * (sequence.ndim - 1))
    return sequence[early] * (1 - weight) + sequence[late] * weight


def bone_partitions(layout: "SkeletonLayout") -> np.ndarray:
    """The spatial partition of ST-GCN (section 3.3): matrices (3, J, J) of each joint itself, its parent, and its children.

    Entry (to, from) is the weight of joint `from` for joint `to`; rows sum to 1, or to 0 where there is no such joint.
    """
    joints = layout.num_joints
    own, inward, outward = np.eye(joints), np.zeros((joints, joints)), np.zeros((joints, joints))
    for child, parent in layout.bones:
        inward[child, parent] = 1
        outward[parent, child] = 1
    partitions = np.stack([own, inward, outward])
    totals = partitions.sum(axis=2, keepdims=True)
    return np.divide(partitions, totals, out=np.zeros_like(partitions), where=totals > 0)


def _resample_batch(sequences: torch.Tensor, mask: torch.Tensor, frames: int) -> torch.Tensor:
    """Like `resample`, for a batch: (B, T, D), of which the first mask.sum(1) frames are valid, → (B, frames, D)."""
    last = mask.sum(dim=1, keepdim=True) - 1
    position = torch.linspace(0, 1, frames, device=sequences.device) * last
    early = position.floor().long()
    late = torch.minimum(early + 1, last)
    weight = (position - early)[..., None]
    rows = torch.arange(len(sequences), device=sequences.device)[:, None]
    return torch.lerp(sequences[rows, early], sequences[rows, late], weight)


def _positions(length: int, size: int) -> torch.Tensor:
    """Sinusoidal position encodings (length, size) (Vaswani et al. 2017, section 3.5)."""
    angle = torch.arange(length)[:, None] * torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :size]


def _squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squared = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return np.maximum(squared, 0)


def _batches(count: int, batch_size: int, rng: np.random.Generator):
    """Yields batches of indices without end, from random permutations of all examples."""
    pool = np.array([], dtype=int)
    while True:
        while len(pool) < batch_size:
            pool = np.concatenate([pool, rng.permutation(count)])
        yield pool[:batch_size]
        pool = pool[batch_size:]
