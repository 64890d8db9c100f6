"""Rating sheets are blinded, complete and reproducible; answers are assigned to the right system. All ratings are made up."""

import base64
import csv
import io
import itertools
import json
import re
import shutil
import subprocess

import av
import numpy as np
import pytest
from datasets import ClassLabel
from tiny_videos import tiny_video

from action_llm_datasets.rendering import write_video
from action_llm_recipes.common.action_sentences import sentence_features
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.run_folder import without_nan
from action_llm_recipes.common.shards import SplitShards, write_shard
from action_llm_recipes.rating.report import (
    RatingReportArguments,
    crossed_draws,
    difference_interval,
    mean_interval,
    means,
    read_sheet,
    with_ends,
)
from action_llm_recipes.rating.report import main as report_on
from action_llm_recipes.rating.sheets import (
    CONTROL,
    MARK,
    Item,
    Moment,
    MomentArguments,
    RatingSheetArguments,
    Recordings,
    rater_order,
)
from action_llm_recipes.rating.sheets import main as make_sheets
from action_llm_recipes.rating.studies import STUDIES, RatingFileError

OURS, BASELINE, SECRET = "zebra", "quagga", "a class that is secret"
NOTE = "Made-up ratings: a test of the kit"
RATERS = 4


@pytest.fixture(scope="module")
def data(recordings, cache):
    return DataArguments(dataset="simulated-xsub", data_dir=str(recordings), cache_dir=cache)


@pytest.fixture(scope="module")
def sample_ids(data):
    return sorted(data.load()["test"]["sample_id"])[:6]


@pytest.fixture(scope="module")
def lines(sample_ids, tmp_path_factory):
    """Files of both systems: ours explains, with a text that would end a script; the baseline has one recording more."""
    folder = tmp_path_factory.mktemp("lines")
    ours, baseline = [], [{"sample_id": "nobody else has it", "label": "nothing"}]
    for number, sample_id in enumerate(sample_ids):
        common = {"sample_id": sample_id, "true_class": SECRET}
        ours.append(common | {"label": f"ours {number}", "text": f"Because {number} < 9.</script>\nThen, it ended."})
        baseline.append(common | {"label": f"theirs {number}"})
    for name, entries in {OURS: ours, BASELINE: baseline}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def explanations(lines, data, output, **settings):
    arguments = {"study": "explanations", "items": [f"{lines}/{OURS}.jsonl", f"{lines}/{BASELINE}.jsonl"]} | settings
    arguments = RatingSheetArguments(**{"output_dir": str(output), "raters": RATERS, "size": 64} | arguments)
    return make_sheets(arguments, MomentArguments(), data)


@pytest.fixture(scope="module")
def made(lines, data, tmp_path_factory):
    """A study with its key."""
    folder = tmp_path_factory.mktemp("study")
    return folder, explanations(lines, data, folder)


@pytest.mark.parametrize("column", ["prediction", "graph-0"])
def test_a_baseline_is_a_table_of_predictions(lines, data, sample_ids, tmp_path, column):
    table = "\n".join(
        [f"sample_id,label,{column}", *(f"{name},{SECRET},theirs {n}" for n, name in enumerate(sample_ids))]
    )
    (tmp_path / "predictions.csv").write_text(table + "\n")
    items = [f"{lines}/{OURS}.jsonl", f"graph-0={tmp_path}/predictions.csv"]
    key = explanations(lines, data, tmp_path / "study", items=items, raters=1)
    of_baseline = [item for item in key["items"].values() if item["system"] == "graph-0"]
    assert {(item["subject"], item["label"]) for item in of_baseline} == {
        (sample_id, f"theirs {number}") for number, sample_id in enumerate(sample_ids)
    }
    assert all(item["asked"] == ["agreement"] for item in of_baseline)
    for text, message in (
        ("sample_id,label\na,b\n", r"line 1, header: expected 'prediction' among the columns, found sample_id, label"),
        (f"sample_id,{column}\na,b\na,c\n", "line 3, sample_id: expected each recording once, found 'a' again"),
        (f"sample_id,{column}\na,\n", "line 2, .*: expected the name of a class, found nothing"),
    ):
        (tmp_path / "predictions.csv").write_text(text)
        with pytest.raises(RatingFileError, match=message):
            explanations(lines, data, tmp_path / "bad", items=items)


