"""Preparing Parquet: rows equal those of the builder, killed runs resume, and terms are respected."""

import json
import os
import signal
import time
import types

import datasets
import numpy as np
import pytest
from fresh_python import python, start
from skeleton_people import person, skeleton_text
from tiny_videos import tiny_video

from action_llm_datasets import load
from action_llm_datasets import prepare as module
from action_llm_datasets.building import DataFolderError
from action_llm_datasets.folder_builder import ActionFolder
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.preparation_report import choose_recordings
from action_llm_datasets.prepare import PreparationError, prepare, push


def read(output, config, cache, **options):
    return datasets.load_dataset(str(output), config, cache_dir=str(cache), **options)


def test_rows_are_those_of_the_builder(simulated, tmp_path):
    accounts = prepare("simulated-xsub", simulated, tmp_path / "out", num_proc=1, files_per_shard=10)
    assert accounts["simulated-xsub"]["recordings"] == {"train": 36, "test": 9}
    own = load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path / "cache")
    splits = read(tmp_path / "out", "simulated-xsub", tmp_path / "cache")
    assert set(splits) == {"train", "test"}
    for split in own:
        assert splits[split].features == own[split].features
        assert splits[split].data.table.equals(own[split].data.table)
    streamed = read(tmp_path / "out", "simulated-xsub", tmp_path / "cache", streaming=True)
    assert [row["sample_id"] for row in streamed["test"]] == list(own["test"]["sample_id"])


def test_unseen_classes_have_their_own_config(simulated, tmp_path):
    prepare("simulated-unseen", simulated, tmp_path / "out", num_proc=1)
    seen = read(tmp_path / "out", "simulated-unseen-seen", tmp_path / "cache")
    unseen = read(tmp_path / "out", "simulated-unseen-unseen", tmp_path / "cache")
    assert set(seen) == {"train"} and set(unseen) == {"test"}
    names = (seen["train"].features["label"].names, unseen["test"].features["label"].names)
    assert not set(names[0]) & set(names[1])


def test_a_finished_run_reads_nothing_again(simulated, tmp_path, monkeypatch):
    first = prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(written) == 4 + 1
    monkeypatch.setattr(module, "_write_shard", None)
    assert prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10) == first
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_a_missing_shard_is_written_again(simulated, tmp_path, monkeypatch):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10)
    lost = tmp_path / "simulated-xsub" / "train-00002-of-00004.parquet"
    content = lost.read_bytes()
    lost.unlink()
    lost.with_name(f".{lost.name}.123").write_bytes(content[:100])  # left behind by a killed run
    calls, write = [], module._write_shard
    monkeypatch.setattr(
        module, "_write_shard", lambda builder, shard: calls.append(shard.parquet) or write(builder, shard)
    )
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10)
    assert calls == [lost] and lost.read_bytes() == content


