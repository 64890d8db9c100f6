"""The trainer of stage 1."""

from collections import deque

from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import SchedulerType


class StartEpoch(TrainerCallback):
    """Tells the training examples which epoch begins, also in a run that was resumed within an epoch."""

    def __init__(self, examples):
        self.examples = examples

    def on_epoch_begin(self, args, state, control, **kwargs):
        # The epoch is a sum of fractions, and may be slightly below a whole number.
        self.examples.start_epoch(int((state.epoch or 0) + 1e-6))


class TokenizerTrainer(Trainer):
    """`Trainer` that logs each loss term and the usage of the codebook, and shows a stage all micro-batches of an optimiser
    step before the first of them is trained on."""

    def __init__(self, *args, stage, **kwargs):
        super().__init__(*args, **kwargs)
        self.stage = stage
        # The micro-batches of the optimiser step that begins, and the extra inputs of those that are still to be trained on.
        self._micro_batches, self._extra_inputs = [], deque()
        self._terms, self._usage = {}, None

    def get_batch_samples(self, *args, **kwargs):
        self._micro_batches, num_items = super().get_batch_samples(*args, **kwargs)
        return self._micro_batches, num_items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs, **self._next_extra_inputs(inputs))
        self._remember(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _next_extra_inputs(self, inputs: dict) -> dict:
        """The extra inputs of a micro-batch. Those of its step are computed at its first micro-batch, not in
        `get_batch_samples`, after which a resumed run restores the random state."""
        if self._micro_batches or not self._extra_inputs:
            step = [self._prepare_inputs(batch) for batch in self._micro_batches] or [inputs]
            with self.accelerator.autocast():
                self._extra_inputs = deque(self.stage.extra_inputs(self.accelerator.unwrap_model(self.model), step))
            self._micro_batches = []
        return self._extra_inputs.popleft()

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """With `lr_scheduler_type="constant"`, the schedule of LLM-AR: linear warm-up, then a single drop."""
        from torch.optim.lr_scheduler import LambdaLR

        args = self.args
        if args.lr_scheduler_type != SchedulerType.CONSTANT:
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = args.get_warmup_steps(num_training_steps)

        def factor(step: int) -> float:
            dropped = args.lr_drop_step is not None and step >= args.lr_drop_step
            return min(1.0, (step + 1) / max(warmup, 1)) * (args.lr_drop_factor if dropped else 1.0)

        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None):
        if "loss" in logs and self._terms:
            from action_llm.language_priors import usage_statistics

            logs |= {name: float(total / count) for name, (total, count) in self._terms.items()}
            if self._usage is not None:
                usage = self.accelerator.reduce(self._usage, reduction="sum")
                logs |= {f"codebook/{name}": value for name, value in usage_statistics(usage).items()}
            self._terms, self._usage = {}, None
        super().log(logs, start_time)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Evaluates whole recordings, without augmentation."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        model = self.accelerator.unwrap_model(self.model)
        metrics = {
            f"{metric_key_prefix}_{name}": value
            for name, value in self.stage.evaluate(model, rows, self.args.eval_batch_size).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _remember(self, outputs):
        for name, value in outputs.items():
            if name.endswith("_loss"):
                total, count = self._terms.get(name, (0.0, 0))
                self._terms[name] = (total + value.detach(), count + 1)
        if outputs.usage is not None:
            self._usage = outputs.usage.detach() + (0 if self._usage is None else self._usage)
