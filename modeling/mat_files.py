"""Reads an array of a MATLAB file, level 5 (`save` with `-v6` or `-v7`), in plain Python that checks every size.

Files may come from anywhere, and the usual reader (`scipy.io.loadmat`) crashes the process on damaged files. The format is
described in "MAT-File Format" (The MathWorks, R2019b, chapter 1):

    header of 128 bytes: text, version 0x0100, byte order ("IM" little, "MI" big)
    elements: a tag (type uint32, number of bytes uint32), the data, and zeros up to a multiple of 8; data of up to 4 bytes is
        stored in the second half of the tag, whose first half is then (number of bytes << 16) | type
    a variable is an element miMATRIX (flags and class, dimensions int32, name, and the real numbers, column by column, in any
        type that can represent them), or miCOMPRESSED, which is such an element compressed by zlib
"""

import math
import struct
import zlib

import numpy as np

from .model_files import shortened
from .size_limits import MAX_BYTES

_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 14, 15, 1, 5, 6
# Types of the numbers of an element.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# Classes of variables that are not arrays of numbers.
_OTHER_CLASSES = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 5: "a sparse array", 16: "a function",
                  17: "an object"}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800
_HEADER_BYTES = 128
# Maximum number of variables of a file; recordings have a few.
MAX_VARIABLES = 1000
# Maximum number of bytes of flags, dimensions and name of a variable. Names have at most 63 characters, and arrays have few
# dimensions.
_HEAD_BYTES = 4096
_COMPLETE = "a complete .mat file (copy it again)"
_SAVE_AGAIN = "a MATLAB file of version 5 to 7 (save it with the option -v7)"


class MatFileError(ValueError):
    """A file is not a MATLAB file of level 5 with the requested array.

    Attributes:
        actual, expected (str): The actual content, and what was expected.
    """

    def __init__(self, actual: str, expected: str):
        self.actual, self.expected = actual, expected
        super().__init__(f"expected {expected}, found {actual}")

    def __reduce__(self):
        return type(self), (self.actual, self.expected)


def read_mat_array(data: bytes, name: str) -> np.ndarray:
    """Reads an array by its name.

    Args:
        data: Content of a `.mat` file of level 5.
        name: Name of the variable, which must be an array of real numbers.

    Returns:
        The array, read-only, in the type of the stored numbers (like `scipy.io.loadmat`).

    Raises:
        MatFileError: If the file has another format or its list of variables is damaged, or the variable is missing, occurs
            twice, is not an array of real numbers, or is too large. The numbers of other variables are not checked.
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
            raise MatFileError(f"an element of type {number_type} in place of a variable", _COMPLETE)
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
    """Byte order of a file of level 5: "<" or ">"."""
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[124:128] in (b"\0\2IM", b"\2\0MI"):
        raise MatFileError("a MATLAB 7.3 file (HDF5)", _SAVE_AGAIN)
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(data[124:128])
    if order is None and len(data) >= 20 and _is_level_4(data):
        raise MatFileError("a MATLAB 4 file", _SAVE_AGAIN)
    if order is None:
        raise MatFileError(f"{len(data):,} bytes without the header of such a file", "a .mat file")
    return order


def _is_level_4(data: bytes) -> bool:
    """Whether a file begins with a matrix of level 4, whose type has the decimal digits M, 0, P and T."""
    types = struct.unpack("<I", data[:4])[0], struct.unpack(">I", data[:4])[0]
    return any(
        matrix_type < 5000 and matrix_type // 100 % 10 == 0 and matrix_type // 10 % 10 < 6 and matrix_type % 10 < 3
        for matrix_type in types
    )


def _element(data: memoryview, position: int, order: str) -> tuple[memoryview, int, int]:
    """Data and type of the element at a position, and the position after it."""
    if position + 8 > len(data):
        raise MatFileError("the end of the file inside a tag", _COMPLETE)
    number_type, size = struct.unpack_from(order + "II", data, position)
    position += 8
    if number_type >> 16:  # the data is in the tag
        number_type, size, start, position = number_type & 0xFFFF, number_type >> 16, position - 4, position
        if size > 4:
            raise MatFileError(f"a tag of {size} bytes", _COMPLETE)
        return data[start : start + size], number_type, position
    if size > len(data) - position:
        actual = f"an element of {size:,} bytes where {len(data) - position:,} are left"
        raise MatFileError(actual, _COMPLETE)
    end = position + size
    padding = 0 if number_type == _COMPRESSED else -size % 8
    return data[position:end], number_type, min(end + padding, len(data))


class _Unpacked:
    """Decompresses an element, only as far as requested."""

    def __init__(self, data: memoryview):
        self._unpacker, self._packed = zlib.decompressobj(), data

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or fewer at the end."""
        try:
            data = self._unpacker.decompress(self._packed, size)
        except zlib.error as error:
            raise MatFileError(f"damaged compression ({error})", _COMPLETE) from error
        self._packed = self._unpacker.unconsumed_tail
        return data

    def read_to_end(self, size: int) -> bytes:
        """The rest, which must have `size` bytes; zlib also compares the checksum."""
        rest = self.read(size) if size > 0 else b""
        if len(rest) != max(size, 0) or self.read(1) or not self._unpacker.eof:
            raise MatFileError("a compressed variable whose size differs from its tag", _COMPLETE)
        return rest


def _name_of(element: memoryview, order: str) -> tuple[str, tuple[int, tuple[int, ...], int]]:
    """Name of a variable; and its flags with the class, its dimensions, and the position of its numbers."""
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
        raise MatFileError("a variable without flags, dimensions and a name", _COMPLETE)
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    # Function handles and opaque objects have a class name in the place of dimensions, which is not needed.
    return bytes(name).decode("latin-1"), (struct.unpack_from(order + "I", flags)[0], shape, position)


def _array(element: memoryview, parts: tuple[int, tuple[int, ...], int], name: str, order: str) -> np.ndarray:
    """The array of a variable; `parts` from `_name_of`."""
    flags, shape, position = parts
    array_class, expected = flags & 0xFF, f"{name} as an array of real numbers"
    if array_class not in _NUMERIC_CLASSES or flags & _COMPLEX:
        raise MatFileError(f"{name}, {_OTHER_CLASSES.get(array_class, 'complex numbers')}", expected)
    numbers, number_type, end = _element(element, position, order)
    if number_type not in _NUMBERS or end != len(element):
        raise MatFileError(f"{name} with numbers of type {number_type}", _COMPLETE)
    dtype = np.dtype(order + _NUMBERS[number_type])
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(numbers):
        actual = f"{name} of the shape {shape} with {len(numbers):,} bytes of {dtype.name}"
        raise MatFileError(actual, _COMPLETE)
    return np.frombuffer(numbers, dtype).reshape(shape, order="F")


__all__ = ["MatFileError", "read_mat_array"]