def test_skipped_files_are_counted_and_listed(simulated, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in simulated.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    broken = "S001C001P001R001A010.skeleton"
    (source / broken).write_bytes((source / broken).read_bytes()[:5000])
    (source / "S001C001P001R001A999.skeleton").write_text("0\n")
    account = prepare("simulated-xsub", source, tmp_path / "out", num_proc=1)["simulated-xsub"]
    assert account["skipped"] == {"unreadable": 1, "action": 1} and account["recordings"]["train"] == 35
    page = (tmp_path / "out" / "report.html").read_text()
    card = (tmp_path / "out" / "README.md").read_text()
    assert broken in page and "expected" in page and "1 (unreadable)" in card
    assert json.loads((tmp_path / "out" / "preparation.json").read_text())["simulated-xsub"] == account
    assert (tmp_path / "out" / "report-simulated-xsub-unusual.png").stat().st_size > 5000
    # Changed source files are refused.
    (source / broken).write_bytes((simulated / broken).read_bytes())
    with pytest.raises(PreparationError, match="was made with other source files"):
        prepare("simulated-xsub", source, tmp_path / "out", num_proc=1)


@pytest.mark.parametrize("tasks", [2, 4])
def test_tasks_write_the_bytes_of_one_run(tasks, simulated, tmp_path, monkeypatch, caplog):
    source = tmp_path / "source"
    source.mkdir()
    for path in simulated.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    broken = sorted(source.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:5000])
    in_processes = module.in_processes
    monkeypatch.setattr(  # faster here than in new processes
        module, "in_processes", lambda work, jobs, num_proc, apart, **start: in_processes(work, jobs, 1, **start)
    )
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    accounts = prepare("simulated-xsub", source, whole, num_proc=1, files_per_shard=10)
    with caplog.at_level("INFO"):
        for task in reversed(range(tasks)):
            assert prepare("simulated-xsub", source, shared, files_per_shard=10, task=task, tasks=tasks) == {}
    said = [message for message in caplog.messages if "task" in message]
    assert len(said) == tasks and said[-1].endswith("1 files skipped") and said[0].endswith(" 0 files skipped")
    assert sum(broken.name in message for message in caplog.messages) == 1

    def content(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.parquet")}

    assert content(shared) == content(whole) and not (shared / "preparation.json").exists()
    monkeypatch.setattr(module, "_write_shard", None)
    assert prepare("simulated-xsub", source, shared, num_proc=1, files_per_shard=10) == accounts
    for name in ("preparation.json", "README.md", "report.html"):
        assert (shared / name).read_bytes() == (whole / name).read_bytes(), name


def test_people_instead_of_bodies(ntu_source, tmp_path):
    """Two people, one of whom gets a new id after a gap, and a false body: rows differ, the record is the same."""
    raw = prepare("ntu60-xsub", ntu_source, tmp_path / "raw", num_proc=1)["ntu60-xsub"]
    clean = prepare("ntu60-xsub", ntu_source, tmp_path / "clean", num_proc=1, clean=True)["ntu60-xsub"]
    bodies = [{"body_id": 12, "frames": 8, "fate": "short"}, {"body_id": 13, "frames": 15, "fate": "continues"}]
    expected = {"sample_id": "S001C001P001R001A050", "bodies": bodies, "gap_frames": [0, 10]}
    assert raw["cleaning"]["recordings"] == clean["cleaning"]["recordings"] == [expected]
    assert raw["cleaning"]["counts"] == {"continues": 1, "gap": 1, "short": 1}
    assert raw["cleaning"]["convention"]["min_body_frames"] == 11
    assert (raw["cleaning"]["applied"], clean["cleaning"]["applied"]) == (False, True)
    every = read(tmp_path / "raw", "ntu60-xsub", tmp_path / "cache")["train"][0]
    people = read(tmp_path / "clean", "ntu60-xsub", tmp_path / "cache")["train"][0]
    assert every["shape"] == [40, 4, 25, 3] and every["body_ids"] == [10, 11, 12, 13]
    assert people["shape"] == [40, 2, 25, 3] and people["body_ids"] == [10, 11]
    every, people = (np.reshape(row["keypoints"], row["shape"]) for row in (every, people))
    np.testing.assert_array_equal(people[:, 0], every[:, 0])
    np.testing.assert_array_equal(people[:15, 1], every[:15, 1])
    assert not people[15:25, 1].any()
    np.testing.assert_array_equal(people[25:, 1], every[25:, 3])
    page = (tmp_path / "raw" / "report.html").read_text()
    assert "Not applied: rows hold all bodies" in page and "8 frames" not in page and "11 frames or fewer" in page
    assert "Applied: rows hold people." in (tmp_path / "clean" / "report.html").read_text()
    assert raw["classes"]["train"]["punching/slapping other person"] == 1
    published = raw["published_classes"]["all"]
    assert sum(published.values()) == 40091 + 16487 and max(published.values()) == 948
    assert '<td class="n">1 <span class="off">of' in page
    card = (tmp_path / "raw" / "README.md").read_text()
    assert "as they were recorded" in card and "Rows hold all tracked bodies. Cleaning would find:" in card
    card = (tmp_path / "clean" / "README.md").read_text()
    assert "as they were recorded" not in card and "- ntu60-xsub, 1 recording: a body with 11 frames or fewer" in card


@pytest.fixture
def ntu_source(tmp_path):
    bodies = [
        (10, 0, person(40, activity=0.5)), (11, 0, person(15, seed=1, place=(1, 0, 3))),
        (12, 3, person(8, seed=2, place=(2, 0, 3))), (13, 25, person(15, seed=3, place=(1, 0, 3))),
    ]  # fmt: skip
    frames = [
        [
            (body_id, [[*map(float, joint), *[0] * 8, 2] for joint in body[frame - start]])
            for body_id, start, body in bodies
            if start <= frame < start + len(body)
        ]
        for frame in range(40)
    ]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "S001C001P001R001A050.skeleton").write_text(skeleton_text(frames))
    return tmp_path / "source"