def page(folder, number=1):
    """What the page of a rater knows."""
    text = (folder / "sheets" / f"rater_{number:02d}.html").read_text()
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.DOTALL)[1])


def rows_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def fill(folder, target, answer, raters=RATERS):
    """Made-up ratings: fills each sheet in with `answer(rater, item, scale)`, None for nothing; the paths."""
    target.mkdir()
    key = json.loads((folder / "key.json").read_text())
    paths = []
    for number in range(1, raters + 1):
        name = f"rater_{number:02d}.csv"
        rows = rows_of(folder / "sheets" / name)
        for row in rows:
            item = key["items"][row["item"]]
            row |= {scale: answer(number, item, scale) or "" for scale in item["asked"]}
        with open(target / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        paths.append(str(target / name))
    return paths


def report(folder, paths, output, **settings):
    return report_on(
        RatingReportArguments(
            **{
                "key": f"{folder}/key.json",
                "ratings": paths,
                "output_dir": str(output),
                "resamples": 200,
                "note": NOTE,
            }
            | settings
        )
    )


def planted(number, item, scale):
    """Made up: the baseline is never agreed with; ours is rated 4 by the first two raters and 2 by the others."""
    return ("no" if item["system"] == BASELINE else "yes") if scale == "agreement" else str(4 if number < 3 else 2)


def test_a_rater_cannot_see_whose_an_item_is(made, sample_ids):
    folder, _ = made
    assert sorted(path.name for path in folder.iterdir()) == ["key.json", "sheets"]
    clips = [base64.b64decode(clip) for clip in page(folder)["clips"].values()]
    assert len(clips) == len(sample_ids) and all(clip[4:8] == b"ftyp" for clip in clips)
    pages = [path.read_bytes() for path in (folder / "sheets").iterdir()]
    assert len(pages) == 2 * RATERS
    for hidden in (OURS, BASELINE, SECRET, *sample_ids, str(folder)):
        assert not any(hidden.encode() in content for content in pages + clips), hidden
    shown = page(folder)["items"]
    assert {item["label"] for item in shown} == {
        f"{whose} {number}" for whose in ("ours", "theirs") for number in range(6)
    }
    assert all(set(item) == {"id", "clips", "asked", "label", "text"} for item in shown)
    explained = [item for item in shown if item["text"]]
    assert len(explained) == 6 and explained[0]["text"][1] == "Then, it ended."
    assert all(item["asked"] == ["agreement"] for item in shown if not item["text"])
    assert all(len(item["asked"]) == 4 for item in explained)


def test_nothing_is_fetched_and_the_text_of_a_system_ends_no_script(made):
    folder, _ = made
    text = (folder / "sheets" / "rater_01.html").read_text()
    assert not re.search(r"https?://|\bsrc=|\bhref=", text)
    assert "default-src 'none'" in text and text.count("</script>") == 2


def test_every_rater_gets_every_item_once_in_an_order_of_their_own(made):
    folder, key = made
    orders = []
    for number in range(1, RATERS + 1):
        shown = page(folder, number)
        orders.append([item["id"] for item in shown["items"]])
        rows = rows_of(folder / "sheets" / f"rater_{number:02d}.csv")
        assert [row["item"] for row in rows] == orders[-1]
        assert [row["number"] for row in rows] == [str(place) for place in range(1, 13)]
        assert {row["rater"] for row in rows} == {shown["rater"]} == {f"rater_{number:02d}"}
        assert sorted(orders[-1]) == sorted(key["items"])
        clips = [item["clips"][0] for item in shown["items"]]
        assert sorted(clips[:6]) == sorted(clips[6:]) == sorted(shown["clips"])  # all are shown before any is repeated
        assert all(first != second for first, second in itertools.pairwise(clips))
    assert len(set(map(tuple, orders))) == RATERS
    firsts = {key["items"][name]["system"] for order in orders for name in order[:6]}
    assert firsts == {OURS, BASELINE}, "no system always comes first"


@pytest.mark.parametrize("subjects", [1, 2, 3])
def test_neighbours_are_of_different_recordings_wherever_that_can_be(subjects):
    items = {f"{subject}{system}": Item(system, str(subject), ()) for subject in range(subjects) for system in "abc"}
    for seed in range(30):
        order = rater_order(items, np.random.default_rng(seed))
        assert sorted(order) == sorted(items)
        if subjects > 1:
            assert all(items[first].subject != items[second].subject for first, second in itertools.pairwise(order))


def test_equal_arguments_give_equal_files_and_a_folder_holds_one_study(made, lines, data, tmp_path):
    folder, key = made
    explanations(lines, data, tmp_path / "again")
    for path in [folder / "key.json", *(folder / "sheets").iterdir()]:
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes()
    more = explanations(lines, data, tmp_path / "again", raters=RATERS + 1)
    assert more["items"] == key["items"] and len(more["raters"]) == RATERS + 1
    for path in (folder / "sheets").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "sheets" / path.name).read_bytes()
    with pytest.raises(ValueError, match="other items"):
        explanations(lines, data, tmp_path / "again", seed=1)
    other = explanations(lines, data, tmp_path / "other", seed=1, count=2)
    assert len(other["items"]) == 4 and not set(other["items"]) & set(key["items"])


