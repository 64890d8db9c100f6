"""
The tables and figures of the three papers, read from the YAML file of each paper.

```yaml
name: LLM-AR
authors: Qu et al., CVPR 2024
modality: skeletons
presets:                     # settings of run_line.py
  full_size: {…}             #   the paper's own: `--preset paper` on the data sets of the papers
  scaled: {…}                #   the paper's method with small models: `--preset paper` on other data sets
  small: {…}                 #   `--preset small`
tables:
  "4":
    title: Human inductive biases
    columns: [ntu120-xset]   # protocols on which the paper reports accuracies, or names of `MEASURES`
    reference: llm_ar        # the row that others are compared with
    other_methods: ntu_rgbd  # further rows, which several papers quote, and their notes: a key of other_methods.yaml
    rows:
      without_zipf:
        title: w/o Zipf
        claims: [89.9]       # the paper's value in each column; `published` for rows that are only quoted
        settings: {tokenizer.zipf_weight: 0}
        scaled: {…}          # further settings for one of the presets
        idea: Zipf's law     # the idea of the paper that the row leaves out, for the summary
        needs: …             # what the row needs beyond the data; it runs only if `--rows` names it
        full_size_needs: …   # likewise, with the papers' own language models
        full_size_command: … # what runs it then, instead of paper_table.py
    commands: […]            # of other recipes that belong to the table
    notes: […]
```
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from action_llm_datasets.names import did_you_mean

FOLDER = Path(__file__).resolve().parent
PAPERS = ("llm_ar", "lvlm_var", "vt_lvlm_ar")
# Beginnings of the names of the data sets that the papers report on.
PAPER_DATASETS = ("ntu60-", "ntu120-", "smarthome-", "uav-human-")


@dataclass(frozen=True)
class Row:
    """
    A row of a table.

    Attributes:
        name: key of the row in the YAML file.
        title: the row's name in the paper.
        claims: the paper's value in each column; None where it gives none.
        is_quoted: whether the row is only quoted from the paper, and never run.
        settings: options of `run_line.py` that make the row, by name (`tokenizer.zipf_weight`).
        preset_settings: preset ("full_size", "scaled", "small") → further options for this preset.
        needs: what the row needs beyond the data; "" for nothing.
        full_size_needs: what it needs beyond them with the preset "full_size"; "" for nothing.
        full_size_command: the command that runs it then, instead of `paper_table.py`; "" for none.
        idea: the idea of the paper that the row leaves out, for the summary; "" for none.
    """

    name: str
    title: str
    claims: tuple[float | None, ...]
    is_quoted: bool = False
    settings: dict = field(default_factory=dict)
    preset_settings: dict[str, dict] = field(default_factory=dict)
    needs: str = ""
    full_size_needs: str = ""
    full_size_command: str = ""
    idea: str = ""

    def needs_for(self, preset: str) -> str:
        """What the row needs beyond the data with a preset; "" for nothing."""
        return (self.full_size_needs if preset == "full_size" else "") or self.needs

    def settings_for(self, preset: str) -> dict:
        """The options of `run_line.py` that make the row with a preset ("full_size", "scaled", "small")."""
        return self.settings | self.preset_settings.get(preset, {})


@dataclass(frozen=True)
class Table:
    """
    A table or figure of a paper.

    Attributes:
        paper: key of the paper ("llm_ar").
        paper_name: its name ("LLM-AR").
        authors: and where it was published.
        modality: "skeletons" or "videos".
        number: of the table ("4", "II") or figure ("figure-1").
        title: what the table is about.
        columns: the protocols on which the paper reports accuracies, or names of `MEASURES`.
        rows: name → row, in the order of the paper.
        presets: preset → options of `run_line.py` with the names of YAML files.
        reference: name of the row that others are compared with; None for tables without one.
        commands: commands of other recipes that belong to the table.
        notes: remarks on the paper's numbers, and on the rows.
    """

    paper: str
    paper_name: str
    authors: str
    modality: str
    number: str
    title: str
    columns: tuple[str, ...]
    rows: dict[str, Row]
    presets: dict[str, dict]
    reference: str | None = None
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The table's name in a sentence ("Table 4", "Figure 1")."""
        kind, _, number = self.number.rpartition("-")
        return f"{(kind or 'table').capitalize()} {number}"

    @property
    def measures_accuracy(self) -> bool:
        """Whether the columns are protocols."""
        return self.columns[0] not in MEASURES

    @property
    def has_unseen_classes(self) -> bool:
        """Whether the accuracies are those of classes that are left out of training."""
        return self.columns[0].endswith("-unseen")

    @property
    def paper_dataset(self) -> str:
        """The data set that the paper reports on, the first of several. Tables without accuracies are about NTU RGB+D 60."""
        if self.measures_accuracy:
            return self.columns[0]
        return "ntu60-xsub-video" if self.modality == "videos" else "ntu60-xsub"

    @property
    def is_run(self) -> bool:
        """Whether the table has rows that `run_line.py` makes."""
        return not all(row.is_quoted for row in self.rows.values())

    def select(self, names: list[str] | None, preset: str) -> dict[str, Row]:
        """
        The rows to run: those that are asked for, or all that need nothing beyond the data.

        Args:
            names: of the rows; None for all.
            preset: key of `presets`.

        Raises:
            ValueError: if there is no such row, or the row is only quoted.
        """
        if names is None:
            return {name: row for name, row in self.rows.items() if not (row.is_quoted or row.needs_for(preset))}
        runnable = [name for name, row in self.rows.items() if not row.is_quoted]
        for name in names:
            if name not in runnable:
                raise ValueError(
                    f"--rows: {self.label} of {self.paper_name} has no row {name!r} that can be run"
                    f"{did_you_mean(name, runnable) or '.'} Its rows are {', '.join(runnable) or 'only quoted from the paper'}."
                )
        return {name: row for name, row in self.rows.items() if name in names}


