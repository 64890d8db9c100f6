"""Pose estimation of videos: frames with people, speed, and the distance from the skeletons of another sensor.

    python recipes/benchmarks/benchmark_pose.py --videos S001C001P001R001A001_rgb.avi S001C001P001R001A050_rgb.avi \\
        --skeletons S001C001P001R001A001.skeleton S001C001P001R001A050.skeleton --mirrored --output poses

Speed is in frames per second of processor time; decoding alone stands beside it. `--skeletons` are recordings of the same
people and frames by another sensor. Both are compared in its layout (`joint_mapping`): joints from the middle of the hips,
after one rotation and one scale per recording, and with people paired so that the distance is least. With `--model`, a
recogniser reads both, in three dimensions and as two-dimensional `coco17`, and the page says how far its class probabilities
differ. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

# Both sides of these joints are compared.
COMPARED = ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot")


@dataclass
class BenchmarkArguments:
    """Which estimator reads which videos."""

    videos: list[str] = field(metadata={"help": "video files"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    skeletons: list[str] = field(
        default_factory=list, metadata={"help": "files of skeletons of the same people, one for each video"}
    )
    pose: str | None = field(
        default=None, metadata={"help": "mediapipe or vitpose; by default the first whose weights are on this machine"}
    )
    pose_model: str | None = field(
        default=None, metadata={"help": "weights of the estimator; by default its usual place"}
    )
    max_people: int = field(default=2, metadata={"help": "maximum number of people in a frame"})
    mirrored: bool = field(
        default=False, metadata={"help": "the videos are mirror images, as those of Kinect (NTU RGB+D)"}
    )
    model: str | None = field(
        default=None, metadata={"help": "a recogniser of skeletons that reads the estimates and --skeletons"}
    )

    def __post_init__(self):
        if self.model and not self.skeletons:
            raise ValueError("--model reads estimates and skeletons of the same people: add --skeletons.")
        if self.skeletons and len(self.skeletons) != len(self.videos):
            raise ValueError(
                f"--skeletons: expected a file for each of the {len(self.videos)} videos, got {len(self.skeletons)}."
            )


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    from action_llm.pose_estimators import NobodySeenError, load_pose_estimator
    from action_llm.recording_files import read_recording
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.hub.demo import load_pipeline

    estimator = load_pose_estimator(arguments.pose, arguments.pose_model, arguments.max_people)
    recogniser = arguments.model and load_pipeline(arguments.model)
    rows = []
    for number, video in enumerate(arguments.videos):
        frames, decoding = decode(video)
        row = {"video": Path(video).name, "frames": frames, "frames_per_second_decoding": frames / decoding}
        start = time.process_time()
        try:
            recording = estimator(video, mirrored=arguments.mirrored)
        except NobodySeenError:
            recording = None
        row["frames_per_second"] = frames / (time.process_time() - start)
        row["with_people"] = 0 if recording is None else int(recording.present.any(1).sum())
        row["with_two_people"] = 0 if recording is None else int((recording.present.sum(1) > 1).sum())
        if arguments.skeletons and recording is not None:
            other = read_recording(arguments.skeletons[number])
            row |= distance_from(recording, other)
            if recogniser:
                row["read_as"] = read_both(recogniser, recording, other)
        rows.append(row)
    record = {
        "estimator": estimator.name,
        "max_people": arguments.max_people,
        "mirrored": arguments.mirrored,
        "videos": rows,
    }
    write_results(arguments.output, record, page(record))
    return record


def decode(video: str) -> tuple[int, float]:
    """Number of frames of a video, and the seconds of processor time that decoding them takes."""
    from action_llm.video_files import open_video

    with open_video(video) as opened:
        rate = opened.info.fps
        start = time.process_time()
        times = (number / rate for number in range(max(1, round(opened.info.seconds * rate))))
        return sum(1 for _ in opened.pictures_in_order(times)), time.process_time() - start


def distance_from(recording, other) -> dict:
    """How far a recording is from another one of the same frames and people.

    Args:
        recording: of the estimator.
        other: of the sensor, in metres.

    Returns:
        `distance_cm`, the mean over joints, frames and people; `distance_cm_of_joints`, name of a joint → its mean over both
        sides; and `size_ratio`, the size of the people divided by that of the sensor's. NaN if no frame shows both.
    """
    import numpy as np
    from scipy.spatial.transform import Rotation

    from action_llm.joint_mapping import map_layout
    from action_llm.skeleton_bodies import valid_joints
    from action_llm.skeleton_layouts import get_layout

    layout = get_layout(other.layout)
    count = min(len(recording.keypoints), len(other.keypoints))
    valid = valid_joints(recording.keypoints, recording.present)
    estimated, known = map_layout(get_layout(recording.layout), layout).map_joints(recording.keypoints, valid)
    sensed, there = other.keypoints, valid_joints(other.keypoints, other.present)
    names = [name for name in COMPARED if {f"left_{name}", f"right_{name}"} <= set(layout.joint_names)]
    joints = [layout.joint_names.index(f"{side}_{name}") for name in names for side in ("left", "right")]
    hips = [layout.left_hip, layout.right_hip]
    people = min(estimated.shape[1], sensed.shape[1])
    results = []
    for order in itertools.permutations(range(estimated.shape[1]), people):
        both = known[:count, order][:, :, joints].all(-1) & there[:count, :people][:, :, joints].all(-1)
        pairs = [
            (part[:, :, joints] - part[:, :, hips].mean(2, keepdims=True))[both]
            for part in (estimated[:count, order].astype(float), sensed[:count, :people].astype(float))
        ]
        if not both.any():
            continue
        flat, target = (pair.reshape(-1, 3) for pair in pairs)
        rotation, _ = Rotation.align_vectors(target, flat)
        turned = rotation.apply(flat)
        scale = (turned * target).sum() / (turned**2).sum()
        distances = np.linalg.norm(scale * turned - target, axis=1).reshape(-1, len(names), 2)
        results.append((int(both.sum()), float(distances.mean()), distances.mean((0, 2)), float(1 / scale)))
    if not results:
        return {"distance_cm": float("nan"), "distance_cm_of_joints": {}, "size_ratio": float("nan")}
    most = max(result[0] for result in results)
    _, mean, of_joints, ratio = min((result for result in results if result[0] == most), key=lambda result: result[1])
    return {
        "distance_cm": 100 * mean,
        "distance_cm_of_joints": {name: 100 * value for name, value in zip(names, of_joints.tolist(), strict=True)},
        "size_ratio": ratio,
    }


def read_both(recogniser, estimated, sensed) -> dict[str, dict]:
    """
    What a recogniser reads in the recordings of an estimator and of a sensor.

    Args:
        recogniser: pipeline of a model of skeletons.
        estimated, sensed: the recordings, in three dimensions.

    Returns:
        "as they are" and "coco17" (in two dimensions) → `estimated` and `sensed`, each the most probable class and its
        probability, and `total_variation`, half the sum of the absolute differences of the class probabilities, from 0 to 1.
    """
    recordings = [estimated, sensed]
    result = {}
    for layout, of_layout in {"as they are": recordings, "coco17": list(map(as_coco17, recordings))}.items():
        first, second = (recogniser(recording, top_k=None) for recording in of_layout)
        probabilities = [{answer["label"]: answer["score"] for answer in answers} for answers in (first, second)]
        result[layout] = {
            "estimated": [first[0]["label"], first[0]["score"]],
            "sensed": [second[0]["label"], second[0]["score"]],
            "total_variation": sum(abs(probabilities[0][name] - probabilities[1][name]) for name in probabilities[0])
            / 2,
        }
    return result


def as_coco17(recording):
    """The row that an estimator of COCO's 17 joints in two dimensions would give; a recording of such an estimator as it is."""
    from action_llm.skeleton_layouts import get_layout
    from action_llm_recipes.robustness.conditions import conditions

    if recording.layout == "coco17":
        return recording
    fields = {name: getattr(recording, name) for name in ("keypoints", "layout", "fps")}
    row = fields | {"shape": recording.keypoints.shape, "sample_id": recording.source}
    (flat,) = (condition for condition in conditions(get_layout(recording.layout)) if condition.level == "coco17")
    return flat(row)