def test_what_comes_back_is_given_to_the_right_system(made, tmp_path):
    folder, _ = made
    result = report(folder, fill(folder, tmp_path / "made_up", planted), tmp_path / "report")
    agreement, coherence = result["scales"]["agreement"], result["scales"]["coherence"]
    assert agreement["systems"][OURS]["counts"] == {"no": 0, "yes": 24}
    assert agreement["systems"][BASELINE]["counts"] == {"no": 24, "yes": 0}
    # All answers of a system are the same: drawn anew they show no spread, and yet six recordings make nothing certain.
    difference = agreement["differences"][f"{OURS} − {BASELINE}"]
    assert difference["estimate"] == difference["high"] == 1 and 0.2 < difference["low"] < 0.9
    assert agreement["alpha"]["estimate"] == 1 and np.isnan(agreement["alpha"]["low"])
    assert list(coherence["systems"]) == [OURS] and coherence["differences"] == {}
    ours = coherence["systems"][OURS]
    assert ours["counts"] == {"1": 0, "2": 12, "3": 0, "4": 12, "5": 0}
    # Raters disagree and recordings do not: the interval is that of drawing four raters.
    assert (ours["estimate"], ours["low"], ours["high"]) == (3.0, 2.0, 4.0)
    assert coherence["alpha"]["level"] == "ordinal" and coherence["alpha"]["estimate"] < 0
    assert result["answered"] == dict.fromkeys((f"rater_{number:02d}" for number in range(1, 5)), 30)
    assert result["asked"] == 30
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written == without_nan(result) and written["note"] == NOTE
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.startswith(f"**{NOTE}**")
    agreement_row = next(
        row for row in text.splitlines() if row.startswith("| Human agreement (action label) | 100.0 [")
    )
    assert "[100.0, 100.0]" not in agreement_row and "[0.0, 0.0]" not in agreement_row
    assert "1.00, no interval, nominal" in text
    assert "| Explanation coherence (1–5) | 3.00 [2.00, 4.00] | N/A | N/A |" in text
    assert (tmp_path / "report" / "ratings.png").read_bytes().startswith(b"\x89PNG")