def test_additional_columns_of_joints(ntu_source, tmp_path):
    prepare("ntu60-xsub", ntu_source, tmp_path / "out", num_proc=1, keep=("tracking_state", "color_pixels"))
    row = read(tmp_path / "out", "ntu60-xsub", tmp_path / "cache")["train"][0]
    assert np.reshape(row["tracking_state"], row["shape"][:3])[20].tolist() == [[2] * 25, [0] * 25, [0] * 25, [0] * 25]
    assert len(row["color_pixels"]) == 40 * 4 * 25 * 2 and "depth_pixels" not in row
    with pytest.raises(
        ValueError, match="keep: ntu60-xsub has depth_pixels, color_pixels, tracking_state; got 'pixels'"
    ):
        prepare("ntu60-xsub", ntu_source, tmp_path / "other", num_proc=1, keep=("pixels",))


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["clean=true", "min_body_frames=20"], {"clean": True, "min_body_frames": 20}),
        (['keep=["tracking_state"]', "skip_missing=false"], {"keep": ("tracking_state",), "skip_missing": False}),
        (["max_width_ratio=1"], {"max_width_ratio": 1.0}),
        (["skeletons=some/folder"], {"skeletons": "some/folder"}),
    ],
)
def test_settings_on_the_command_line(arguments, settings):
    assert module._settings("ntu60-xsub", arguments) == settings


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("cleen=true", "--set: expected FIELD=VALUE with a field of ntu60-xsub .*clean.*, found 'cleen=true'"),
        ("clean", "found 'clean'"),
        ("clean=yes", "--set clean: expected a value like false, found 'yes'"),
        ("min_body_frames=1.5", "--set min_body_frames: expected a value like 11, found '1.5'"),
        ("protocol=x", "with a field of ntu60-xsub .*, found 'protocol=x'"),
    ],
)
def test_wrong_settings_on_the_command_line(argument, message):
    with pytest.raises(ValueError, match=message):
        module._settings("ntu60-xsub", [argument])


@pytest.mark.real_data
def test_two_people_stay_apart(real_data, tmp_path):
    """The ids of S001C003P008R002A058 differ by 4 near 2^56, where the spacing of float64 is 16."""
    for clean in (False, True):
        output = tmp_path / str(clean)
        prepare("ntu60-xsub", real_data / "ntu_rgbd" / "skeletons", output, num_proc=1, clean=clean)
        rows = read(output, "ntu60-xsub", tmp_path / "cache")["train"]
        row = next(row for row in rows if row["sample_id"] == "S001C003P008R002A058")
        assert sorted(row["body_ids"]) == [72057594037944734, 72057594037944738]
        people = np.reshape(row["keypoints"], row["shape"])
        assert people.shape == (70, 2, 25, 3)
        assert np.linalg.norm(people[:, 0, 0] - people[:, 1, 0], axis=-1).min() > 0.3  # metres between their pelvises


@pytest.mark.parametrize(
    ("first", "second", "different"),
    [
        ({}, {"clean": True}, "clean"),
        ({}, {"keep": ("tracking_state",)}, "keep"),
        ({}, {"skip_missing": False}, "skip_missing"),
        ({}, {"files_per_shard": 7}, "files_per_shard"),
        ({"min_body_frames": 3, "clean": True}, {"min_body_frames": 4, "clean": True}, "min_body_frames"),
    ],
)
def test_an_output_made_with_other_settings_is_refused(ntu_source, tmp_path, first, second, different):
    prepare("ntu60-xsub", ntu_source, tmp_path / "out", num_proc=1, **first)
    before = (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(PreparationError, match=f"was made with another value of {different}: choose another --output"):
        prepare("ntu60-xsub", ntu_source, tmp_path / "out", num_proc=1, **second)
    assert (tmp_path / "out" / "README.md").read_text() == before
    with pytest.raises(PreparationError, match="was made with the data set ntu60-xsub"):
        prepare("ntu60-xview", ntu_source, tmp_path / "out", num_proc=1)


def test_an_output_with_other_parquet_files(ntu_source, tmp_path):
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "train.parquet").write_bytes(b"x")
    with pytest.raises(PreparationError, match="holds other Parquet files"):
        prepare("ntu60-xsub", ntu_source, tmp_path / "out", num_proc=1)


