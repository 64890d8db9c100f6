"""C3D files for tests, written after the format's user guide: integers or floats, of Intel, DEC and SGI machines."""

import struct

import numpy as np
from skeleton_people import person

from action_llm.skeleton_layouts import LAYOUTS

INTEL, DEC, SGI = 84, 85, 86
NAMES = LAYOUTS["smpl22"].joint_names


def vax_floats(values) -> bytes:
    """DEC's floats: four times the IEEE number, its halves exchanged."""
    halves = (4 * np.asarray(values, "<f4")).view("<u2").reshape(-1, 2)
    return halves[:, ::-1].tobytes()


def c3d_bytes(
    labels,
    points,
    processor=INTEL,
    scale=-1.0,
    rate=100.0,
    units="mm",
    analogue=3,
    missing=(),
    more=None,
    frames=None,
) -> bytes:
    """
    A file of markers (T, number, 3) in `units`. A negative scale writes floats; `missing` are (frame, marker).

    Args:
        more: (group, name) → value of further parameters: a list of texts, a float, or a list of 16-bit integers.
        frames: (first, last) of the header, by default 1 and T.
    """
    order = ">" if processor == SGI else "<"

    def floats(values) -> bytes:
        return vax_floats(values) if processor == DEC else np.asarray(values, f"{order}f4").tobytes()

    def integers(values) -> bytes:
        return np.asarray(values).astype(f"{order}i2").tobytes()

    def entry(name: str, group: int, content: bytes) -> bytes:
        head = struct.pack("bb", len(name), group) + name.encode()
        return head + struct.pack(f"{order}h", 2 + len(content) + 1) + content + b"\0"  # no description

    groups = {"POINT": 1, "TRIAL": 2}

    def parameter(group: str, name: str, value) -> bytes:
        if isinstance(value, list) and isinstance(value[0], str):
            width = max(map(len, value))
            content = struct.pack("bBBB", -1, 2, width, len(value))
            content += b"".join(text.encode().ljust(width) for text in value)
        elif isinstance(value, float):
            content = struct.pack("bB", 4, 0) + floats([value])
        else:
            content = struct.pack("bBB", 2, 1, len(value)) + integers(value)
        return entry(name, groups[group], content)

    first, last = frames or (1, len(points))
    parameters = b"".join(entry(name, -number, b"") for name, number in groups.items())
    of_points = {"LABELS": labels, "UNITS": [units], "RATE": float(rate), "SCALE": float(scale), "USED": [len(labels)]}
    every = {("POINT", name): value for name, value in of_points.items()} | (more or {})
    parameters += b"".join(parameter(*names, value) for names, value in every.items())
    blocks = -(-(4 + len(parameters) + 2) // 512)
    section = bytes([1, 0x50, blocks, processor]) + parameters
    header = struct.pack(f"{order}BB5H", 2, 0x50, points.shape[1], analogue, first, last, 10)
    header += floats([scale]) + integers([2 + blocks, 1]) + floats([rate])
    rows = []
    for frame, markers in enumerate(points):
        seen = np.array([(frame, marker) not in missing for marker in range(points.shape[1])])
        values = np.where(seen[:, None], markers, 0) / (1 if scale < 0 else scale)
        row = np.column_stack([values, np.where(seen, 0, -1)]).ravel()
        if scale < 0:
            rows.append(floats(np.append(row, np.full(analogue, 7.0))))
        else:
            rows.append(integers(np.append(np.rint(row), np.full(analogue, 7))))
    return header.ljust(512, b"\0") + section.ljust(512 * blocks, b"\0") + b"".join(rows)


def gait_markers(frames: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Markers of Plug-in Gait on a moving person, in millimetres with z up: labels and positions (T, number, 3)."""
    body = person(frames, "smpl22", seed=seed) * 1000
    body = np.stack([body[..., 0], -body[..., 2], body[..., 1]], axis=-1)
    joint = {name: body[:, place] for place, name in enumerate(NAMES)}
    left, right = joint["left_hip"], joint["right_hip"]
    outwards = (right - left) / np.linalg.norm(right - left, axis=-1, keepdims=True)
    forwards = np.cross([0.0, 0.0, 1.0], outwards)
    forwards = forwards / np.linalg.norm(forwards, axis=-1, keepdims=True)
    upwards = np.cross(outwards, forwards)
    front = joint["pelvis"] + 60 * forwards + 50 * upwards
    markers = {
        "LASI": front - 120 * outwards,
        "RASI": front + 120 * outwards,
        "LPSI": front - 160 * forwards - 50 * outwards,
        "RPSI": front - 160 * forwards + 50 * outwards,
        "T10": joint["spine2"] - 20 * forwards,
        "STRN": joint["spine2"] + 20 * forwards,
        "C7": joint["neck"],
        **{f"{side}{end}HD": joint["head"] for side in "LR" for end in "FB"},
    }
    for side, word in (("L", "left"), ("R", "right")):
        markers |= {
            f"{side}{name}": joint[f"{word}_{of}"]
            for name, of in (("KNE", "knee"), ("ANK", "ankle"), ("TOE", "foot"), ("SHO", "shoulder"), ("ELB", "elbow"))
        }
        markers |= {f"{side}WR{end}": joint[f"{word}_wrist"] for end in "AB"}
    return list(markers), np.stack(list(markers.values()), axis=1)
