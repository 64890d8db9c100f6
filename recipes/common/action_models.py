"""Whether features belong to an action model, and whether its sentences merge equal tokens."""

from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.fingerprints import weights_fingerprint


def check_features(data: DataArguments, model, extractor):
    """
    Checks that stored features are those that an action model reads.

    Args:
        data: what the recipe reads. Nothing is checked for recordings.
        model, extractor: the action model and its feature extractor.

    Raises:
        ValueError: if the features were made by another visual encoder or with other settings.
    """
    from action_llm import VideoFeatureExtractor

    made = data.features_record("identity.json")
    if made is None:
        return
    own = extractor.to_dict()
    # Settings that are missing in the file had their defaults when it was written.
    stored = VideoFeatureExtractor.from_dict(made["extractor"]).to_dict()
    differ = sorted(name for name in {*own, *stored} - {"auto_map"} if own.get(name) != stored.get(name))
    encoder = model.visual_encoder
    if weights_fingerprint(encoder.backbone) != made["backbone"]:
        differ.append("visual encoder")
    differ += [name for name in ("grid", "feature_layer") if getattr(encoder, name) != made.get(name)]
    if differ:
        raise ValueError(
            f"the features in {data.data_dir} are not those of the action model, which was trained with another "
            f"{', '.join(differ)}: extract features with the visual encoder and the settings of the action model."
        )


def merges_runs(config) -> bool:
    """Whether an action model merges runs of equal tokens into a single token."""
    return config.quantize and getattr(config, "merge_runs", False)
