"""Reader of one array of a MATLAB file, level 5 (`save` with `-v6` or `-v7`): plain Python that checks every size.

Files come from anywhere, and a damaged one ends the process inside the usual reader (`scipy.io.loadmat`). The format is that of
"MAT-File Format" (The MathWorks, R2019b, chapter 1):

    header of 128 bytes: text, version 0x0100, byte order ("IM" little, "MI" big)
    elements, each a tag (type uint32, number of bytes uint32), its bytes, and zeros up to a multiple of 8; up to 4 bytes stand
        in the second half of the tag, whose first half is (number of bytes << 16) | type then
    a variable is an element miMATRIX: flags and class, dimensions int32, name, the real numbers (column by column, and in any
        type that holds them); or miCOMPRESSED, which is such an element under zlib
"""

import math
import struct
import zlib

import numpy as np

from .model_files import shortened
from .size_limits import MAX_BYTES

_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 14, 15, 1, 5, 6
# Type of the numbers of an element.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# Class of a variable that is not an array of numbers.
_OTHER_CLASSES = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 5: "a sparse array", 16: "a function",
                  17: "an object"}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800
_HEADER_BYTES = 128
# A recording has a few.
MAX_VARIABLES = 1000
# Flags, dimensions and name of a variable. MATLAB's names have at most 63 characters, and its arrays few dimensions.
_HEAD_BYTES = 4096
_WHOLE = "a .mat file that is whole (copy it again)"
_SAVE_ANEW = "a MATLAB file of version 5 to 7 (save it with the option -v7)"


class MatFileError(ValueError):
    """A file is not a MATLAB file of level 5 with such an array.

    Attributes:
        found, expected (str): What the file holds, and what it should.
    """

    def __init__(self, found: str, expected: str):
        self.found, self.expected = found, expected
        super().__init__(f"expected {expected}, found {found}")

    def __reduce__(self):
        return type(self), (self.found, self.expected)


def read_mat_array(data: bytes, name: str) -> np.ndarray:
    """The array of that name.

    Args:
        data: Content of a `.mat` file of level 5.
        name: The variable: an array of real numbers.

    Returns:
        The array in the type in which the file stores its numbers (as `scipy.io.loadmat` gives it), read-only.

    Raises:
        MatFileError: Another format, a damaged list of variables, no variable of that name or two of them, no real numbers,
            or more of them than a recording can have. The numbers of other variables are not looked at.
    """
    order = _byte_order(data)
    names, array, position = [], None, _HEADER_BYTES
    while position < len(data):
        element, number_type, position = _element(memoryview(data), position, order)
        if number_type == _COMPRESSED:
            unpacked = _Unpacked(element)
            head = unpacked.read(8 + _HEAD_BYTES)
            number_type, size = struct.unpack_from(order + "II", head) if len(head) >= 8 else (0, 0)
            if size > MAX_BYTES + _HEAD_BYTES:
                raise MatFileError(f"a variable of {size >> 20:,} MiB", f"at most {MAX_BYTES >> 20} MiB")
            element = memoryview(head)[8:]
        else:
            unpacked, size = None, len(element)
        if number_type != _MATRIX:
            raise MatFileError(f"an element of type {number_type} in place of a variable", _WHOLE)
        variable, parts = _name_of(element, order)
        names.append(variable)
        if len(names) > MAX_VARIABLES:
            raise MatFileError(f"more than {MAX_VARIABLES} variables", f"the variable {name} and few others")
        if variable != name:
            continue
        if array is not None:
            raise MatFileError(f"the variable {name} twice", f"the variable {name} once")
        if unpacked is not None:
            element = memoryview(bytes(element) + unpacked.read_to_end(size - len(element)))
        array = _array(element, parts, name, order)
    if array is None:
        raise MatFileError(f"the variables {shortened(str(names))}", f"the variable {name}")
    return array


def _byte_order(data: bytes) -> str:
    """ "<" or ">", of a file of level 5."""
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[124:128] in (b"\0\2IM", b"\2\0MI"):
        raise MatFileError("a MATLAB 7.3 file (HDF5)", _SAVE_ANEW)
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(data[124:128])
    if order is None and len(data) >= 20 and _is_level_4(data):
        raise MatFileError("a MATLAB 4 file", _SAVE_ANEW)
    if order is None:
        raise MatFileError(f"{len(data):,} bytes without the header of one", "a .mat file")
    return order


