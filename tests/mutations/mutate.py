"""Damage to files: bytes that change, numbers that cannot be, and lies in the heads of formats.

A mutator takes the bytes of a file, a `random.Random` and the bytes of other files of the format, and returns bytes. The same
generator gives the same bytes.
"""

import ast
import copy
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

import yaml

Mutator = Callable[[bytes, Random, Sequence[bytes]], bytes]

# Numbers that a field of a head must not be trusted with.
EXTREMES = tuple(
    sorted({*(2**power + step for power in (0, 7, 8, 15, 16, 24, 31, 32, 63) for step in (-1, 0, 1)), 10**9})
)
NUMBERS = (
    b"0", b"-0", b"-1", b"1", b"1e308", b"-1e308", b"1e-320", b"nan", b"NaN", b"inf", b"-Infinity", b"1e999", b"0.001",
    b"65536", b"2147483648", b"-2147483649", b"4294967296", b"9223372036854775808", b"1" + b"0" * 40, b"1" + b"0" * 5000,
    b"1_0", b"0x1f",
    b"1,5", b"", b"abc", b'"1"', b"null", b"[]",
)  # fmt: skip
SCRAPS = (
    b" ", b"\n", b"\r\n", b"\t", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b",", b";", b":", b'"', b"'", b"\\", b"[", b"]",
    b"{", b"}", b"[" * 5000, b"{\"a\":" * 5000, b"# ", b"../", b"\x1b[2J", b"<script>", b"null", b"%s%n", b"&a ", b"*a",
)  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- bytes


