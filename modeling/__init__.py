"""ActionLLM: recordings of people become sentences of action tokens, and a language model says what they do.

Importing this package makes its classes known to `AutoConfig`, `AutoModel`, `AutoFeatureExtractor`, `AutoProcessor` and
`pipeline`.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoProcessor,
)

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

AutoConfig.register(ActionVQVAEConfig.model_type, ActionVQVAEConfig)
AutoConfig.register(ResNet3DConfig.model_type, ResNet3DConfig)
AutoConfig.register(VSTConfig.model_type, VSTConfig)
AutoConfig.register(VTEMConfig.model_type, VTEMConfig)
AutoConfig.register(ActionLLMConfig.model_type, ActionLLMConfig)
AutoModel.register(ActionVQVAEConfig, ActionVQVAEModel)
AutoModel.register(ResNet3DConfig, ResNet3DModel)
AutoModel.register(VSTConfig, VSTModel)
AutoModel.register(VTEMConfig, VTEMModel)
AutoModel.register(ActionLLMConfig, ActionLLMForClassification)
AutoModelForVideoClassification.register(ActionLLMConfig, ActionLLMForClassification)
AutoFeatureExtractor.register(ActionVQVAEConfig, SkeletonFeatureExtractor)
AutoFeatureExtractor.register(VSTConfig, VideoFeatureExtractor)
AutoFeatureExtractor.register(VTEMConfig, VideoFeatureExtractor)
AutoProcessor.register(ActionLLMConfig, ActionLLMProcessor)

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
]
