"""Sums over the processes of a distributed run. With one process, or none initialised, each is the identity."""

import torch
import torch.distributed


def world_size() -> int:
    """Number of processes of the default group; 1 when `torch.distributed` is not initialised."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor):
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        # Every rank computes a loss of the same total, so the gradient of the ranks' *summed* loss is the sum of
        # theirs. Data-parallel training then averages over ranks and is left with the gradient of one such loss.
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """
    Sum of `tensor` over all processes, differentiable: under data-parallel training, which averages gradients over
    ranks, a loss of the sum gets exactly the gradient it has in one process with the whole batch.

    Every process must call it with the same shape and dtype.
    """
    return _SumOverRanks.apply(tensor) if world_size() > 1 else tensor


@torch.no_grad()
def from_first_rank(tensor: torch.Tensor) -> torch.Tensor:
    """The `tensor` of process 0 on every process, for what is drawn at random and must be the same everywhere."""
    if world_size() == 1:
        return tensor
    tensor = tensor.clone()
    torch.distributed.broadcast(tensor, src=0)
    return tensor


__all__ = ["world_size", "sum_over_ranks", "from_first_rank"]
