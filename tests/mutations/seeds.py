"""Sound files of every format, tiny and made on the spot: what is damaged afterwards.

Each function fills a folder and returns its seeds. A seed is a folder that is read as a whole, and the file in it that is
damaged.
"""

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from c3d_writer import SGI, c3d_bytes, gait_markers
from peft import LoraConfig, get_peft_model
from PIL import Image
from scipy.io import savemat
from skeleton_people import nw_ucla_text, person, sbu_text, skeleton_text, smarthome_text, uav_human_text
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, WIDTH, tiny_llava, tiny_llm, tiny_recogniser, tiny_vtem
from tiny_videos import CODECS, picture, rotated, tiny_video

PROTOCOL = "simulated-xsub"
MODEL, SENTENCES = "model", "sentences"
SUFFIXES = {"mp4": ".mp4", "avi": ".avi", "matroska": ".mkv", "webm": ".webm", "mpegts": ".ts"}
FAULTS = Path("cases", "faults")
"""Files of ACTION_LLM_TEST_DATA that once ended a process or asked for gigabytes."""


class Seed(NamedTuple):
    """A folder, and the file in it that is damaged, relative to it."""

    folder: Path
    file: str

    @property
    def content(self) -> bytes:
        return Path(self.folder, self.file).read_bytes()


def alone(folder: Path, files: dict[str, bytes]) -> list[Seed]:
    """Each file in a folder of its own."""
    seeds = []
    for number, (name, content) in enumerate(files.items()):
        place = folder / f"{number:02d}"
        place.mkdir(parents=True)
        (place / name).write_bytes(content)
        seeds.append(Seed(place, name))
    return seeds


def brought(real: Path | None, *patterns: str, most: int = 3, largest: int = 1 << 20) -> dict[str, bytes]:
    """Real files, the first ones of each pattern by name."""
    paths = [path for pattern in patterns if real for path in sorted(real.glob(pattern))[:most]]
    return {path.name: path.read_bytes() for path in paths if path.stat().st_size <= largest}


def _kinect_text(num_people: int = 1, end: str = "\n") -> bytes:
    people = [person(8, seed=number, place=(number, 0, 3)) for number in range(num_people)]
    rows = [[[*np.round(joint, 5).tolist(), *[0] * 8, 2] for joint in pose] for body in people for pose in body]
    frames = [[(72057594037932358 + n, rows[8 * n + time]) for n in range(num_people)] for time in range(8)]
    return skeleton_text([*frames, []], end).encode()


def skeleton_files(folder: Path, real: Path | None) -> list[Seed]:
    files = {"one.skeleton": _kinect_text(), "two.skeleton": _kinect_text(2), "crlf.skeleton": _kinect_text(1, "\r\n")}
    return alone(folder, files | brought(real, "ntu_rgbd/skeletons/*A050.skeleton", f"{FAULTS}/*.skeleton"))


def uav_human_files(folder: Path, real: Path | None) -> list[Seed]:
    return alone(
        folder, {"clip.txt": uav_human_text((1, 0, 2, 1)).encode(), "long.txt": uav_human_text((1,) * 9).encode()}
    )


def smarthome_files(folder: Path, real: Path | None) -> list[Seed]:
    files = {"clip.json": smarthome_text((1, 0, 2, 1)), "spaced.json": smarthome_text((1, 1)).replace(b",", b" ,\n")}
    return alone(folder, files | brought(real, f"{FAULTS}/*smarthome.json"))


def nw_ucla_files(folder: Path, real: Path | None) -> list[Seed]:
    body = person(6, "kinect20-sdk")
    files = {"clip.json": nw_ucla_text(body.round(4)), "spaced.json": nw_ucla_text(body).replace(b",", b" ,\n")}
    return alone(folder, files)


def sbu_files(folder: Path, real: Path | None) -> list[Seed]:
    pair = np.stack([person(8, "sbu15"), person(8, "sbu15", seed=1, yaw=90)], axis=1)
    text = sbu_text(pair).encode()
    texts = {"unix": text, "windows": text.replace(b"\n", b"\r\n")}
    return [seed for name, text in texts.items() for seed in alone(folder / name, {"skeleton_pos.txt": text})]


