"""
Writes the tables of results and of settings in the README and in the model cards, and the comments in the YAML files that tell
which settings are the papers'.

```bash
python model_cards/tables.py
python model_cards/tables.py --check
```

Each table stands between two comments, such as `<!-- results -->` and `<!-- end of results -->`. `--check` changes nothing; it
exits with status 1 if a table or a comment differs. Results come from `results/summary.json` and `results/tables`, the papers'
claims from `recipes/paper_tables`, the papers' settings from `recipes/common/paper_settings.json`, and the presets' from
`recipes/configs`.

`summary.json` holds every headline number once. An entry has:

- `about`: what was measured. `unit`: the unit of `value`, `low` and `high`.
- `value`: the result, the mean if there are several seeds; null if it has not been measured, with the `reason`.
- `low`, `high`: the range of the seeds. With one seed, the 95 % interval over recordings.
- `seeds`: the number of seeds. `minutes`: the time per seed on one core.
- `command`: the command that printed the number; its `page` in `results/` has the commands before it.

"""

import argparse
import json
import re
import sys
from pathlib import Path

import yaml

from action_llm_recipes.common.paper_settings import mark_of_option, presets_of, settings_of, stage_values
from action_llm_recipes.paper_tables.definitions import find_table
from action_llm_recipes.paper_tables.page import ideas_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "model_cards" / "results"
CONFIGS = ROOT / "recipes" / "configs"
SUMMARY = json.loads((RESULTS / "summary.json").read_text(encoding="utf-8"))

# Rows of the README: data set, model, and the keys of one version, of averaged versions and of the best baseline.
ROWS = [
    (
        "UTD-MHAD skeletons",
        "LLM-AR",
        "utd_mhad_skeleton_small_one",
        "utd_mhad_skeleton_small",
        "utd_mhad_skeleton_baseline",
    ),
    ("MSR Action3D skeletons", "LLM-AR", "msr_action3d_small_one", "msr_action3d_small", "msr_action3d_baseline"),
    (
        "UTD-MHAD depth videos",
        "LVLM-VAR",
        "utd_mhad_video_lvlm_var_one",
        "utd_mhad_video_lvlm_var",
        "utd_mhad_video_baseline",
    ),
    (
        "UTD-MHAD depth videos",
        "VT-LVLM-AR",
        "utd_mhad_video_vt_lvlm_ar_one",
        "utd_mhad_video_vt_lvlm_ar",
        "utd_mhad_video_vt_lvlm_ar_baseline",
    ),
]
CARDS = {
    "llm_ar": [
        "utd_mhad_skeleton_small",
        "utd_mhad_skeleton_small_one",
        "utd_mhad_skeleton_paper_one",
        "utd_mhad_skeleton_baseline",
        "msr_action3d_small",
        "msr_action3d_small_one",
        "msr_action3d_baseline",
        "simulated_xsub",
        "simulated_xview",
    ],
    "lvlm_var": [
        "utd_mhad_video_lvlm_var",
        "utd_mhad_video_lvlm_var_one",
        "utd_mhad_video_lvlm_var_paper_one",
        "utd_mhad_video_baseline",
        "utd_mhad_video_pixels",
    ],
    "vt_lvlm_ar": ["utd_mhad_video_vt_lvlm_ar_one", "utd_mhad_video_vt_lvlm_ar_baseline", "utd_mhad_video_pixels"],
}
# The tables of each paper that compare it with other methods.
COMPARISONS = {"llm_ar": ["1", "2", "3"], "lvlm_var": ["1", "5"], "vt_lvlm_ar": ["I"]}
PROTOCOLS = {
    "ntu60-xsub": "NTU RGB+D 60, X-Sub",
    "ntu60-xview": "NTU RGB+D 60, X-View",
    "ntu120-xsub": "NTU RGB+D 120, X-Sub",
    "ntu120-xset": "NTU RGB+D 120, X-Set",
}


def cell(key: str) -> str:
    """The value of an entry with its range, `—` if it has not been measured."""
    entry = SUMMARY[key]
    if entry["value"] is None:
        return "—"
    if entry["low"] is None:
        return f"{entry['value']}"
    return f"{entry['value']} ({entry['low']}–{entry['high']})"