@pytest.mark.parametrize("lost", ["account", "footer", "content of the account"])
def test_damaged_shards_are_written_again(ntu_source, tmp_path, lost):
    prepare("ntu60-xsub", ntu_source, tmp_path, num_proc=1)
    shard = tmp_path / "ntu60-xsub" / "train-00000-of-00001.parquet"
    account = tmp_path / ".preparation" / "ntu60-xsub" / "train-00000-of-00001.json"
    content, record = shard.read_bytes(), account.read_text()
    if lost == "account":
        account.unlink()
    elif lost == "footer":
        shard.write_bytes(content[:-20])
    else:
        account.write_text(record[: len(record) // 2])
    (shard.parent / f".{shard.name}.77").write_bytes(b"half")
    prepare("ntu60-xsub", ntu_source, tmp_path, num_proc=1)
    assert shard.read_bytes() == content and account.read_text() == record
    assert not list(tmp_path.rglob(".*.parquet.*"))
    (tmp_path / ".preparation" / "identity.json").write_text("")
    with pytest.raises(PreparationError, match="records how the folder was made: choose another"):
        prepare("ntu60-xsub", ntu_source, tmp_path, num_proc=1)


def test_no_usable_recording(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "S001C001P001R001A001.skeleton").write_text("broken")
    with pytest.raises(
        DataFolderError, match=r"no recording under .* could be used for ntu60-xsub; for example S001C001"
    ):
        prepare("ntu60-xsub", tmp_path / "source", tmp_path / "out", num_proc=1)
    assert not (tmp_path / "out" / "README.md").exists()


def test_private_data_are_not_pushed_to_a_public_repository(simulated, ntu_source, tmp_path, hub):
    prepare("ntu60-xsub", ntu_source, tmp_path, num_proc=1)
    with pytest.raises(PreparationError, match="me/public is public"):
        push(tmp_path, "me/public")
    assert [call[0] for call in hub] == ["create"]
    push(tmp_path, "me/private")
    options = hub[-1][2]
    assert "**/.*" in options["ignore_patterns"] and "*/*.parquet" in options["delete_patterns"]


def test_the_report_shows_odd_and_usual_recordings(simulated, tmp_path):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1)
    chosen = choose_recordings(tmp_path / ".preparation" / "simulated-xsub")
    odd, usual = ({recording.measures["sample_id"] for recording in recordings} for recordings in chosen.values())
    assert odd and not odd & usual and all(recording.odd for recording in chosen["Unusual recordings"])
    assert all(f"(unusual: {recording.odd})" in recording.title for recording in chosen["Unusual recordings"])


def test_the_report_of_videos_has_pictures(tmp_path):
    for action in range(1, 9):
        source = tmp_path / "source" / f"S001C001P001R001A00{action}_rgb.mp4"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(tiny_video(6 if action < 8 else 30))
    prepare("ntu60-xsub-video", tmp_path / "source", tmp_path / "out", num_proc=1)
    assert (tmp_path / "out" / "report-ntu60-xsub-video-unusual.png").is_file()
    assert (tmp_path / "out" / "report-ntu60-xsub-video-typical.png").is_file()
    assert "- skeleton" not in (tmp_path / "out" / "README.md").read_text()


def test_the_card_of_simulated_recordings(simulated, tmp_path):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1)
    card = (tmp_path / "README.md").read_text()
    assert "**Simulated.**" in card and "- simulated" in card and "no people were recorded" in card
    assert (
        "| simulated-xsub | train | 36 |" in card
        and str(tmp_path) not in card + (tmp_path / "report.html").read_text()
    )


@pytest.fixture
def hub(monkeypatch):
    """Records the calls to the Hub."""
    calls = []

    class Api:
        def create_repo(self, repository, **options):
            calls.append(("create", repository, options))
            return repository

        def repo_info(self, repository, **options):
            return types.SimpleNamespace(private=not repository.endswith("public"))

        def upload_folder(self, **options):
            calls.append(("upload", options["repo_id"], options))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return calls