BVH = """HIERARCHY
ROOT Hips { OFFSET 0 0 0 CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
JOINT Neck { OFFSET 0 50 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site { OFFSET 0 10 0 }
JOINT LeftArm { OFFSET 20 0 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site { OFFSET 30 0 0 } }
JOINT RightArm { OFFSET -20 0 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site { OFFSET -30 0 0 } } }
JOINT LeftUpLeg { OFFSET 10 0 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site { OFFSET 0 -40 0 } }
JOINT RightUpLeg { OFFSET -10 0 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site { OFFSET 0 -40 0 } } }
MOTION
Frames: 6
Frame Time: 0.0333333
"""


def bvh_files(folder: Path, real: Path | None) -> list[Seed]:
    motion = np.random.default_rng(0).normal(size=(6, 21)) * 10 + np.eye(21)[1] * 95
    text = BVH + "\n".join(" ".join(f"{value:.4f}" for value in row) for row in motion) + "\n"
    return alone(folder, {"clip.bvh": text.encode(), "crlf.bvh": text.replace("\n", "\r\n").encode()})


def c3d_files(folder: Path, real: Path | None) -> list[Seed]:
    labels, points = gait_markers(6)
    return alone(folder, {"walk.c3d": c3d_bytes(labels, points), "integers.c3d": c3d_bytes(labels, points, SGI, 0.1)})


def pose_json_files(folder: Path, real: Path | None) -> list[Seed]:
    joints = np.stack([person(8, "coco17", seed=seed, place=(3 * seed, 0, 0)) for seed in (0, 1)], axis=1)
    joints = (joints * [150, 150, 0] + np.array([320, 240, 0.9])).round(2)
    people = [[body.ravel().tolist() for body in bodies] for bodies in joints]
    listed = [
        {"image_id": f"{frame}.jpg", "keypoints": body, "score": 2.5, "idx": number}
        for frame, bodies in enumerate(people)
        for number, body in enumerate(bodies)
    ]
    images = [{"id": frame, "file_name": f"{frame}.jpg"} for frame in range(8)]
    annotated = [{"image_id": frame, "keypoints": bodies[0]} for frame, bodies in enumerate(people)]
    openpose = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": body} for body in people[0]]}
    files = {
        "alphapose.json": listed,
        "coco.json": {"images": images, "annotations": annotated},
        "frame.json": openpose,
    }
    files = {name: json.dumps(content).encode() for name, content in files.items()}
    return alone(folder, files | brought(real, "cases/s08_alphapose_coco_json/*.json"))


def mat_files(folder: Path, real: Path | None) -> list[Seed]:
    files = {}
    joints = person(20, "kinect20")[:, 0:].transpose(1, 2, 0).astype(np.float64)
    for name, variables, settings in (
        ("plain.mat", {"d_skel": joints}, {}),
        ("packed.mat", {"d_skel": joints}, {"do_compression": True}),
        ("v4.mat", {"d_skel": joints[:, :, 0]}, {"format": "4"}),
        (
            "more.mat",
            {"d_skel": joints.astype("f4"), "who": "me", "cell": np.array([1, "a"], object), "s": {"a": 1}},
            {},
        ),
    ):
        file = io.BytesIO()
        savemat(file, variables, **settings)
        head = b"MATLAB 5.0 MAT-file, made for tests".ljust(116)  # without the time
        content = file.getvalue()
        files[name] = head + content[116:] if content.startswith(b"MATLAB") else content
    return alone(folder, files | brought(real, "utd_mhad/skeleton/a1_s1_t1*.mat", f"{FAULTS}/*.mat", most=8))


def _saved(save, *arrays, **named) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def npy_files(folder: Path, real: Path | None) -> list[Seed]:
    one, two = person(20), np.stack([person(20), person(20, seed=1, place=(1.5, 0, 3))], axis=1)
    files = {
        "one.npy": _saved(np.save, one),
        "two.npy": _saved(np.save, np.asfortranarray(two.astype(np.float64))),
        "whole.npy": _saved(np.save, (1000 * one).astype(np.int16)),
    }
    return alone(folder, files | brought(real, f"{FAULTS}/*.npy"))