# Columns that are not protocols: name → title with unit.
MEASURES = {
    "tokens_per_recording": "tokens per recording",
    "codes_used": "codes used",
    "entropy": "entropy, bits",
    "trained_share": "trained parameters, %",
    "trained_parameters": "trained parameters, millions",
    "hours_per_epoch": "hours per epoch",
    "seconds_per_recording": "seconds per recording",
    "memory_gb": "memory in training, GB",
    "coherence": "coherence (1–5)",
    "accuracy": "accuracy (1–5)",
    "helpfulness": "helpfulness (1–5)",
    "meaningfulness": "meaningfulness (1–5)",
    "label_agreement": "agreement with the label, %",
}


def read_tables(paper: str) -> dict[str, Table]:
    """The tables and figures of a paper ("llm_ar", "lvlm_var", "vt_lvlm_ar"), by number."""
    content, others = (
        yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) for name in (paper, "other_methods")
    )
    shared = {
        "paper": paper,
        "paper_name": content["name"],
        "authors": content["authors"],
        "modality": content["modality"],
    }
    tables = {}
    for number, entry in content["tables"].items():
        quoted = others.get(entry.get("other_methods"), {"rows": {}, "notes": []})
        rows = {
            name: _row(name, {**entry.get("all_rows", {}), **fields}, content["presets"])
            for name, fields in (quoted["rows"] | entry["rows"]).items()
        }
        tables[number] = Table(
            **shared,
            number=number,
            title=entry["title"],
            columns=tuple(entry["columns"]),
            rows=rows,
            presets=content["presets"],
            reference=entry.get("reference"),
            commands=tuple(entry.get("commands", ())),
            notes=(*entry.get("notes", ()), *quoted["notes"]),
        )
    return tables


def _row(name: str, fields: dict, presets: dict) -> Row:
    quoted = fields.get("published")
    return Row(
        name=name,
        title=fields["title"],
        claims=tuple(fields["claims"] if quoted is None else quoted),
        is_quoted=quoted is not None,
        settings=fields.get("settings", {}),
        preset_settings={preset: fields[preset] for preset in presets if preset in fields},
        needs=fields.get("needs", ""),
        full_size_needs=fields.get("full_size_needs", ""),
        full_size_command=fields.get("full_size_command", ""),
        idea=fields.get("idea", ""),
    )


def find_table(paper: str, number: str) -> Table:
    """
    A table or figure of a paper.

    Args:
        paper: "llm_ar", "lvlm_var" or "vt_lvlm_ar".
        number: as in the paper; for figures "figure-1". Roman and Arabic numerals are both understood.

    Raises:
        ValueError: if the paper has no such table.
    """
    tables = read_tables(paper)
    roman = dict(zip(("i", "ii", "iii", "iv", "v", "vi"), "123456", strict=True))
    by_key = {roman.get(name.lower(), name.lower()): table for name, table in tables.items()}
    key = number.lower().replace(" ", "-").removeprefix("table-")
    table = by_key.get(roman.get(key, key))
    if table is None:
        name = next(iter(tables.values())).paper_name
        raise ValueError(f"--table: {name} has no table {number!r}. It has {', '.join(tables)}.")
    return table


def preset_of(preset: str, dataset: str) -> str:
    """The key of `Table.presets` for `--preset paper|small` on a data set."""
    if preset == "small":
        return "small"
    return "full_size" if dataset.startswith(PAPER_DATASETS) else "scaled"