def _is_level_4(data: bytes) -> bool:
    """Whether a file begins as the first matrix of level 4 does: its type, whose decimal digits are M, 0, P and T."""
    types = struct.unpack("<I", data[:4])[0], struct.unpack(">I", data[:4])[0]
    return any(kind < 5000 and kind // 100 % 10 == 0 and kind // 10 % 10 < 6 and kind % 10 < 3 for kind in types)


def _element(data: memoryview, position: int, order: str) -> tuple[memoryview, int, int]:
    """Bytes and type of the element at a place, and the place behind it."""
    if position + 8 > len(data):
        raise MatFileError("the end of the file inside a tag", _WHOLE)
    number_type, size = struct.unpack_from(order + "II", data, position)
    position += 8
    if number_type >> 16:  # in the tag itself
        number_type, size, start, position = number_type & 0xFFFF, number_type >> 16, position - 4, position
        if size > 4:
            raise MatFileError(f"a tag of {size} bytes", _WHOLE)
        return data[start : start + size], number_type, position
    if size > len(data) - position:
        found = f"an element of {size:,} bytes where {len(data) - position:,} are left"
        raise MatFileError(found, _WHOLE)
    end = position + size
    padding = 0 if number_type == _COMPRESSED else -size % 8
    return data[position:end], number_type, min(end + padding, len(data))


class _Unpacked:
    """What a compressed element unpacks to, as much of it as is asked for."""

    def __init__(self, data: memoryview):
        self._unpacker, self._packed = zlib.decompressobj(), data

    def read(self, size: int) -> bytes:
        """So many bytes, or as many as there are."""
        try:
            data = self._unpacker.decompress(self._packed, size)
        except zlib.error as error:
            raise MatFileError(f"damaged compression ({error})", _WHOLE) from error
        self._packed = self._unpacker.unconsumed_tail
        return data

    def read_to_end(self, size: int) -> bytes:
        """The rest, which has so many bytes; with them, its checksum is compared."""
        rest = self.read(size) if size > 0 else b""
        if len(rest) != max(size, 0) or self.read(1) or not self._unpacker.eof:
            raise MatFileError("a compressed variable of another size than it says", _WHOLE)
        return rest


def _name_of(element: memoryview, order: str) -> tuple[str, tuple[int, tuple[int, ...], int]]:
    """Name of a variable; and its flags with its class, its dimensions, and where its numbers stand."""
    flags, flags_type, position = _element(element, 0, order)
    dimensions, dimensions_type, position = _element(element, position, order)
    name, name_type, position = _element(element, position, order)
    if (
        flags_type != _UINT32
        or len(flags) != 8
        or dimensions_type != _INT32
        or len(dimensions) % 4
        or name_type != _INT8
    ):
        raise MatFileError("a variable without flags, dimensions and a name", _WHOLE)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    # What has no array's dimensions (function handles, opaque objects) stores a class name there instead; it is not needed.
    return bytes(name).decode("latin-1"), (struct.unpack_from(order + "I", flags)[0], shape, position)


def _array(element: memoryview, parts: tuple[int, tuple[int, ...], int], name: str, order: str) -> np.ndarray:
    """The array of a variable, by what `_name_of` gives."""
    flags, shape, position = parts
    array_class, expected = flags & 0xFF, f"{name} as an array of real numbers"
    if array_class not in _NUMERIC_CLASSES or flags & _COMPLEX:
        raise MatFileError(f"{name}, {_OTHER_CLASSES.get(array_class, 'complex numbers')}", expected)
    numbers, number_type, end = _element(element, position, order)
    if number_type not in _NUMBERS or end != len(element):
        raise MatFileError(f"{name} with numbers of type {number_type}", _WHOLE)
    dtype = np.dtype(order + _NUMBERS[number_type])
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        found = f"{name} of the shape {shape} with {len(numbers):,} bytes of {dtype.name}"
        raise MatFileError(found, _WHOLE)
    return np.frombuffer(numbers, dtype).reshape(shape, order="F")


__all__ = ["MatFileError", "read_mat_array"]