def npz_files(folder: Path, real: Path | None) -> list[Seed]:
    files = {
        "rate.npz": _saved(np.savez, keypoints=person(20), fps=np.float64(25)),
        "tracked.npz": _saved(np.savez, keypoints=np.stack([person(20)] * 2, axis=1), body_ids=np.arange(2)),
        "packed.npz": _saved(np.savez_compressed, person(20)),
    }
    return alone(folder, files | brought(real, f"{FAULTS}/*.npz"))


def rows_of_text(folder: Path, real: Path | None) -> list[Seed]:
    frames = person(12).round(4)

    def lines(rows, separator=" "):
        return "".join(separator.join(f"{value:g}" for value in row) + "\n" for row in rows).encode()

    numbered = np.concatenate([np.tile(np.arange(25), 12)[:, None], frames.reshape(-1, 3)], axis=1)
    files = {
        "joint_a_row.txt": lines(frames.reshape(-1, 3)),
        "frame_a_row.txt": lines(frames.reshape(12, -1), ","),
        "numbered.txt": b"joint x y z\n" + lines(numbered, ";"),
    }
    return alone(folder, files)


def _table(names: list[str], extra: str = "") -> str:
    rows = [
        f"{name},{'wave' if n % 2 else 'sit down'},{'test' if n > 3 else 'train'},{n}{extra}\n"
        for n, name in enumerate(names)
    ]
    return "file_name,label,split,subject\n" + "".join(rows)


OWN_LAYOUT = {
    "name": "mine",
    "joint_names": ["pelvis", "neck", "head", "left_hip", "right_hip", "left_shoulder", "right_shoulder"],
    "parents": [-1, 0, 1, 0, 0, 1, 1],
    "parts": {"trunk": [0, 1, 2], "left_arm": [5], "right_arm": [6], "left_leg": [3], "right_leg": [4]},
    "left_right": [[3, 4], [5, 6]],
}


def folders_of_recordings(folder: Path, real: Path | None) -> list[Seed]:
    seeds = []
    for name, common, shape in (
        ("named", {"layout": "kinect25", "fps": 30, "class_names": ["sit down", "wave"], "license": "mine"}, 25),
        ("described", {"layout": OWN_LAYOUT, "fps": 25, "up": "y"}, 7),
    ):
        place = folder / name
        (place / "more").mkdir(parents=True)
        names = [f"more/{n}.npy" if n % 2 else f"{n}.npy" for n in range(6)]
        for number, file in enumerate(names):
            np.save(place / file, person(10, seed=number)[:, :shape])
        (place / "metadata.csv").write_text(_table(names))
        (place / "skeleton.json").write_text(json.dumps(common))
        seeds += [Seed(place, "metadata.csv"), Seed(place, "skeleton.json")]
    return seeds


def archives_of_recordings(folder: Path, real: Path | None) -> list[Seed]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        place = folder / str(method)
        place.mkdir(parents=True)
        names = [f"S001C001P{n:03d}R001A010.skeleton" for n in range(1, 7)]
        with zipfile.ZipFile(place / "clips.zip", "w", method) as archive:
            for name in names:
                archive.writestr(zipfile.ZipInfo(name), _kinect_text(), compress_type=method)
        (place / "metadata.csv").write_text(_table([f"clips.zip/{name}" for name in names]))
        seeds.append(Seed(place, "clips.zip"))
    return seeds


