"""Collective operations of a distributed run. With a single process, each function returns its argument."""

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
        # Every rank computes a loss of the same total, so the gradient of the *summed* loss is the sum of their gradients.
        # Data-parallel training then averages over ranks, which gives the gradient of one loss.
        gradient = gradient.clone()
        torch.distributed.all_reduce(gradient)
        return gradient


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """
    Differentiable sum of `tensor` over all processes. Every process must call it with the same shape and dtype.

    Data-parallel training averages gradients over ranks; a loss of this sum then has the same gradient as in a single process
    with the whole batch.
    """
    return _SumOverRanks.apply(tensor) if world_size() > 1 else tensor


@torch.no_grad()
def from_first_rank(tensor: torch.Tensor) -> torch.Tensor:
    """The `tensor` of rank 0 on every rank, for random numbers that must agree."""
    if world_size() == 1:
        return tensor
    tensor = tensor.clone()
    torch.distributed.broadcast(tensor, src=0)
    return tensor


__all__ = ["world_size", "sum_over_ranks", "from_first_rank"]
