"""Muon: steps of hidden matrices made orthogonal, so that a small model learns most from few tokens."""

import torch


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") for the matrices inside a
    model, AdamW (Loshchilov and Hutter 2019) for all other weights, as one optimiser with one learning rate.

    Muon's steps are scaled by 0.2 √(larger side), which gives them the size of AdamW's (Liu et al. 2025, "Muon is
    scalable for LLM training", section 2.2). Matrices of one shape are made orthogonal together, in float32.

    Args:
        model (`torch.nn.Module`): its embeddings and heads, its vectors and anything else that is not (out, in) go to
            AdamW; all other matrices go to Muon.
        lr, weight_decay: of both; only matrices and tables decay.
        momentum: of Muon, with Nesterov's look-ahead.
        betas, eps: of AdamW.
    """

    # The quintic that makes singular values meet near 1 in five steps, from Muon's authors.
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
        """One step of every weight that has a gradient; returns the loss of `closure`, if there is one."""
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

    Five steps leave them between about 0.7 and 1.2, which is as good to the optimiser as 1.
    """
    first, third, fifth = coefficients
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = wide.float() / wide.float().norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = wide @ wide.mT
        wide = first * wide + (third * gram + fifth * gram @ gram) @ wide
    return (wide if matrices.shape[1] <= matrices.shape[2] else wide.mT).to(matrices.dtype)