def folders_of_sentences(folder: Path, real: Path | None) -> list[Seed]:
    """What encode_actions.py writes, by the functions that it writes it with."""
    from datasets import ClassLabel

    from action_llm_recipes.common.action_sentences import sentence_features, write_codebook
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.people import write_people
    from action_llm_recipes.common.shards import SplitShards, write_shard
    from action_llm_recipes.common.split_evidence import SPLIT_EVIDENCE, SplitEvidence

    model, processor = tiny_recogniser("skeletons")
    _save_without_code(folder / MODEL, model, processor)
    folder, root = folder / SENTENCES, folder
    folder.mkdir()
    features = sentence_features(ClassLabel(names=CLASS_NAMES), NUM_ACTION_TOKENS, with_latents=False)
    for split, count in (("train", 6), ("test", 4)):
        generator = np.random.default_rng(count)
        names = [f"{split}{n}" for n in range(count)]
        columns = {
            "sample_id": names,
            "encoding": [0] * count,
            "label": [n % len(CLASS_NAMES) for n in range(count)],
            "held_out": [split == "train" and n % 2 == 1 for n in range(count)],
            "action_ids": [generator.integers(0, NUM_ACTION_TOKENS, 5 + n) for n in range(count)],
            "start_times": [np.arange(5 + n, dtype=np.float32) / 7.5 for n in range(count)],
            "end_times": [np.arange(1, 6 + n, dtype=np.float32) / 7.5 for n in range(count)],
        }
        write_shard(SplitShards(folder, split, 1).paths[0], columns, features)
    people = {f"{split}{n}": f"P{n % 3}" for split, count in (("train", 6), ("test", 4)) for n in range(count)}
    write_people(folder, people)
    write_codebook(folder, torch.ones(NUM_ACTION_TOKENS, WIDTH))
    parts = {
        "training": [f"train{n}" for n in (0, 2, 4)],
        "held_out": [f"train{n}" for n in (1, 3, 5)],
        "test": [f"test{n}" for n in range(4)],
    }
    evidence = SplitEvidence(PROTOCOL, parts)
    for place in (folder, root / MODEL):
        evidence.save(place)
    (root / MODEL / "record.json").write_text(json.dumps(_RECORD | {"split_evidence": evidence.describe()}))
    (folder / "record.json").write_text(
        json.dumps(
            {
                "stage": "encode_actions",
                "dataset": PROTOCOL,
                "split_evidence": evidence.describe(),
                "splits": {"train": {"sentences": 6}, "test": {"sentences": 4}},
            }
        )
    )
    (folder / "identity.json").write_text(
        json.dumps(
            {"dataset": PROTOCOL, "encodings": 1, "weights": weights_fingerprint(model.base_model.action_model)}
        )
    )
    shards = ("test/00000-of-00001.parquet", "train/00000-of-00001.parquet")
    written = ("record.json", "identity.json", "people.json", "codebook.safetensors", SPLIT_EVIDENCE)
    names = [f"{SENTENCES}/{name}" for name in (*shards, *shards, *written)]
    return [Seed(root, name) for name in (*names, f"{MODEL}/{SPLIT_EVIDENCE}")]


def video_files(folder: Path, real: Path | None) -> list[Seed]:
    files = {f"clip{SUFFIXES[container]}": tiny_video(12, container=container) for container in CODECS}
    files["turned.mp4"] = rotated(tiny_video(12))
    gif = io.BytesIO()
    pictures = [Image.fromarray(picture(number)) for number in range(8)]
    pictures[0].save(gif, "GIF", save_all=True, append_images=pictures[1:], duration=40)
    files["clip.gif"] = gif.getvalue()
    return alone(
        folder, files | brought(real, "cases/v/*.mp4", "cases/v/live*", "cases/v/test.*", most=40, largest=40_000)
    )


def folders_of_frames(folder: Path, real: Path | None) -> list[Seed]:
    seeds = []
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        place = folder / suffix[1:]
        place.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(picture(number)).save(place / f"frame_{number:04d}{suffix}")
        seeds.append(Seed(place, f"frame_0004{suffix}"))
    return seeds