def mutate_bytes(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """One to three changes that know nothing of the format."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(
            (_flip, _flip, _overwrite, _set_integer, _set_integer, _cut, _insert, _repeat, _remove, _splice)
        )(data, rng, others)
    return data


def _part(data: bytes, rng: Random) -> tuple[int, int]:
    """Start and end of a range that is mostly short, and sometimes all there is."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.paretovariate(0.5)))


def _flip(data, rng, others):
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _overwrite(data, rng, others):
    start, end = _part(data, rng)
    filling = rng.choice((b"\0", b"\xff", b"A", rng.randbytes(1)))
    return data[:start] + filling * (end - start) + data[end:]


def _set_integer(data, rng, others):
    """Heads are at the start and, of archives, at the end."""
    width = rng.choice((1, 2, 4, 4, 8))
    reach = rng.choice((64, 512, len(data)))
    offset = rng.randrange(max(1, min(reach, len(data)) // width)) * width
    if rng.random() < 0.2:
        offset = max(0, len(data) - width - offset)
    value = rng.choice((*EXTREMES, *(-extreme for extreme in EXTREMES)))
    field = (value % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))
    return data[:offset] + field + data[offset + width :]


def _cut(data, rng, others):
    place = rng.randrange(len(data) + 1)
    return data[:place] if rng.random() < 0.8 else data[place:]


def _insert(data, rng, others):
    start, _ = _part(data, rng)
    return data[:start] + rng.choice((rng.randbytes(rng.randrange(1, 40)), rng.choice(SCRAPS))) + data[start:]


def _repeat(data, rng, others):
    start, end = _part(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 3)) + data[end:]


def _remove(data, rng, others):
    start, end = _part(data, rng)
    return data[:start] + data[end:]


def _splice(data, rng, others):
    other = rng.choice(others) if others else data[::-1]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


# ---------------------------------------------------------------------------------------------------------------- text


def mutate_text(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Numbers, lines and columns of a text; sometimes its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng, others)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        number = rng.randrange(min(len(lines), rng.choice((4, 40, len(lines)))))
        match rng.randrange(8):
            case 0 | 1 | 2:
                separator = next((mark for mark in (b",", b";", b" ") if mark in lines[number]), b" ")
                words = lines[number].split(separator)
                words[rng.randrange(len(words))] = rng.choice(NUMBERS)
                lines[number] = separator.join(words)
            case 3:
                lines.insert(number, lines[number])
            case 4:
                other = rng.randrange(len(lines))
                lines[number], lines[other] = lines[other], lines[number]
            case 5 if len(lines) > 1:
                del lines[number]
            case 6:
                place = rng.randrange(len(lines[number]) + 1)
                lines[number] = lines[number][:place] + rng.choice(SCRAPS) + lines[number][place:]
            case _:
                lines[number] = lines[number] * rng.choice((2, 200))
    return b"\n".join(lines)


def mutate_table(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Columns and cells of a CSV table; sometimes its text."""
    if rng.random() < 0.3:
        return mutate_text(data, rng, others)
    rows = [line.split(b",") for line in data.rstrip(b"\n").split(b"\n")]
    column = rng.randrange(len(rows[0]))
    match rng.randrange(6):
        case 0:
            for row in rows:
                del row[column : column + 1]
        case 1:
            for row in rows:
                row += row[column : column + 1]
        case 2:
            rows[0][column] = rng.choice(
                (b"", b"label", b"file_name", b"keypoints", b"fps", b"sample_id", b" split", b"\xff")
            )
        case 3:
            value = rng.choice(
                (b"", b"../../etc/passwd", b"/etc/passwd", b"label\x1b[2J", b"a" * 70_000, b'"', b"\0", b"=1+1")
            )
            rng.choice(rows)[column:] = [value]
        case 4:
            row = rng.choice(rows[1:] or rows)
            row[column : column + 1] = [rng.choice((*NUMBERS, b'"line\nline"', b"\xe9", "е".encode(), b"train", b"."))]
        case 5:
            rows += rng.choice((rows[1:], rows, [[]]))
    separator = rng.choice((b",", b",", b",", b";", b"\t"))
    return b"\n".join(map(separator.join, rows)) + b"\n"


# ---------------------------------------------------------------------------------------------------------------- JSON


class Members(list):
    """The members of a JSON object as [key, value], so that a key can stand there twice."""


class Literal(str):
    """JSON as it is to be written."""


VALUES = (
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.5, 1e-320, 1e308, Literal("1e999"),
    float("nan"), float("inf"), float("-inf"), "", "0", "abc", "a" * 5000, "../../etc/passwd", "\0", "\ud800", "a/b", "é", "\n",
    "<script>alert(1)</script>", [], [None], [[]], [0] * 1000, ["a", "a"], Members(), Members([["a", 1]]),
    Literal("[" * 100_000 + "]" * 100_000), Literal('{"a":' * 5_000 + "1" + "}" * 5_000), Literal("1" * 5_000),
)  # fmt: skip
"""What no setting is, or only few are."""
SETTINGS = (
    ["auto_map", Members([["AutoProcessor", "evil.Evil"], ["AutoTokenizer", ["evil.Evil", None]]])],
    ["auto_map", Members([["AutoConfig", "evil.Evil"], ["AutoFeatureExtractor", "evil.Evil"]])],
    ["auto_map", Members([["AutoModel", "evil/code--modeling_evil.Evil"]])],
    ["_attn_implementation", "evil/kernels"], ["attn_implementation", "flash_attention_2"], ["dtype", "float7"],
    ["torch_dtype", "float64"], ["quantization_config", Members([["quant_method", "bitsandbytes"], ["load_in_4bit", True]])],
    ["model_type", "gpt2"], ["model_type", "evil"], ["tokenizer_class", "EvilTokenizer"], ["processor_class", "EvilProcessor"],
    ["feature_extractor_type", "EvilExtractor"], ["chat_template", "{{ ''.__class__.__mro__ }}"], ["architectures", ["Evil"]],
    ["base_model_name_or_path", "http://127.0.0.1:9/evil"], ["_name_or_path", "/etc"], ["num_hidden_layers", 10**6],
    ["vocab_size", 2**31], ["codebook_size", 10**7], ["hidden_size", 2**20], ["fps", 1e-3], ["length", 10**9],
    ["height", 10**6], ["max_new_tokens", 10**9],
)  # fmt: skip
"""Members that ask for code, for the network, for files, or for much memory."""


def read_json(data: bytes):
    """JSON with objects as `Members`. Raises ValueError."""
    return json.loads(data, object_pairs_hook=lambda pairs: Members(map(list, pairs)))


def write_json(value) -> str:
    if isinstance(value, Literal):
        return value
    if isinstance(value, Members):
        return "{" + ", ".join(f"{json.dumps(key)}: {write_json(member)}" for key, member in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(write_json, value)) + "]"
    return json.dumps(value)


def mutate_json(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Values, keys and types of a JSON document; sometimes its text."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng, others)
    return change_json(data, rng)


def change_json(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """The same, which is JSON afterwards, if Python's with NaN."""
    try:
        document = [read_json(data)]
    except (ValueError, RecursionError):  # damaged before
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change_node(document, rng)
    return write_json(document[0]).encode("utf-8", "surrogatepass")


def _change_node(document: list, rng: Random) -> None:
    """Changes one place of a document, which is the only item of a list."""
    parent, place = document, 0
    while True:
        item = parent[place]
        node = item[1] if isinstance(parent, Members) else item
        if not isinstance(node, list) or not node or rng.random() < 0.15:
            break
        parent, place = node, rng.randrange(len(node))

    def put(value):
        value = copy.deepcopy(value)  # or the next change would change what all are chosen from
        parent[place] = [parent[place][0], value] if isinstance(parent, Members) else value

    match rng.randrange(12):
        case 0 | 1 | 2 | 3:
            put(rng.choice(VALUES))
        case 4:
            # What was changed before may be too large for a float.
            is_number = isinstance(node, int | float) and not isinstance(node, bool) and abs(node) < 1e300
            put(rng.choice((-node, node + 1, node - 1, node * 1e6, node / 1e6, str(node))) if is_number else [node])
        case 5 if parent is not document:
            del parent[place]
        case 6 if isinstance(parent, Members):
            parent[place] = [rng.choice(("", "x", parent[place][0] + " ", parent[place][0].upper())), node]
        case 7 if parent is not document:
            parent.insert(place, copy.deepcopy(parent[place]))
        case 8 if isinstance(parent, Members):
            parent.append([parent[place][0], copy.deepcopy(rng.choice(VALUES))])
        case 9 if len(parent) > 1:
            other = rng.randrange(len(parent))
            if isinstance(parent, Members):
                parent[place][1], parent[other][1] = parent[other][1], parent[place][1]
            else:
                parent[place], parent[other] = parent[other], parent[place]
        case 10 if isinstance(node, Members) or isinstance(parent, Members):
            (node if isinstance(node, Members) else parent).append(copy.deepcopy(rng.choice(SETTINGS)))
        case 11 if isinstance(node, str) and node:
            put(rng.choice((node.upper(), node + " ", node[: len(node) // 2], node * 100, node[::-1])))
        case _:
            put(rng.choice(VALUES))


def mutate_json_lines(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    lines = data.rstrip(b"\n").split(b"\n")
    if rng.random() < 0.5:
        return mutate_text(data, rng, others)
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(lines[number], rng, lines)
    return b"\n".join(lines) + b"\n"


YAML_LINES = (
    b"x: !!python/object/apply:os.system ['true']", b"x: !!python/name:os.system", b"a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]",
    b"<<: *missing", b"? [a, b]\n: 1", b"1: 2", b"---\n{}", b"\tx: 1", b"x: 2001-99-99", b"x: !!binary x", b"null: null",
)  # fmt: skip


def mutate_yaml(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Lines of a YAML document, or, since JSON is YAML, its values."""
    lines = data.split(b"\n")
    match rng.randrange(4):
        case 0:
            return mutate_text(data, rng, others)
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(YAML_LINES))
            return b"\n".join(lines)
    return mutate_json(json.dumps(yaml.safe_load(data)).encode(), rng, others)


# ------------------------------------------------------------------------------------------------------ NumPy and archives


NPY_TYPES = (
    "|O", "<f2", "<f8", ">f4", "<i8", "|b1", "<U7", "|V16", "<M8[s]", "<c8", "<g", "x", "", "<f4,<f4", [("a", "<f4")],
)  # fmt: skip


def mutate_npy(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """The header of an array: its shape, its type, its order; sometimes the bytes of the file."""
    if rng.random() < 0.5 or not data.startswith(b"\x93NUMPY"):
        return mutate_bytes(data, rng, others)
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width
    try:
        header = ast.literal_eval(data[start : start + length].decode("latin-1").strip())
        shape = list(header["shape"])
    except (ValueError, SyntaxError, TypeError, KeyError):  # damaged before
        return mutate_bytes(data, rng, others)
    match rng.randrange(7):
        case 0 | 1 if shape:
            shape[rng.randrange(len(shape))] = rng.choice((0, -1, 1, 2**31, 2**40, 2**62, 3, 10**9))
        case 2:
            shape = rng.choice(([], [0], shape[::-1], [*shape, 1], [1, *shape], [1] * 70, [2**16] * 4, [10**10]))
        case 3 | 4:
            header["descr"] = rng.choice(NPY_TYPES)
        case 5:
            header["fortran_order"] = rng.choice((True, 1, None, "yes"))
        case _:
            del header[rng.choice(sorted(header))]
    if "shape" in header:
        header["shape"] = tuple(shape)
    text = repr(header).encode() + rng.choice((b"\n", b" " * 40 + b"\n", b""))
    declared = rng.choice((len(text), len(text), len(text), rng.choice(EXTREMES))) % 2 ** (8 * width)
    return data[:8] + declared.to_bytes(width, "little") + text + data[start + length :]


BLOCK = 1 << 24  # bytes


@cache
def _compressed_zeros(blocks: int) -> tuple[bytes, int]:
    """A deflate stream of `blocks` times 16 MiB of zeros, and its checksum."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(blocks):
        checksum = zlib.crc32(bytes(BLOCK), checksum)
    return block * blocks + zlib.compressobj(9, zlib.DEFLATED, -15).flush(), checksum


def bomb(name: str, blocks: int = 192) -> bytes:
    """A zip archive of 3 MB with one member that unpacks to 3 GiB of zeros."""
    packed, checksum = _compressed_zeros(blocks)
    size, encoded = blocks * BLOCK, name.encode()
    common = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 33, checksum, len(packed), size, len(encoded), 0)
    local = b"PK\3\4" + common + encoded + packed
    entry = b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + encoded
    return local + entry + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(entry), len(local), 0)


def mutate_archive(inner: Mutator) -> Mutator:
    """Of a zip archive: members by `inner`, their names, and the sizes that its directory gives."""

    def mutate(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
        choice = rng.randrange(10)
        if choice < 3 or not zipfile.is_zipfile(io.BytesIO(data)):
            return mutate_bytes(data, rng, others)
        if choice < 5:
            return _mutate_directory(data, rng)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [[info.filename, archive.read(info)] for info in archive.infolist()]
        if choice == 5 and rng.random() < 0.2:
            return bomb(rng.choice(members)[0])
        member = rng.choice(members)
        if choice < 9:
            member[1] = inner(member[1], rng, [content for _, content in members])
        else:
            name = member[0]
            members.append([*member]) if rng.random() < 0.3 else None
            names = (
                f"../{name}",
                f"/tmp/{name}",
                name.replace("/", "\\"),
                "",
                "a" * 60_000,
                f"{name}\n",
                f"é{name}",
                name.upper(),
            )
            member[0] = rng.choice(names)
        file = io.BytesIO()
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
        return file.getvalue()

    return mutate


def _mutate_directory(data: bytes, rng: Random) -> bytes:
    """A field of the directory, or of a member's own head, set to something else."""
    content = bytearray(data)
    signature, fields = rng.choice(
        (
            (b"PK\1\2", ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))),
            (b"PK\3\4", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b"PK\5\6", ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )
    places = [match.start() for match in re.finditer(re.escape(signature), data)]
    offset, width = rng.choice(fields)
    for place in rng.sample(places, min(len(places), rng.choice((1, len(places) or 1)))):
        content[place + offset : place + offset + width] = (rng.choice(EXTREMES) % 2 ** (8 * width)).to_bytes(
            width, "little"
        )
    return bytes(content)


# ------------------------------------------------------------------------------------- safetensors, MATLAB, MP4, Parquet


def mutate_safetensors(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """The header: names, shapes, types and offsets; its length; or the bytes of the file."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.4 or not 0 < length < len(data):
        return mutate_bytes(data, rng, others)
    if rng.random() < 0.1:
        return rng.choice(EXTREMES).to_bytes(16, "little")[:8] + data[8:]
    header = change_json(data[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def mutate_mat(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Tags of a MATLAB 5 file, also of its compressed elements; or its bytes."""
    if rng.random() < 0.4 or len(data) < 136:
        return mutate_bytes(data, rng, others)
    body = data[128:]
    kind, size = struct.unpack("<II", body[:8])
    is_packed = kind == 15
    if is_packed:
        try:
            body = zlib.decompress(body[8 : 8 + size])
        except zlib.error:
            return mutate_bytes(data, rng, others)
    body = _mutate_tags(body, rng) if rng.random() < 0.7 else mutate_bytes(body, rng)
    if is_packed:
        packed = zlib.compress(body)
        body = struct.pack("<II", 15, len(packed)) + packed
    return data[:128] + body


def _mutate_tags(body: bytes, rng: Random) -> bytes:
    places, place = [0], 8  # the matrix, then its parts
    while place + 8 <= len(body):
        places.append(place)
        kind, size = struct.unpack("<II", body[place : place + 8])
        place += 8 if kind >> 16 else 8 + (size + 7) // 8 * 8
    content = bytearray(body)
    place = rng.choice(places)
    match rng.randrange(4):
        case 0:
            field, value = place, rng.choice((0, 1, 5, 6, 7, 9, 12, 13, 14, 15, 18, 255, 0x40006))
        case 1 | 2:
            field, value = place + 4, rng.choice(EXTREMES)
        case _:  # flags, dimensions, data
            field, value = place + 8 + 4 * rng.randrange(3), rng.choice((*EXTREMES, *range(20)))
    content[field : field + 4] = (value % 2**32).to_bytes(4, "little")
    return bytes(content)


def mutate_mp4(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Sizes, names, order and fields of boxes; or the bytes of the file."""
    boxes = list(_boxes(data, 0, len(data)))
    if rng.random() < 0.4 or not boxes:
        return mutate_bytes(data, rng, others)
    start, end = rng.choice(boxes)
    match rng.randrange(6):
        case 0 | 1:
            return data[:start] + (rng.choice(EXTREMES) % 2**32).to_bytes(4, "big") + data[start + 4 :]
        case 2:
            return (
                data[: start + 4]
                + rng.choice((b"free", b"moov", b"mdat", b"trak", b"stco", b"co64", b"\0\0\0\0"))
                + data[start + 8 :]
            )
        case 3:
            return data[:end] + data[start:end] + data[end:]
        case 4:
            return data[:start] + data[end:]
    field = start + 8 + 4 * rng.randrange(max(1, min(end - start - 8, 256) // 4))
    return data[:field] + (rng.choice(EXTREMES) % 2**32).to_bytes(4, "big") + data[field + 4 :]


def _boxes(data: bytes, start: int, end: int):
    """Start and end of each box and of those in it."""
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        if not 8 <= size <= end - start:
            return
        yield start, start + size
        if data[start + 4 : start + 8] in (
            b"moov",
            b"trak",
            b"mdia",
            b"minf",
            b"stbl",
            b"edts",
            b"udta",
            b"moof",
            b"traf",
            b"mvex",
        ):
            yield from _boxes(data, start + 8, start + size)
        start += size


def mutate_parquet(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Columns of a table: their names, types and values, and what `datasets` wrote about them; or the bytes of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.4:
        return mutate_bytes(data, rng, others)
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError):  # damaged before
        return mutate_bytes(data, rng, others)
    number = rng.randrange(table.num_columns)
    name, rows = table.column_names[number], table.num_rows
    match rng.randrange(7):
        case 0:
            table = table.drop_columns([name])
        case 1:
            names = table.column_names
            names[number] = rng.choice(("", "x", rng.choice(names), f"{name} "))
            table = table.rename_columns(names)
        case 2 | 3:
            value = rng.choice(
                (
                    None,
                    "a",
                    -1,
                    2**31 - 1,
                    2**62,
                    1e300,
                    float("nan"),
                    [],
                    [None],
                    [[0]],
                    [-1],
                    [10**6],
                    ["a"],
                    b"\xff",
                )
            )
            table = table.set_column(number, name, pa.array([value] * rows))
        case 4:
            values = table.column(number).to_pylist()
            place = rng.randrange(rows)
            values[place] = None if rng.random() < 0.5 or not isinstance(values[place], list) else values[place][:-1]
            table = table.set_column(number, name, pa.array(values, table.column(number).type))
        case 5:
            table = rng.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])))
        case _:
            told = dict(table.schema.metadata or {})
            if b"huggingface" in told:
                told[b"huggingface"] = rng.choice((change_json(told[b"huggingface"], rng), b"{", b""))
            table = table.replace_schema_metadata(told)
    if rng.random() < 0.7:
        table = table.replace_schema_metadata(
            {k: v for k, v in (table.schema.metadata or {}).items() if rng.random() < 0.7}
        )
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()