def test_sheets_filled_in_part_and_by_a_spreadsheet(made, tmp_path):
    folder, key = made
    paths = fill(folder, tmp_path / "made_up", planted, raters=2)
    rows = rows_of(tmp_path / "made_up" / "rater_02.csv")
    kept = [row for row in rows if key["items"][row["item"]]["system"] == OURS][:3]
    kept[0] |= {"agreement": " YES", "coherence": "", "comment": "Größe; ä"}
    with open(paths[1], "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=";", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows([*kept, dict.fromkeys(rows[0], "")])
    result = report(folder, paths, tmp_path / "report")
    assert result["answered"] == {"rater_01": 30, "rater_02": 11}
    systems = result["scales"]["agreement"]["systems"]
    assert (systems[OURS]["ratings"], systems[BASELINE]["ratings"], systems[BASELINE]["raters"]) == (9, 6, 1)
    assert result["scales"]["coherence"]["ratings"] == 8
    subject = key["items"][kept[0]["item"]]["subject"]
    assert result["comments"] == [{"rater": "rater_02", "system": OURS, "subject": subject, "said": "Größe; ä"}]
    assert (
        "2 of 4 sheets were returned. Answers of each rater, of 30: rater_01 30, rater_02 11."
        in (tmp_path / "report" / "report.md").read_text()
    )


@pytest.mark.parametrize(
    "column, text, expected",
    [
        ("coherence", "6", "line 2, coherence: expected 1 or 2 or 3 or 4 or 5, or nothing, found '6'"),
        ("coherence", "3.5", "line 2, coherence: .* found '3.5'"),
        ("coherence", "n/a", "line 2, coherence: .* found 'n/a'"),
        ("agreement", "4", "line 2, agreement: expected no or yes, or nothing, found '4'"),
        ("item", "bcdfghj", "line 2, item: expected an item of this study, found 'bcdfghj'"),
        ("rater", "rater_99", "line 2, rater: expected one of rater_01, .*, found 'rater_99'"),
        ("rater", "rater_02", "line 3, rater: expected rater_02, as in the lines above, found rater_01"),
    ],
)
def test_what_cannot_stand_in_a_sheet_is_named(made, tmp_path, column, text, expected):
    folder, key = made
    path = fill(folder, tmp_path / "made_up", planted, raters=1)[0]
    rows = sorted(rows_of(tmp_path / "made_up" / "rater_01.csv"), key=lambda row: row["coherence"] == "n/a")
    rows[0][column] = text
    write_rows(path, rows)
    with pytest.raises(RatingFileError, match=f"{re.escape(path)}, {expected}"):
        read_sheet(path, key)


def write_rows(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_sheets_that_are_not_whole_or_not_one_a_rater(made, tmp_path):
    folder, key = made
    path = fill(folder, tmp_path / "made_up", planted, raters=1)[0]
    rows = rows_of(tmp_path / "made_up" / "rater_01.csv")

    def refused(match, error=RatingFileError):
        with pytest.raises(error, match=match):
            read_sheet(path, key)

    write_rows(path, [rows[0], rows[1], rows[0]])
    refused(f"line 4, item: expected each item once, found {rows[0]['item']} again")
    write_rows(path, [next(row for row in rows if row["coherence"] == "n/a") | {"coherence": "3"}])
    refused("line 2, coherence: expected n/a, since it was not asked, found '3'")
    write_rows(path, [{name: cell for name, cell in row.items() if name != "accuracy"} for row in rows])
    refused("line 1, accuracy: expected a column, found the columns rater, number, item")
    (tmp_path / "made_up" / "rater_01.csv").write_text("")
    refused("line 1, rater: expected a column")
    write_rows(path, [dict.fromkeys(rows[0], "")])
    refused("line 2, item: expected a line for each item, found none")
    write_rows(path, rows)
    with open(path, "a") as file:
        file.write("rater_01" + ",1" * 12 + "\n")
    refused("line 14, line: expected 8 cells, found 5 more")
    (tmp_path / "made_up" / "rater_01.csv").write_bytes("Größe".encode("latin-1"))
    refused("rater_01.csv: expected text in UTF-8, found byte 0xf6", ValueError)

    write_rows(path, rows)
    twin = shutil.copy(path, tmp_path / "twin.csv")
    with pytest.raises(ValueError, match=r"twin\.csv and .*rater_01\.csv are both of rater_01"):
        report(folder, [path, str(twin)], tmp_path / "report")
    nothing = fill(folder, tmp_path / "nothing", lambda *_: None, raters=1)
    with pytest.raises(ValueError, match="there is no rating in"):
        report(folder, nothing, tmp_path / "report")


def test_a_mean_of_a_draw_is_that_of_its_recordings_and_raters():
    rng = np.random.default_rng(0)
    table = rng.integers(1, 6, (7, 4)).astype(float)
    table[rng.random(table.shape) < 0.3] = np.nan
    draws = crossed_draws({"one": table}, 20, seed=0)
    for rows, columns, mean in zip(*(part.astype(int) for part in draws), means(table, draws), strict=True):
        drawn = table[np.repeat(np.arange(7), rows)][:, np.repeat(np.arange(4), columns)]
        assert drawn.shape == (7, 4) and mean == pytest.approx(np.nanmean(drawn))


def test_intervals_know_of_recordings_of_raters_and_of_pairs():
    rng = np.random.default_rng(0)
    hard, strict = rng.normal(0, 1, (50, 1)), rng.normal(0, 1, (1, 8))

    def width(interval):
        return interval.high - interval.low

    def of(table):
        return mean_interval(table, crossed_draws({"one": table}, 2000, seed=0))

    noise = rng.normal(0, 0.1, (50, 8))
    assert width(of(hard + noise)) == pytest.approx(4 * np.std(hard) / np.sqrt(50), rel=0.15)
    assert width(of(strict + noise)) == pytest.approx(4 * np.std(strict) / np.sqrt(8), rel=0.15)
    assert width(of(hard + strict + noise)) > max(width(of(hard + noise)), width(of(strict + noise)))
    # Both systems have the recordings and raters of a draw, and only pairs count.
    ours, other = hard + strict + 1, hard + strict
    ours[0, 0] = np.nan
    interval = difference_interval(ours, other, crossed_draws({"ours": ours, "other": other}, 200, seed=0))
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((1, 1, 1))
    # Without pairs, of means: each system keeps its number of subjects.
    apart = np.concatenate([hard + 1, np.full((20, 1), np.nan)]), np.concatenate([np.full((50, 1), np.nan), hard[:20]])
    draws = crossed_draws(dict(zip("ab", apart, strict=True)), 500, seed=0)
    assert set(draws[0][:, :50].sum(axis=1)) == {50} and set(draws[0][:, 50:].sum(axis=1)) == {20}
    interval = difference_interval(*apart, draws)
    assert (
        interval.estimate == pytest.approx(np.mean(hard) + 1 - np.mean(hard[:20]))
        and interval.low < interval.estimate < interval.high
    )
    assert np.isnan(difference_interval(ours, np.full_like(ours, np.nan), draws).estimate)


def test_intervals_of_recordings_that_agree_are_those_of_their_number():
    yes = np.ones((20, 2))

    def of(*tables, ends=(0, 1)):
        draws = crossed_draws(dict(enumerate(tables)), 200, seed=0)
        drawn = mean_interval(*tables, draws) if len(tables) == 1 else difference_interval(*tables, draws)
        return with_ends(drawn, list(tables), ends)

    # Agresti and Coull with two of each added: 22 of 24.
    assert (of(yes).low, of(yes).high) == pytest.approx((22 / 24 - 1.96 * (22 * 2 / 24**3) ** 0.5, 1), abs=1e-4)
    assert (of(4 * yes + 1, ends=(1, 5)).low - 1) / 4 == pytest.approx(of(yes).low)
    assert of(yes[:5]).low < of(yes).low
    # Bonett and Price: 2 of 22 pairs differ.
    assert of(yes, yes).high == pytest.approx(1.96 * (2 / 22 / 22) ** 0.5, abs=1e-4) == -of(yes, yes).low
    apart = np.concatenate([yes, np.nan * yes]), np.concatenate([np.nan * yes, 1 - yes])
    # Agresti and Caffo: 21 of 22 against 1 of 22.
    assert of(*apart).low == pytest.approx(20 / 22 - 1.96 * (2 * 21 / 22**3) ** 0.5, abs=1e-4)
    assert (of(*apart).estimate, of(*apart).high) == (1, 1)
    # Where ratings from 1 to 5 vary, nothing is added.
    varied = np.random.default_rng(0).integers(1, 6, (20, 2)).astype(float)
    assert of(varied, ends=(1, 5)) == mean_interval(varied, crossed_draws({0: varied}, 200, seed=0))
    assert np.isnan(of(np.nan * yes).low)


@pytest.fixture(scope="module")
def sentences(sample_ids, tmp_path_factory):
    """Sentences of five tokens a tenth of a second long: codes 0 to 3 everywhere, at places that differ, and 9 once."""
    folder = tmp_path_factory.mktemp("sentences")
    features = sentence_features(ClassLabel(names=["one"]), 16, False)
    ids = [[*np.roll(np.arange(4), number).tolist(), 9 if number == 0 else 0] for number in range(6)]
    columns = {
        "sample_id": sample_ids,
        "encoding": [0] * 6,
        "label": [0] * 6,
        "held_out": [False] * 6,
        "action_ids": ids,
    }
    columns |= {"start_times": [[0.1 * place for place in range(5)]] * 6}
    columns |= {"end_times": [[0.1 * place + 0.1 for place in range(5)]] * 6}
    write_shard(SplitShards(folder, "test", 1).paths[0], columns, features)
    (folder / "record.json").write_text(json.dumps({"splits": {"test": {}}}))
    return folder, dict(zip(sample_ids, ids, strict=True))


def tokens(folder, data, output, count=3, **settings):
    arguments = RatingSheetArguments(
        study="tokens", items=[f"{OURS}={folder}"], output_dir=str(output), raters=2, count=count, size=64
    )
    return make_sheets(arguments, MomentArguments(**{"moments": 3, "controls": 0.67} | settings), data)


def test_moments_of_a_code_and_controls(sentences, data, tmp_path):
    folder, ids = sentences
    key = tokens(folder, data, tmp_path / "study")
    assert key["systems"] == [OURS, CONTROL]

    def codes(item):
        return [ids[moment["sample_id"]][round(10 * moment["start"])] for moment in item["moments"]]

    controls = [item for item in key["items"].values() if item["system"] == CONTROL]
    of_codes = [item for item in key["items"].values() if item["system"] == OURS]
    assert len(of_codes) == 3 and len(controls) == 2
    for item in key["items"].values():
        assert len({moment["sample_id"] for moment in item["moments"]}) == 3
        assert all(moment["end"] - moment["start"] == pytest.approx(0.1) for moment in item["moments"])
    assert sorted(item["subject"] for item in of_codes) == sorted({f"{OURS} {codes(item)[0]}" for item in of_codes})
    assert all(len(set(codes(item))) == 1 for item in of_codes)
    assert all(len(set(codes(item))) == 3 and 9 not in codes(item) for item in controls)
    shown = page(tmp_path / "study")
    assert all(item["asked"] == ["consistency"] and len(item["clips"]) == 3 for item in shown["items"])
    text = json.dumps(shown) + (tmp_path / "study" / "sheets" / "rater_01.csv").read_text()
    assert not any(hidden in text for hidden in (OURS, CONTROL, *ids))

    paths = fill(tmp_path / "study", tmp_path / "made_up", lambda _, item, __: "14"[item["system"] == OURS], raters=2)
    scale = report(tmp_path / "study", paths, tmp_path / "report")["scales"]["consistency"]
    (difference,) = scale["differences"].values()
    assert difference["estimate"] == 3 and -1 < difference["low"] < 3 < difference["high"] <= 4
    assert scale["systems"][OURS]["subjects"] == 3 and scale["systems"][CONTROL]["subjects"] == 2

    with pytest.raises(ValueError, match="4 codes occur in 5 recordings or more of test; expected at least 5"):
        tokens(folder, data, tmp_path / "more", moments=5)
    with pytest.raises(ValueError, match="moments must be at least 2"):
        tokens(folder, data, tmp_path / "more", moments=1)


def pictures(clip):
    with av.open(io.BytesIO(clip)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and len(container.streams) == 1
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands", "encoder"}
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]), stream.average_rate


def test_a_moment_is_slowed_and_framed_while_it_lasts(data, sample_ids):
    frames, rate = pictures(Recordings(data).clip(Moment(sample_ids[0], 0.4, 0.6), 64, context=0.2))
    assert frames.shape == (18, 64, 64, 3) and rate == 15  # 0.6 s of 30 pictures a second, at half the speed
    is_framed = np.abs(frames[:, 2:4].astype(int) - MARK).mean(axis=(1, 2, 3)) < 30
    assert is_framed.nonzero()[0].tolist() == list(range(6, 12))


def test_videos_are_made_small_and_such_that_browsers_show_them(tmp_path):
    (tmp_path / "one.avi").write_bytes(tiny_video(container="avi"))
    write_video(tmp_path / "two.mp4", (np.full((1, 32, 48, 3), number % 250, np.uint8) for number in range(700)), 20)
    (tmp_path / "metadata.csv").write_text("file_name,label,split\none.avi,wave,train\ntwo.mp4,fall,test\n")
    data = DataArguments(dataset="folder-video", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    recordings = Recordings(data)
    short, rate = pictures(recordings.clip(Moment("one"), 24, 0.3))
    assert short.shape == (6, 16, 24, 3) and rate == 30
    long, rate = pictures(recordings.clip(Moment("two"), 256, 0.3))
    assert long.shape == (300, 32, 48, 3) and 300 / rate == pytest.approx(
        35, abs=0.1
    )  # never larger, whole, in real time
    with pytest.raises(ValueError, match="folder-video has no recording 'three'"):
        recordings.clip(Moment("three"), 24, 0.3)


def test_descriptions_of_events_are_rated_without_a_label(lines, data, sample_ids, tmp_path):
    entries = [
        {"sample_id": name, "story": "0.0 s: an arm rises\n0.4 s: it falls", "label": SECRET} for name in sample_ids
    ]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    shutil.copy(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    sources = [str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")]
    explanations(lines, data, tmp_path / "study", study="events", items=sources, text="story", count=3)
    shown = page(tmp_path / "study")
    assert [item["text"] for item in shown["items"]] == [["0.0 s: an arm rises", "0.4 s: it falls"]] * 6
    assert SECRET not in json.dumps(shown) and shown["label_heading"] == ""
    assert [scale["name"] for scale in shown["scales"]] == ["coherence", "meaningfulness"]


@pytest.mark.parametrize(
    "content, error",
    [
        ("no json", "line 1, line: expected JSON, found 'no json'"),
        ("[1]", "line 1, sample_id: expected text, found null"),
        ('{"sample_id": "a", "label": "wave"}\n{"sample_id": "b"}', "line 2, label: expected text, found null"),
        ('{"sample_id": "a", "label": " "}', 'line 1, label: expected text, found " "'),
        ('{"sample_id": "a", "label": "b"}\n{"sample_id": "a", "label": "b"}', "line 2, sample_id: .* 'a' again"),
        ('{"sample_id": "nobody", "label": "b", "text": "c"}', "no recording in common"),
    ],
)
def test_lines_that_cannot_be_shown_are_named(lines, data, tmp_path, content, error):
    (tmp_path / "broken.jsonl").write_text(content)
    with pytest.raises(ValueError, match=error):
        explanations(lines, data, tmp_path, items=[f"{lines}/{OURS}.jsonl", f"{tmp_path}/broken.jsonl"])
    assert not (tmp_path / "sheets").exists()


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"text": "texd"}, "has the field 'texd'"),
        ({"raters": 0}, "raters and count must be at least 1"),
        ({"items": ["a/explanations.jsonl", "b/explanations.jsonl"]}, "the name 'explanations' is already in use"),
        ({"items": ["control=a.jsonl"]}, "the name 'control' is already in use"),
    ],
)
def test_arguments_that_cannot_be(lines, data, tmp_path, settings, error):
    with pytest.raises(ValueError, match=error):
        explanations(lines, data, tmp_path, **settings)


