"""Names that transformers changed between the supported releases.

before 5.20   a composite configuration has `sub_configs` and converts them itself; since then, `sub_configs_defaults`
before 5.24   models take and return their key-value cache as `past_key_values`; since then, as `cache`
"""

from dataclasses import fields

from transformers import AutoConfig, configuration_utils
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import logging

from .versions import check_major_version, untested_versions

check_major_version()
from transformers.configuration_utils import PreTrainedConfig  # noqa: E402  (transformers 4 has it under another name)

logger = logging.get_logger(__name__)

for _sentence in untested_versions():
    logger.warning_once(_sentence)

# Name of the key-value cache in the arguments and outputs of models.
CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"

if hasattr(configuration_utils, "SubConfigSpec"):
    SubConfigSpec = configuration_utils.SubConfigSpec
    CompositeConfig = PreTrainedConfig
else:

    class SubConfigSpec:
        """A nested configuration: its class `AutoConfig`, and the default `model_type`."""

        def __init__(self, config_class: type, model_type: str):
            self.config_class, self.model_type = config_class, model_type

        def build(self, value: dict | None) -> PreTrainedConfig:
            value = dict(value or {})
            return AutoConfig.for_model(value.pop("model_type", self.model_type), **value)

    class CompositeConfig(PreTrainedConfig):
        """A configuration with nested configurations, which are listed in `sub_configs_defaults`."""

        sub_configs_defaults = {}

        def __init_subclass__(cls, *args, **kwargs):
            super().__init_subclass__(*args, **kwargs)
            cls.sub_configs = {name: spec.config_class for name, spec in cls.sub_configs_defaults.items()}


def build_sub_config(spec: SubConfigSpec, name: str, value: dict | None) -> PreTrainedConfig:
    """Builds the nested configuration of the field `name`."""
    return spec.create_subconfig(name, value)[0] if hasattr(spec, "create_subconfig") else spec.build(value)


__all__ = ["CACHE", "CompositeConfig", "PreTrainedConfig", "SubConfigSpec", "build_sub_config"]
