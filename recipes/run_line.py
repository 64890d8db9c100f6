"""
The whole line of LLM-AR in one command: action model, sentences, language model, evaluation.

```bash
python -m action_llm_datasets.folder my_recordings --pattern '(?P<label>\\w+)_person(?P<person>\\d+).*' --test person=3,7 \\
    --layout kinect20 --fps 30
python recipes/run_line.py --dataset folder --data_dir my_recordings --output_dir runs/mine
```

It runs `train_tokenizer.py`, `encode_actions.py`, `sft.py` and `evaluate_classifier.py` after each other with the settings
of two YAML files, by default those of UTD-MHAD, a few hundred recordings on two cores. Without `--llm_name_or_path` it
first makes a small language model. `--hold_out true` evaluates on the recordings that select, and leaves the test alone.
A run that was stopped goes on where it was.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from data_arguments import DataArguments

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent / "configs" / "llm_ar"


@dataclass
class LineArguments:
    """Which settings, and which language model."""

    output_dir: str = field(metadata={"help": "folder of the run; each stage has one of its own in it"})
    tokenizer_config: str = field(
        default=str(CONFIGS / "utd_mhad_tokenizer.yaml"), metadata={"help": "settings of train_tokenizer.py"}
    )
    sft_config: str = field(default=str(CONFIGS / "utd_mhad_sft.yaml"), metadata={"help": "settings of sft.py"})
    llm_name_or_path: str | None = field(
        default=None, metadata={"help": "language model: repository or folder; by default a small one is made"}
    )
    encodings: int = field(default=8, metadata={"help": "sentences a training recording (encode_actions.py)"})
    hold_out: bool = field(
        default=False, metadata={"help": "leave the held-out training recordings out, and evaluate on them"}
    )
    seed: int = field(default=0, metadata={"help": "seed of every stage"})


def main(arguments: LineArguments, data: DataArguments) -> dict:
    """Runs the line; returns the metrics of its evaluation."""
    import yaml

    folder, llm = Path(arguments.output_dir), arguments.llm_name_or_path
    if llm is None:
        import pretrain_small_lm as small_lm

        logger.info("A small language model reads about bodies and actions")
        llm = str(folder / "small_lm" / "model")
        small_lm.main(
            small_lm.SmallLMArguments(),
            small_lm.SmallLMConfig(output_dir=str(folder / "small_lm"), seed=arguments.seed),
        )
    settings = [
        yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        for path in (arguments.tokenizer_config, arguments.sft_config)
    ]
    common = {"seed": arguments.seed, "hold_out": arguments.hold_out}
    return run_line(data, llm, folder, *({**part, **common} for part in settings), arguments.encodings)


def run_line(
    data: DataArguments, llm: str, folder: Path, tokenizer_settings: dict, sft_settings: dict, encodings: int
) -> dict:
    """The four stages, each in its folder under `folder`.

    Args:
        data: the recordings.
        llm: the language model, a repository or a folder.
        folder: of the run.
        tokenizer_settings, sft_settings: what a YAML of `train_tokenizer.py` and of `sft.py` holds. Their seed and
            hold_out are those of the other stages too.
        encodings: sentences a training recording.

    Returns:
        The metrics of the evaluation.

    Raises:
        ValueError: a setting that the recipe does not know.
    """
    import encode_actions as encode
    import evaluate_classifier as evaluation
    import sft
    import train_tokenizer as stage1
    from trl import TrlParser

    seed, hold_out = tokenizer_settings.get("seed", 0), tokenizer_settings.get("hold_out", False)
    own = {"dataset": data.dataset, "data_dir": data.data_dir, "cache_dir": data.cache_dir, "num_proc": data.num_proc}
    tokenizer, sentences, model = (str(folder / part) for part in ("tokenizer/model", "sentences", "sft/model"))
    stages = (
        stage1.TokenizerArguments,
        DataArguments,
        *stage1.STAGES["action_vqvae"].ARGUMENTS,
        stage1.TokenizerTrainingArguments,
    )
    derived = {"llm_name_or_path": llm, "output_dir": str(folder / "tokenizer")}
    stage1.main(*TrlParser(stages).parse_dict({**tokenizer_settings, **own, **derived}))
    encode.main(
        encode.EncodingArguments(tokenizer=tokenizer, output_dir=sentences, encodings=encodings, seed=seed), data
    )
    derived = {"tokenizer": tokenizer, "sentences": sentences, "llm_name_or_path": llm}
    parser = TrlParser((sft.ActionSFTArguments, sft.ActionSFTConfig))
    sft.main(*parser.parse_dict({**sft_settings, **derived, "output_dir": str(folder / "sft")}))
    return evaluation.main(
        evaluation.EvaluationArguments(
            model=model,
            sentences=sentences,
            output_dir=str(folder / "evaluation"),
            split="held_out" if hold_out else "test",
        )
    )


if __name__ == "__main__":
    from trl import TrlParser

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    main(*TrlParser((LineArguments, DataArguments), allow_abbrev=False).parse_args_and_config())
