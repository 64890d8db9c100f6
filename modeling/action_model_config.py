"""Base of the configurations of action models: what their codebooks and losses have in common."""

from .checked_config import CheckedConfig


class ActionModelConfig(CheckedConfig):
    """
    Base of [`ActionVQVAEConfig`], [`VSTConfig`] and [`VTEMConfig`].

    A subclass has the fields of a codebook ([`~codebook.Codebook.from_config`]), and losses with a field `…_weight` each.
    """

    # Number of codes whose sum is a word; a field where residual quantisation is possible.
    num_codebooks = 1

    def validate_codebook_averages(self):
        """The decay and the threshold of average usage are fractions."""
        self.check_fractions("ema_decay", "dead_code_threshold")

    def validate_loss_weights(self):
        """Weights of losses must not be negative."""
        self.check_not_negative(*(name for name in self.__dataclass_fields__ if name.endswith("_weight")))

    @property
    def num_action_tokens(self) -> int:
        """Number of tokens of all codebooks."""
        return self.num_codebooks * self.codebook_size


__all__ = ["ActionModelConfig"]