def table(header: list[str], rows: list[list[str]], numbers: set[int]) -> str:
    """A table in Markdown; the columns in `numbers` are aligned to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *rows])


def readme_table() -> str:
    """What was measured here, then the numbers that the papers report for NTU RGB+D."""
    rows = []
    for data_set, model, one, averaged, baseline in ROWS:
        measured = next(SUMMARY[key] for key in (averaged, one) if "minutes" in SUMMARY[key])
        page = f"model_cards/results/{SUMMARY[one]['page']}"
        ours = [cell(one), cell(averaged), cell(baseline)]
        rows.append([f"[{data_set}]({page})", model, *ours, str(measured["seeds"]), measured["minutes"], "—"])
    for card, numbers in COMPARISONS.items():
        compared = find_table(card, numbers[0])
        claim = f"{compared.rows[card].claims[0]} ({compared.authors}, {compared.label})"
        rows.append([PROTOCOLS["ntu60-xsub"], compared.paper_name, *["not run"] * 3, "—", "—", claim])
    header = ["data set", "model", "one version", "averaged", "best baseline", "seeds", "minutes", "the paper claims"]
    return table(header, rows, {2, 3, 4, 5, 6})


def card_table(card: str, keys: list[str]) -> str:
    """The results of a model, what its paper reports, and what contradicts that."""
    rows = []
    for key in keys:
        entry = SUMMARY[key]
        rows.append([entry["about"], cell(key), str(entry["seeds"] or "—"), f"[page](results/{entry['page']})"])
    measured = table(["measured here", "top-1, %", "seeds", "commands"], rows, {1, 2})
    compared = [find_table(card, number) for number in COMPARISONS[card]]
    first = compared[0]
    rows = [
        [PROTOCOLS[protocol.removesuffix("-video")], str(claim)]
        for protocol, claim in zip(first.columns, first.rows[card].claims, strict=True)
    ]
    reported = table([f"reported by {first.authors}, {first.label}; not reproduced here", "top-1, %"], rows, {1})
    notes = "".join(f"- {table.label}: {note}\n" for table in compared for note in table.notes)
    return f"{measured}\n{reported}\nWhat to know about the paper's comparisons:\n\n{notes}"


SETTINGS_LEGEND = """\
*same*: the paper's value or, where the paper gives none, that of the paper preset. *not used*: without effect beside the other
settings. *not measured separately*: no run changed only this setting. In the YAML files, a comment on each setting says whether
its value is the paper's.
"""
COLUMNS = {"paper": "paper preset", "UTD-MHAD": "UTD-MHAD preset", "small": "`small` preset"}
STAGE_NAMES = {
    "features": "features, `extract_features.py`",
    "tokenizer": "action model, `train_tokenizer.py`",
    "sft": "language model, `sft.py`",
}


def settings_table(paper: str) -> str:
    """The settings of a paper beside those of its presets."""
    presets = {
        preset: {
            stage: stage_values(stage, read_yaml(CONFIGS / paper / f"{name}.yaml")) for stage, name in files.items()
        }
        for preset, files in presets_of(paper).items()
    }
    rows, stage = [], None
    for setting in settings_of(paper):
        if setting.stage not in STAGE_NAMES:
            continue
        if setting.stage != stage:
            stage = setting.stage
            rows.append([f"**{STAGE_NAMES[stage]}**", *[""] * (len(presets) + 2)])
        name = f"{setting.about} (`{setting.settings[0]}`)" if len(setting.settings) == 1 else setting.about
        first, *others = (values[stage] for values in presets.values())
        cells = [setting.value(first), *(setting.value(values, first) for values in others)]
        rows.append([name, setting.claim, *cells, setting.why])
    header = ["setting", "the paper", *(COLUMNS[preset] for preset in presets), "why"]
    return f"{SETTINGS_LEGEND}\n{table(header, rows, set())}"


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# An option in a YAML file with its value, the mark of an earlier run, and another comment.
OPTION = re.compile(r"(?P<option>(?P<name>\w+):[^#]*?) *(?:# (?:paper|ours)\b[^;]*)?(?:(?:; |# )(?P<note>.*))?")


def marked(path: Path) -> str:
    """The text of a YAML file, with a comment on each option that tells whether its value is the paper's or ours.

    Raises:
        ValueError: if `paper_settings.json` does not have an option.
    """
    stage = re.search("backbone|features|lvlm|tokenizer|sft|efficiency", path.stem)[0]
    settings, lines = read_yaml(path), []
    for line in path.read_text(encoding="utf-8").splitlines():
        option = OPTION.fullmatch(line)
        mark = option and mark_of_option(path.parent.name, stage, option["name"], settings)
        if mark:
            line = f"{option['option']} # {mark}" + (f"; {option['note']}" if option["note"] else "")
        lines.append(line)
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Each page that has a table, and each YAML file → its text as it should be."""
    readme = ROOT / "README.md"
    ideas = ideas_table(RESULTS / "tables", "model_cards/results/tables/") + "\n"
    texts = {readme: with_table(readme, "ideas", ideas, with_table(readme, "results", readme_table()))}
    for card, entries in CARDS.items():
        page = ROOT / "model_cards" / f"{card}.md"
        text = with_table(page, "results", card_table(card, entries))
        texts[page] = with_table(page, "settings", settings_table(card), text)
    return texts | {path: marked(path) for path in sorted(CONFIGS.glob("*/*.yaml"))}


def with_table(page: Path, name: str, content: str, text: str | None = None) -> str:
    """The text of a page with a table between its comments.

    Args:
        page: the page; `text` is its text if it differs from the file.
        name: of the table: `<!-- name -->` … `<!-- end of name -->`.
        content: the table.

    Raises:
        ValueError: if the page lacks the comments.
    """
    text = page.read_text(encoding="utf-8") if text is None else text
    before, start, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    if not start or not end:
        raise ValueError(f"{page} has no <!-- {name} --> … <!-- end of {name} -->.")
    return f"{before}{start}{content}{end}{after}"


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if a page or YAML file differs"
    )
    check = parser.parse_args(words).check
    differing = {page: text for page, text in pages().items() if text != page.read_text(encoding="utf-8")}
    for page, text in differing.items():
        if check:
            print(f"{page.relative_to(ROOT)}: not up to date; run python model_cards/tables.py")
        else:
            page.write_text(text, encoding="utf-8")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
