"""The runs of `run_line.py` behind a table: their settings, their folders, and the stages that they share."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from action_llm_datasets.names import protocol_names
from action_llm_recipes.common.launching import HARMLESS
from action_llm_recipes.paper_tables.definitions import Row, Table, preset_of
from action_llm_recipes.pipeline.settings import CONFIGS, read_yaml
from action_llm_recipes.pipeline.stages import STAGES

# Options of run_line.py that only concern the number of sentences.
OF_ENCODING = ("encodings", "test_encodings")


@dataclass(frozen=True, eq=False)
class RowRun:
    """
    A run of `run_line.py` for a row of a table.

    Attributes:
        table: the table.
        row: the row.
        dataset: data set and protocol of the run: one of the draws, for unseen classes.
        data_dir: folder of the recordings.
        seed: random seed.
        options: options of `run_line.py` and their values, without the data and the output folder.
        folder: folder of the run.
        stages: stage → the folder in which its output is kept. Runs whose settings agree up to a stage share it.
    """

    table: Table
    row: Row
    dataset: str
    data_dir: str
    seed: int
    options: dict
    folder: Path
    stages: dict[str, Path]

    @property
    def settings_key(self) -> str:
        """A fingerprint of all settings but the seed, with the content of their YAML files."""
        options = {name: value for name, value in self.options.items() if name != "seed"}
        return _stage_folders(self.table, self.dataset, options, Path())["evaluation"].name.rpartition("-")[2]

    def command_line(self) -> list[str]:
        """The words after `run_line.py` that make the run."""
        words = ["--paper", self.table.paper, "--dataset", self.dataset, "--data_dir", self.data_dir]
        for name, value in self.options.items():
            words += option_words(name, value)
        return [*words, "--output_dir", str(self.folder)]

    def share_stages(self) -> None:
        """Links the folders of the stages into the folder of the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stage, target in self.stages.items():
            target.mkdir(parents=True, exist_ok=True)
            link = self.folder / STAGES[stage].folder
            if link.is_symlink() and link.resolve() != target.resolve():
                link.unlink()  # the settings of a preset have changed
            if not link.is_symlink():
                link.symlink_to(target.resolve(), target_is_directory=True)


def option_words(name: str, value) -> list[str]:
    """An option and its value, or values, as words of a command line."""
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{name}", *(str(value).lower() if isinstance(value, bool) else str(value) for value in values)]


def draws_of(dataset: str) -> list[str]:
    """The protocols that a table is measured on: for a name like "ntu120-unseen" all draws of the unseen classes
    (ntu120-unseen-0, ntu120-unseen-1, …), else the data set itself. No protocol for an unknown name."""
    if dataset in protocol_names():
        return [dataset]
    return [name for name in protocol_names() if re.fullmatch(rf"{re.escape(dataset)}-\d+", name)]


def with_paths(table: Table, options: dict) -> dict:
    """Options of `run_line.py` with paths in place of the names of YAML files."""
    folder = CONFIGS / table.paper
    if folder.is_relative_to(Path.cwd()):  # short in commands that are shown
        folder = folder.relative_to(Path.cwd())
    return {name: str(folder / value) if name.endswith("_config") else value for name, value in options.items()}


def runs_of(
    table: Table,
    rows: dict[str, Row],
    dataset: str,
    data_dir: str,
    preset: str,
    seeds: list[int],
    further: dict,
    output_dir: Path,
) -> list[RowRun]:
    """
    The runs of some rows of a table, in the order of draws, seeds and rows.

    Args:
        table: the table.
        rows: name → row.
        dataset: data set and protocol, or the name of several draws ("ntu120-unseen").
        data_dir: folder of the recordings.
        preset: "paper" or "small".
        seeds: random seeds.
        further: options of `run_line.py` for all rows, such as `backbone`.
        output_dir: folder for the runs and the stages that they share.
    """
    runs = []
    for name in draws_of(dataset):
        key = preset_of(preset, name)
        for seed in seeds:
            for row in rows.values():
                options = with_paths(table, table.presets[key] | further | row.settings_for(key))
                options = _with_total_batch(table, options) | {"seed": seed}
                runs.append(
                    RowRun(
                        table=table,
                        row=row,
                        dataset=name,
                        data_dir=data_dir,
                        seed=seed,
                        options=options,
                        folder=output_dir / "rows" / f"{table.number}_{row.name}_{name}_{preset}_{seed}",
                        stages=_stage_folders(table, name, options, output_dir / "stages"),
                    )
                )
    return runs


def _with_total_batch(table: Table, options: dict) -> dict:
    """Options with the accumulation of gradients by which a row, one process on one device, has the batch of its YAML files,
    which are written for several devices."""
    accumulation = {}
    for stage in ("tokenizer", "sft"):
        values, name = read_yaml(options.get(f"{stage}_config"), stage, table.paper)[0], "gradient_accumulation_steps"
        values = values | {
            key.partition(".")[2]: value for key, value in options.items() if key.startswith(f"{stage}.")
        }
        total = values.get("total_batch_size")
        if total is not None and f"{stage}.{name}" not in options:
            steps = total // values["per_device_train_batch_size"]
            if steps != values.get(name, 1):
                accumulation[f"{stage}.{name}"] = steps
    return options | accumulation


def _stage_folders(table: Table, dataset: str, options: dict, folder: Path) -> dict[str, Path]:
    """Stage → folder named by a hash of all options that the stage and the stages before it depend on."""
    general = {
        name: value
        for name, value in options.items()
        if "." not in name and not name.endswith("_config") and name not in OF_ENCODING
    }
    digest = hashlib.blake2b(digest_size=6)
    # Without the paper: LVLM-VAR and VT-LVLM-AR share a visual encoder with the same settings.
    digest.update(json.dumps([dataset, general], sort_keys=True, default=str).encode())
    files = {
        stage: read_yaml(options.get(f"{stage}_config"), stage, table.paper)[0]
        for stage in ("backbone", "features", "lvlm", "tokenizer", "sft")
        if table.modality == "videos" or stage in ("tokenizer", "sft")
        if stage != "lvlm" or table.paper == "vt_lvlm_ar"
    }
    trains_encoder = "backbone" not in options and "backbone" not in files.get("features", {})
    folders = {}
    for stage in STAGES:
        if stage not in (*files, "encode", "evaluation") or (stage == "backbone" and not trains_encoder):
            continue
        # It does not matter whether the YAML file or an option has a setting.
        settings = (files.get(stage) or {}) | {
            name.partition(".")[2]: value for name, value in options.items() if name.startswith(f"{stage}.")
        }
        own = {name: value for name, value in settings.items() if name not in HARMLESS}
        if stage == "encode":
            own |= {name: options.get(name) for name in OF_ENCODING}
            own["injection_layer"] = options.get("sft.injection_layer")  # then latents are encoded
        digest.update(f"{stage} {json.dumps(own, sort_keys=True, default=str)}".encode())
        folders[stage] = folder / f"{stage}-{digest.hexdigest()}"
    return folders
