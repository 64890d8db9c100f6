"""Features of tiny videos by the recipe, for tests of the lines that read videos."""

from action_llm_recipes.common.data_arguments import DataArguments


def extract(videos, backbone, folder, cache, reading=None, task=None, **settings):
    """Of a `folder-video`; `settings` are `FeatureArguments`, `reading` is `VideoArguments`, and `task` `TaskArguments`."""
    from action_llm_recipes import extract_features as recipe

    reading = recipe.VideoArguments(
        **{"num_segments": 6, "frames_per_segment": 2, "height": 32, "width": 32} | (reading or {})
    )
    recipe.main(
        recipe.FeatureArguments(
            backbone=backbone, output_dir=str(folder), **{"versions": 3, "batch_size": 4} | settings
        ),
        DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(cache)),
        reading,
        task,
    )
    return str(folder)
