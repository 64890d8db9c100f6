"""ActionLLM encodes recordings of people as sentences of action tokens, from which a language model recognises the action.

Importing this package registers its classes with `AutoConfig`, `AutoModel`, `AutoModelForVideoClassification`,
`AutoFeatureExtractor`, `AutoProcessor` and `pipeline`. All modules are imported lazily.
"""

import importlib
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from .versions import check_major_version

if TYPE_CHECKING:
    from .configuration_action_llm import ActionLLMConfig
    from .configuration_action_vqvae import ActionVQVAEConfig
    from .configuration_resnet3d import ResNet3DConfig
    from .configuration_vst import VSTConfig
    from .configuration_vtem import VTEMConfig
    from .feature_extraction_skeleton import SkeletonFeatureExtractor
    from .feature_extraction_video import VideoFeatureExtractor
    from .modeling_action_llm import ActionLLMForClassification, ActionLLMForConditionalGeneration, ActionLLMModel
    from .modeling_action_vqvae import ActionVQVAEModel
    from .modeling_resnet3d import ResNet3DModel
    from .modeling_vst import VSTModel
    from .modeling_vtem import VTEMModel
    from .pipeline_action_recognition import ActionRecognitionPipeline
    from .processing_action_llm import ActionLLMProcessor
    from .versions import __version__

# Public names and their modules, which are imported when the name is used.
_MODULES = {
    "ActionLLMConfig": "configuration_action_llm",
    "ActionLLMForClassification": "modeling_action_llm",
    "ActionLLMForConditionalGeneration": "modeling_action_llm",
    "ActionLLMModel": "modeling_action_llm",
    "ActionLLMProcessor": "processing_action_llm",
    "ActionRecognitionPipeline": "pipeline_action_recognition",
    "ActionVQVAEConfig": "configuration_action_vqvae",
    "ActionVQVAEModel": "modeling_action_vqvae",
    "ResNet3DConfig": "configuration_resnet3d",
    "ResNet3DModel": "modeling_resnet3d",
    "SkeletonFeatureExtractor": "feature_extraction_skeleton",
    "VSTConfig": "configuration_vst",
    "VSTModel": "modeling_vst",
    "VTEMConfig": "configuration_vtem",
    "VTEMModel": "modeling_vtem",
    "VideoFeatureExtractor": "feature_extraction_video",
    "__version__": "versions",
}
# Entries of the auto classes: configurations by `model_type`, all other classes by configuration.
_CONFIGURATIONS = {
    "action_llm": "ActionLLMConfig",
    "action_vqvae": "ActionVQVAEConfig",
    "resnet3d": "ResNet3DConfig",
    "vst": "VSTConfig",
    "vtem": "VTEMConfig",
}
_MODELS = {
    "ActionVQVAEConfig": "ActionVQVAEModel",
    "ResNet3DConfig": "ResNet3DModel",
    "VSTConfig": "VSTModel",
    "VTEMConfig": "VTEMModel",
    "ActionLLMConfig": "ActionLLMForClassification",
}
_FEATURE_EXTRACTORS = {
    "ActionVQVAEConfig": "SkeletonFeatureExtractor",
    "VSTConfig": "VideoFeatureExtractor",
    "VTEMConfig": "VideoFeatureExtractor",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


class _Deferred(type):
    """A stand-in for a class of this package in the tables of the auto classes, which imports the class when it is used."""

    def __getattr__(cls, name: str):
        return getattr(_public(cls.__name__), name)

    def __call__(cls, *args, **kwargs):
        return _public(cls.__name__)(*args, **kwargs)

    def __instancecheck__(cls, instance) -> bool:
        return isinstance(instance, _public(cls.__name__))

    def __subclasscheck__(cls, subclass) -> bool:
        return issubclass(subclass, _public(cls.__name__))


def _public(name: str) -> type:
    return getattr(sys.modules[__name__], name)


def _register_configurations(auto):
    for model_type, name in _CONFIGURATIONS.items():
        auto.AutoConfig.register(model_type, _Deferred(name, (), {"model_type": model_type}), exist_ok=True)


def _register_models(auto):
    _register(auto.AutoModel, _MODELS)
    _register(auto.AutoModelForVideoClassification, {"ActionLLMConfig": "ActionLLMForClassification"})


def _register_feature_extractors(auto):
    _register(auto.AutoFeatureExtractor, _FEATURE_EXTRACTORS)


def _register_processor(auto):
    _register(auto.AutoProcessor, {"ActionLLMConfig": "ActionLLMProcessor"})


def _register(auto_class, names: dict[str, str]):
    for config, name in names.items():
        auto_class.register(_public(config), _Deferred(name, (), {"config_class": _public(config)}), exist_ok=True)


def _register_pipeline(pipelines):
    # The module registers its task itself, so that its copy in a repository works, too.
    importlib.import_module(".pipeline_action_recognition", __name__)


class _AfterImport(MetaPathFinder):
    """Registers the classes with modules of transformers as soon as these are imported, which takes seconds."""

    ACTIONS = {
        "transformers.models.auto.configuration_auto": _register_configurations,
        "transformers.models.auto.modeling_auto": _register_models,
        "transformers.models.auto.feature_extraction_auto": _register_feature_extractors,
        "transformers.models.auto.processing_auto": _register_processor,
        "transformers.pipelines": _register_pipeline,
    }

    def find_spec(self, fullname, path=None, target=None):
        action = self.ACTIONS.get(fullname)
        if action is None or (spec := PathFinder.find_spec(fullname, path, target)) is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            try:
                action(module)
            except ImportError as error:  # transformers works without this package
                warnings.warn(f"the classes of ActionLLM are not registered with {fullname}: {error}", stacklevel=2)

        spec.loader.exec_module = exec_module
        return spec


check_major_version()
sys.meta_path.insert(0, _AfterImport())
for _name, _action in _AfterImport.ACTIONS.items():
    if _name in sys.modules:
        _action(sys.modules[_name])

__all__ = [
    "ActionLLMConfig",
    "ActionLLMForClassification",
    "ActionLLMForConditionalGeneration",
    "ActionLLMModel",
    "ActionLLMProcessor",
    "ActionRecognitionPipeline",
    "ActionVQVAEConfig",
    "ActionVQVAEModel",
    "ResNet3DConfig",
    "ResNet3DModel",
    "SkeletonFeatureExtractor",
    "VSTConfig",
    "VSTModel",
    "VTEMConfig",
    "VTEMModel",
    "VideoFeatureExtractor",
    "__version__",
]
