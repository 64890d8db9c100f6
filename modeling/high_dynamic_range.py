"""Converts frames of high dynamic range (HDR), as from phones and HDR10 discs, to standard dynamic range.

HDR video is coded for screens of 1000 cd/m² and more. Read as if it were standard video, white paper (203 cd/m², ITU-R BT.2408)
would be a middle grey.
"""

from functools import cache

import numpy as np

# FFmpeg's numbers for the transfer functions of ITU-R BT.2100, and for the primaries of BT.2020.
PQ, HLG, BT2020 = 16, 18, 9
HDR_TRANSFERS = (PQ, HLG)
# Luminance of white paper, and of the brightest white of HLG, in cd/m².
PAPER_WHITE, HLG_PEAK = 203.0, 1000.0
# Number of pixels that are converted at a time.
STRIP_PIXELS = 1 << 20
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
# Red, green and blue of BT.2020 to those of BT.709, both linear (ITU-R BT.2087).
TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


def to_standard_range(picture: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Converts a frame. Luminances up to white paper are exact; brighter pixels are clipped.

    Args:
        picture: RGB uint16 (H, W, 3), full range.
        transfer, primaries: FFmpeg's numbers; the transfer function is one of `HDR_TRANSFERS`.

    Returns:
        sRGB uint8 (H, W, 3).
    """
    result = np.empty(picture.shape, np.uint8)
    # Converted by strips of rows, because the floats of a large frame would take gigabytes.
    rows = max(1, STRIP_PIXELS // max(picture.shape[1], 1))
    for start in range(0, len(picture), rows):
        result[start : start + rows] = _strip(picture[start : start + rows], transfer, primaries)
    return result


def _strip(picture: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Converts a strip of rows."""
    light = _linear_light(transfer)[picture]
    if transfer == HLG:
        # From the light at the camera to the light of a screen with this peak.
        light *= (light @ LUMINANCE)[..., None] ** np.float32(0.2) * np.float32(HLG_PEAK / PAPER_WHITE)
    if primaries == BT2020:
        light = light @ TO_BT709.T
    light = light.clip(0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055)
    return np.rint(255 * coded).astype(np.uint8)


@cache
def _linear_light(transfer: int) -> np.ndarray:
    """Light of each coded value, float32 (65536,); 1 is white paper (PQ), or the brightest white of the camera (HLG)."""
    coded = np.linspace(0, 1, 65536)
    if transfer == PQ:
        root = coded ** (32 / 2523)
        light = np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)
        return (light ** (16384 / 2610) * (10_000 / PAPER_WHITE)).astype(np.float32)
    light = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return light.astype(np.float32)


__all__ = ["HDR_TRANSFERS", "to_standard_range"]