def playlists(folder: Path, real: Path | None) -> list[Seed]:
    """Texts that FFmpeg takes for a stream from the network, or from files beside them; none is a video."""
    sdp = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    m3u8 = (
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n"
        b'#EXT-X-KEY:METHOD=AES-128,URI="http://127.0.0.1:9/key"\n#EXTINF:5,\n%s\n#EXT-X-ENDLIST\n'
    )
    mpd = (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        b'<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" codecs="avc1"><BaseURL>http://127.0.0.1:9/a.mp4'
        b"</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    concat = b"ffconcat version 1.0\nfile neighbour.mp4\nduration 1\n"
    files = {
        "sdp.mp4": sdp, "sdp.avi": sdp, "list.mp4": m3u8 % b"http://127.0.0.1:9/a.ts",
        "list.m3u8": m3u8 % b"http://127.0.0.1:9/a.ts", "near.m3u8": m3u8 % b"neighbour.ts", "list.ts": m3u8 % b"neighbour.ts",
        "dash.mp4": mpd, "concat.mp4": concat, "concat.mkv": concat, "rtsp.mov": b"rtsptext\nrtsp://127.0.0.1:9/a",
        "image.mp4": b"<svg xmlns:xlink='x'><image xlink:href='neighbour.mp4'/></svg>",
    }  # fmt: skip
    seeds = alone(folder, files)
    for seed in seeds:
        (seed.folder / "neighbour.mp4").write_bytes(tiny_video(12))
        (seed.folder / "neighbour.ts").write_bytes(tiny_video(12, container="mpegts"))
    return seeds


_RECORD = {
    "stage": "sft",
    "dataset": PROTOCOL,
    "hold_out": True,
    "training_classes": ["sit down"],
    "method": "lora",
    "sentences": {
        "stage": "encode_actions",
        "dataset": PROTOCOL,
        "training_classes": ["sit down"],
        "data": {"simulated": True, "license": "CC0", "description": "made"},
        "tokenizer": {
            "stage": "train_tokenizer",
            "dataset": PROTOCOL,
            "hold_out": True,
            "training_classes": ["sit down"],
        },
    },
    "libraries": {"torch": "2.13.0"},
    "hardware": "CPU",
    "seconds": 1.5,
}


def _save_without_code(folder: Path, model, processor, **settings) -> None:
    model.save_pretrained(folder, **settings)
    processor.save_pretrained(folder)
    for path in folder.glob("*.py"):
        path.unlink()


def model_folders(folder: Path, reads: str) -> list[Seed]:
    """A recogniser with everything that can lie beside it: an adapter or prompts, a lexicon, a record, shards of weights."""
    from action_llm import ActionLLMForClassification
    from action_llm.token_lexicon import TokenEntry

    model, processor = tiny_recogniser(reads)
    if reads == "skeletons":
        torch.manual_seed(0)
        layers = r".*language_model\..*\.(q_proj|v_proj)"
        get_peft_model(model, LoraConfig(r=4, target_modules=layers, init_lora_weights=False))
    else:
        model = ActionLLMForClassification.from_llm(
            tiny_llava(),
            action_token_offset=processor.action_token_offset,
            action_model=tiny_vtem(),
            class_names=CLASS_NAMES,
            prefix_length=4,
        )
    _save_without_code(folder, model, processor, **({} if reads == "skeletons" else {"max_shard_size": "100KB"}))
    entries = [
        TokenEntry(code, 3, 0.2, [(CLASS_NAMES[0], 1.5)], 0.5, [("a", 0.0, 0.2)], "it waves") for code in range(16)
    ]
    (folder / "lexicon.json").write_text(json.dumps([entry.to_dict() for entry in entries]))
    (folder / "record.json").write_text(json.dumps(_RECORD))
    return [Seed(folder, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*")) if path.is_file()]


def skeleton_model(folder: Path, real: Path | None) -> list[Seed]:
    return [*model_folders(folder / "sound", "skeletons"), *_damaged_models(folder, real, "skeletons")]


def video_model(folder: Path, real: Path | None) -> list[Seed]:
    return [*model_folders(folder / "sound", "videos"), *_damaged_models(folder, real, "videos")]


def _damaged_models(folder: Path, real: Path | None, reads: str) -> list[Seed]:
    """The sound folder with a file that was once a fault: model_KIND_FILE-N-WHAT.FILE."""
    seeds = []
    for path in sorted((real or folder).glob(f"{FAULTS}/model_{reads}_*")):
        name = path.name.removeprefix(f"model_{reads}_").partition("-")[0]
        place = folder / path.name.rpartition("-")[0].replace(".", "_")
        shutil.copytree(folder / "sound", place)
        (place / name).write_bytes(path.read_bytes())
        seeds.append(Seed(place, name))
    return seeds


def run_folders(folder: Path, real: Path | None) -> list[Seed]:
    """A run of four steps that was stopped after the third."""
    resume_run(folder)
    shutil.rmtree(folder / "checkpoints" / "checkpoint-4")
    last = folder / "checkpoints" / "checkpoint-3"
    (last / "training_args.bin").unlink()  # names the folder, and is not read
    (folder / "elapsed.json").write_text('{"seconds": 1.5}\n')
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if "runtime" not in line))
    files = [folder / name for name in ("config.yaml", "identity.json", "elapsed.json", "metrics.jsonl")]
    return [Seed(folder, path.relative_to(folder).as_posix()) for path in (*files, *sorted(last.iterdir()))]


def resume_run(folder: Path) -> None:
    """Trains a tiny language model for four steps, in a run folder, from where it was stopped."""
    from dataclasses import dataclass, field

    import transformers

    from action_llm_recipes.common.run_folder import JsonLinesCallback, RunFolder

    @dataclass
    class Settings:
        dataset: str = "simulated-xsub"
        classes: list = field(default_factory=list)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=4, save_steps=1, logging_steps=1, per_device_train_batch_size=2, use_cpu=True,
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    arguments.save_minutes = 0
    run = RunFolder(folder)
    run.save_config(Settings(PROTOCOL, ["a", "b"]))
    run.check_identity({"recordings": "0123", "dataset": PROTOCOL})
    run.configure(arguments)
    arguments.dataloader_pin_memory = False
    tokens = torch.arange(24).reshape(8, 3)
    trainer = transformers.Trainer(
        tiny_llm(), arguments, train_dataset=[{"input_ids": row, "labels": row} for row in tokens]
    )
    trainer.add_callback(JsonLinesCallback(run.metrics))
    run.train(trainer, "training")


def recipe_configs(folder: Path, real: Path | None) -> list[Seed]:
    """The settings of stage 1, and some that the YAML files of the project do not have."""
    configs = Path(__file__).resolve().parents[2] / "recipes" / "configs"
    needed = {"dataset": PROTOCOL, "data_dir": ".", "output_dir": "run", "llm_name_or_path": "."}
    own = needed | {
        "streams": ["joints"],
        "hold_out": True,
        "lr_scheduler_kwargs": {"num_cycles": 1},
        "align_view": None,
    }
    texts = {
        path.name: path.read_bytes() + b"\n" + yaml.safe_dump(needed).encode()
        for path in sorted(configs.glob("llm_ar/*_tokenizer.yaml"))
    }
    return alone(folder, texts | {"own.yaml": yaml.safe_dump(own).encode()})


def class_lists(folder: Path, real: Path | None) -> list[Seed]:
    calls = [
        {"candidate_labels": CLASS_NAMES, "top_k": 3, "explain": True},
        {"candidate_labels": "drink water, hand waving", "return_tokens": True},
        {"candidate_labels": ["sit down", "stand up", "ürgh"], "versions": 1, "unsure_below": 0.5, "explain": True},
        {"candidate_labels": "abc"},
        {"candidate_labels": ["a", "a ", " a"]},
        {"candidate_labels": [f"class {number}" for number in range(1000)]},
        {"candidate_labels": ["a" * 6000, "b"]},
        {"fps": 30.0, "versions": 2, "top_k": None},
        {"fps": 1e-3},
    ]
    return alone(folder, {f"call{number}.json": json.dumps(call).encode() for number, call in enumerate(calls)})


def dataset_rows(folder: Path, real: Path | None) -> list[Seed]:
    motion = person(6).round(3)
    row = {
        "sample_id": "S001",
        "keypoints": motion.ravel().tolist(),
        "shape": [6, 1, 25, 3],
        "layout": "kinect25",
        "fps": 30.0,
    }
    more = row | {"body_ids": [72057594037932358], "cleaned": True, "label": 1, "held_out": False, "up": "y"}
    return alone(folder, {f"row{number}.json": json.dumps(row).encode() for number, row in enumerate((row, more))})
