"""Where pictures are shown one after the other: in a video file, or in a window."""

import contextlib
import os
from fractions import Fraction

import av
import numpy as np


class WindowClosed(Exception):
    """The user has closed the window."""


class VideoScreen:
    """A video file (H.264), written while pictures come. A `.mkv` can be watched meanwhile.

    Args:
        path: of the file.
        fps: pictures per second.
    """

    def __init__(self, path: str | os.PathLike, fps: float):
        self._container = av.open(os.fspath(path), "w")
        options = {"preset": "veryfast", "tune": "zerolatency"}
        self._stream = self._container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001), options=options
        )
        self._stream.pix_fmt = "yuv420p"

    def show(self, picture: np.ndarray) -> None:
        """Shows a picture, uint8 (height, width, 3); an odd last row or column is left out."""
        height, width = (length - length % 2 for length in picture.shape[:2])
        if not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = height, width
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._stream.codec_context.is_open:
            self._container.mux(self._stream.encode())
        self._container.close()


class WindowScreen:
    """A window on this machine.

    Raises:
        ValueError: if there is no display.
    """

    def __init__(self, title: str):
        import tkinter

        try:
            self._window = tkinter.Tk()
        except tkinter.TclError as error:
            raise ValueError(f"--window: no display ({error}); write the pictures to a file with --draw.") from error
        self._window.title(title)
        self._label = tkinter.Label(self._window)
        self._label.pack()

    def show(self, picture: np.ndarray) -> None:
        """Shows a picture, uint8 (height, width, 3), smaller if it does not fit on the screen.

        Raises:
            WindowClosed: if the user has closed the window.
        """
        import tkinter

        from PIL import Image, ImageTk

        image = Image.fromarray(picture)
        try:
            image.thumbnail((self._window.winfo_screenwidth(), self._window.winfo_screenheight()))
            self._picture = ImageTk.PhotoImage(image, master=self._window)
            self._label.configure(image=self._picture)
            self._window.update()
        except tkinter.TclError as error:
            raise WindowClosed from error

    def close(self) -> None:
        import tkinter

        with contextlib.suppress(tkinter.TclError):  # closed already
            self._window.destroy()
