"""Muon, an optimiser with orthogonalised steps, with which a small model learns more from few tokens."""

import torch


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") for the hidden matrices of a
    model and AdamW (Loshchilov and Hutter 2019) for all other weights, as one optimiser with one learning rate.

    Muon's steps are scaled by 0.2 √(larger side), which gives them the size of AdamW's (Liu et al. 2025, "Muon is
    scalable for LLM training", section 2.2). Matrices of one shape are orthogonalised together, in float32.

    `torch.optim.Muon`, which the tests compare with, orthogonalises one matrix at a time in bfloat16. CPUs without bfloat16
    instructions emulate it, which makes training several times slower (`benchmarks/benchmark_muon.py`).

    Args:
        model (`torch.nn.Module`): Muon trains its (out, in) matrices, AdamW its embedding tables, output head, vectors and
            all other weights.
        lr (`float`), weight_decay (`float`): settings of both parts; vectors do not decay.
        momentum (`float`): Nesterov momentum of Muon.
        betas (`tuple[float, float]`), eps (`float`): settings of AdamW.
    """

    # Coefficients of the quintic Newton–Schulz step from Muon's authors: singular values come near 1 in five steps.
    coefficients = (3.4445, -4.7750, 2.0315)
    iterations = 5

    def __init__(self, model, lr=3e-3, weight_decay=0.1, momentum=0.95, betas=(0.9, 0.95), eps=1e-8):
        tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
        shared = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum}
        groups = {"matrices": [], "tables": [], "vectors": []}
        for parameter in model.parameters():
            if parameter.ndim != 2:
                groups["vectors"].append(parameter)
            elif any(parameter is table for table in tables):
                groups["tables"].append(parameter)
            else:
                groups["matrices"].append(parameter)
        super().__init__(
            [
                {"params": params, "name": name, "weight_decay": 0.0 if name == "vectors" else weight_decay}
                for name, params in groups.items()
                if params
            ],
            shared,
        )

    @torch.no_grad()
    def step(self, closure=None):
        """Updates all weights that have a gradient. Returns the loss of `closure`, or None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            if group["name"] == "matrices":
                self._step_matrices(parameters, group)
            else:
                for parameter in parameters:
                    self._step_adamw(parameter, group)
        return loss

    def _step_matrices(self, parameters, group):
        shapes = {}
        for parameter in parameters:
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 1 - group["momentum"])
            update = parameter.grad.lerp(momentum, group["momentum"])
            shapes.setdefault(parameter.shape, []).append((parameter, update))
        for shape, pairs in shapes.items():
            updates = orthogonalize(torch.stack([update for _, update in pairs]), self.coefficients, self.iterations)
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.add_(update, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _step_adamw(self, parameter, group):
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        mean, square = state["mean"], state["square"]
        mean.lerp_(parameter.grad, 1 - beta1)
        square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        scale = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - beta1**step))


def orthogonalize(matrices: torch.Tensor, coefficients=Muon.coefficients, iterations: int = Muon.iterations):
    """Moves the singular values of each matrix towards 1 by Newton–Schulz steps. (N, out, in) → (N, out, in).

    After five steps they lie between about 0.7 and 1.2, which serves the optimiser as well as 1.
    """
    first, third, fifth = coefficients
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = wide.float() / wide.float().norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = wide @ wide.mT
        wide = first * wide + (third * gram + fifth * gram @ gram) @ wide
    return (wide if matrices.shape[1] <= matrices.shape[2] else wide.mT).to(matrices.dtype)