def page(record: dict) -> str:
    """The results as a page in Markdown."""
    compared = any("distance_cm" in row for row in record["videos"])
    lines = [
        f"# Pose estimation with {record['estimator']}",
        "",
        f"At most {record['max_people']} people in a frame; videos {'mirrored back' if record['mirrored'] else 'as they are'}. "
        "Frames per second of processor time.",
        "",
        "| video | frames | with people | with two | frames per second | decoding alone |" + " cm | size |" * compared,
        "| --- | ---: | ---: | ---: | ---: | ---: |" + " ---: | ---: |" * compared,
    ]
    for row in record["videos"]:
        cells = [row["video"], row["frames"], row["with_people"], row["with_two_people"]]
        cells += [f"{row['frames_per_second']:.1f}", f"{row['frames_per_second_decoding']:,.0f}"]
        if compared:
            cells += [f"{row.get('distance_cm', float('nan')):.1f}", f"{row.get('size_ratio', float('nan')):.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if compared:
        lines += ["", "Distance of each joint, in cm, both sides:", ""]
        lines += [
            f"- {row['video']}: " + ", ".join(f"{name} {value:.1f}" for name, value in of_joints.items())
            for row in record["videos"]
            if (of_joints := row.get("distance_cm_of_joints"))
        ]
    if any("read_as" in row for row in record["videos"]):
        lines += [
            "",
            "What one recogniser reads: its most probable class, and the difference of the probabilities of all classes (total "
            "variation, from 0 to 1):",
            "",
            "| video | joints | from the estimate | from the sensor | difference |",
            "| --- | --- | --- | --- | ---: |",
        ]
    for row in record["videos"]:
        for layout, read in row.get("read_as", {}).items():
            answers = [f"{label} ({100 * score:.0f} %)" for label, score in (read["estimated"], read["sensed"])]
            lines.append(f"| {row['video']} | {layout} | {' | '.join(answers)} | {read['total_variation']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