def test_repositories_are_private_unless_the_terms_and_the_user_say_otherwise(simulated, tmp_path, hub):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1)
    push(tmp_path, "me/simulated")
    assert hub[0][2]["private"] and "token" not in hub[0][2]
    assert any(".preparation" in pattern for pattern in hub[1][2]["ignore_patterns"])
    push(tmp_path, "me/simulated", public=True)
    assert not hub[2][2]["private"]
    terms = tmp_path / ".preparation" / "terms.json"
    terms.write_text(json.dumps({"license": "no redistribution", "may_be_published": False}))
    with pytest.raises(PreparationError, match=r"the terms forbid redistribution \(no redistribution\)"):
        push(tmp_path, "me/ntu", public=True)
    assert len(hub) == 4


def command(simulated, output):
    return [
        "-m", "action_llm_datasets.prepare", "simulated", "--protocol", "xsub", "--source", str(simulated),
        "--output", str(output), "--num_proc", "1",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_resumes(simulated, tmp_path):
    """Two runs with two processes are killed by SIGKILL; the third run gives the output of an uninterrupted run."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare("simulated-xsub", simulated, whole, num_proc=1, files_per_shard=4)
    code = (
        "import sys, action_llm_datasets.prepare as p\n"
        "if __name__ == '__main__':\n"
        "    p.prepare('simulated-xsub', sys.argv[1], sys.argv[2], num_proc=2, files_per_shard=4)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    for wanted in (2, 6):
        process = start(script, simulated, killed)
        deadline = time.monotonic() + 120
        while len(list(killed.rglob("*.parquet"))) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = python(script, simulated, killed, timeout=120)
    assert done.returncode == 0, done.stderr
    names = sorted(path.relative_to(whole) for path in whole.rglob("*.parquet"))
    assert names == sorted(path.relative_to(killed) for path in killed.rglob("[!.]*.parquet"))
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)
    assert (whole / "preparation.json").read_text() == (killed / "preparation.json").read_text()


@pytest.mark.slow
def test_the_command(simulated, tmp_path):
    done = python(*command(simulated, tmp_path / "out"))
    assert done.returncode == 0 and "36 train, 9 test" in done.stdout and "left out: nothing" in done.stdout
    failed = python(*command(tmp_path, tmp_path / "other"))
    assert failed.returncode == 2 and "Traceback" not in failed.stderr and "holds no .skeleton file" in failed.stderr
    wrong = command(simulated, tmp_path / "other")
    wrong[wrong.index("xsub")] = "xview2"
    failed = python(*wrong)
    assert "there is no protocol 'simulated-xview2'; did you mean simulated-xview?" in failed.stderr


class FolderThatKills(ActionFolder):
    """Reading a recording of 13 frames ends the process, like a file that crashes a native library."""

    def read_file(self, folder, path):
        recording = super().read_file(folder, path)
        if len(recording.keypoints) == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        return recording


def test_only_the_file_that_ends_its_process_is_skipped(tmp_path, monkeypatch, caplog):
    source = tmp_path / "source"
    source.mkdir()
    lines = ["file_name,label,split"]
    lethal = {"c3.npy", "c4.npy"}
    for number in range(8):
        name = f"c{number}.npy"
        np.save(source / name, person(13 if name in lethal else 14 + number, seed=number))
        lines.append(f"{name},{'wave' if number % 2 else 'sit'},{'test' if number > 5 else 'train'}")
    (source / "metadata.csv").write_text("\n".join(lines))
    monkeypatch.setattr(FolderThatKills, "check_sample", lambda self, paths: None)
    monkeypatch.setitem(load.PROTOCOLS, "folder", (FolderThatKills, ("folder",)))
    account = prepare("folder", source, tmp_path / "out", num_proc=2)["folder"]
    assert account["skipped"] == {"crash": 2} and account["recordings"] == {"train": 4, "test": 2}
    assert {entry["file"] for entry in account["files"]} == lethal
    assert all("the process that read it ended" in entry["reason"] for entry in account["files"])
    assert "a process ended while it was reading " in caplog.text and "c4.npy is skipped" in caplog.text
    assert not list((tmp_path / "out").rglob(".*.parquet.*"))
    # The other recordings are not affected.
    for name in lethal:
        (source / name).unlink()
    whole = prepare("folder", source, tmp_path / "whole", num_proc=1)["folder"]
    assert whole["recordings"] == account["recordings"]
    for split in ("train", "test"):
        rows = [read(tmp_path / out, "folder", tmp_path / "cache")[split].to_list() for out in ("out", "whole")]
        assert rows[0] == rows[1]