def test_every_scale_says_what_its_ends_mean():
    for study in STUDIES.values():
        assert all(bool(scale.low) == bool(scale.high) for scale in study.scales)
        assert len({scale.name for scale in study.scales}) == len(study.scales)
        assert any(scale.low for scale in study.scales)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_plays_the_clips_and_writes_the_sheet(made, tmp_path):
    folder, key = made
    script = """
    const said = [];
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    const wait = (ready) => new Promise((done) => {
      const timer = setInterval(() => { if (ready()) { clearInterval(timer); done(); } }, 50);
    });
    (async () => {
      find("#next").click();
      for (let place = at; place < 12; place++) {
        const video = find("video");
        if (place === 0) await wait(() => video.videoWidth && video.currentTime > 0);
        if (place === 0) said.push(video.videoWidth);
        const text = find(".text");
        press(place % 2 ? "y" : "n");
        if (text) said.push("the explanation is shown too early");
        for (const key of ["1", "9", "5", "3"]) if (study.items[at].text.length) press(key);
        if (place === 0) { find("textarea").value = 'a "word", another'; find("textarea").dispatchEvent(new Event("input")); }
        find("#next").click();
      }
      document.body.innerHTML = "";
      document.body.append(made("pre", JSON.stringify({said, sheet: sheet(), kept: localStorage.getItem(place)})));
    })();
    """
    copy = tmp_path / "copy.html"
    text = (folder / "sheets" / "rater_01.html").read_text()
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=60000", "--dump-dom", copy.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    result = json.loads(re.search(r"<pre>(.*)</pre>", shown, re.DOTALL)[1].replace("&lt;", "<").replace("&gt;", ">"))
    assert result["said"] == [64]
    (tmp_path / "rater_01.csv").write_text(result["sheet"])
    sheet = read_sheet(str(tmp_path / "rater_01.csv"), key)
    order = [item["id"] for item in page(folder)["items"]]
    assert [sheet.answers[name]["agreement"] for name in order] == ["no", "yes"] * 6
    explained = [name for name in order if len(key["items"][name]["asked"]) == 4]
    assert all(list(sheet.answers[name].values())[1:] == ["1", "5", "3"] for name in explained)
    assert sheet.comments == {order[0]: 'a "word", another'}
    assert json.loads(result["kept"])["answers"] == sheet.answers
