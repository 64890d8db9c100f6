"""A training that is killed after a step, within the process of the test."""

from transformers import TrainerCallback


class Kill(TrainerCallback):
    """Ends the training as Ctrl-C does, after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt
