"""Action models in recipes: whether features are those that a model reads, and what its sentences are like."""

from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.fingerprints import weights_fingerprint


def check_features(data: DataArguments, model, extractor):
    """Raises `ValueError` for features that another visual encoder made than the action model's, or that it made otherwise."""
    from action_llm import VideoFeatureExtractor

    made = data.features_record("identity.json")
    if made is None:
        return
    # What is not in it had its default when it was written.
    own, settings = (one.to_dict() for one in (extractor, VideoFeatureExtractor.from_dict(made["extractor"])))
    differ = sorted(name for name in {*own, *settings} - {"auto_map"} if own.get(name) != settings.get(name))
    encoder = model.visual_encoder
    if weights_fingerprint(encoder.backbone) != made["backbone"]:
        differ.append("visual encoder")
    differ += [name for name in ("grid", "feature_layer") if getattr(encoder, name) != made.get(name)]
    if differ:
        raise ValueError(
            f"the features in {data.data_dir} are not those of the action model, which was trained with another "
            f"{', '.join(differ)}."
        )


def merges_runs(config) -> bool:
    """Whether an action model makes one token of equal ones that follow each other."""
    return config.quantize and getattr(config, "merge_runs", False)
