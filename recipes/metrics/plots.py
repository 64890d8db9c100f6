"""Plots of a recogniser's results. Each function draws a figure and writes it to a PNG file atomically."""

import os
import textwrap
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from action_llm_recipes.metrics.action_classification.classification_scores import ClassScore, ReliabilityBins

if TYPE_CHECKING:
    from action_llm.skeleton_layouts import SkeletonLayout

INK, FAINT, ACCENT, SECOND, THIRD = "#22303c", "#c9d1d9", "#2f6f9f", "#d1603d", "#6b9e5b"
MAX_NAME_LENGTH = 40  # characters of a class name in a plot
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name begins no formula
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.dpi": 150,
    "figure.facecolor": "white",
}


def plot_confusion_matrix(
    matrix: np.ndarray, class_names: list[str], path: str | os.PathLike, title: str = "Confusion"
):
    """Draws a confusion matrix, normalised over the recordings of each true class; a class without recordings has an empty row.

    Args:
        matrix: (C, C) counts, from `confusion_matrix`.
        class_names: names of the C classes.
        path: PNG file to write.
        title: title of the figure.
    """
    from matplotlib.ticker import PercentFormatter

    matrix = np.asarray(matrix, dtype=float)
    classes = len(class_names)
    counts = matrix.sum(axis=1, keepdims=True)
    fractions = np.divide(matrix, counts, out=np.full_like(matrix, np.nan), where=counts > 0)
    side = 2.6 + (0.26 if classes <= 40 else 0.17) * classes + _room_for(class_names)
    with _figure(path, (side + 1.2, side)) as figure:
        axes = figure.subplots()
        image = axes.imshow(fractions, cmap=_confusion_colours(), vmin=0, vmax=1, interpolation="nearest")
        small = 8 if classes <= 40 else 7
        ticks = np.arange(classes)
        axes.set_xticks(ticks, list(map(_short, class_names)), rotation=90, fontsize=small)
        axes.set_yticks(ticks, [f"{_short(name)} ({int(n)})" for name, n in zip(class_names, counts[:, 0], strict=True)],
                        fontsize=small)  # fmt: skip
        axes.set_xticks(ticks[:-1] + 0.5, minor=True)
        axes.set_yticks(ticks[:-1] + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=0.6)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class (recordings)")
        if classes <= 40:
            for row, column in np.argwhere(fractions > 0.005):
                value = fractions[row, column]
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=small - 1,
                          color="white" if value > 0.55 else INK)  # fmt: skip
        accuracy = np.trace(matrix) / max(matrix.sum(), 1)
        axes.set_title(f"{title}: {100 * accuracy:.1f} % of {int(matrix.sum())} recordings correct", pad=12)
        bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.02, format=PercentFormatter(1))
        bar.outline.set_visible(False)
        bar.set_label("share of the recordings of the true class")


def plot_reliability(bins: dict[str, ReliabilityBins], path: str | os.PathLike):
    """Draws accuracy against confidence, with the diagonal of perfect calibration, and the number of recordings in each bin.

    Args:
        bins: title of a panel → from `reliability_bins`; panels stand side by side.
        path: PNG file to write.
    """
    with _figure(path, (0.4 + 4.2 * len(bins), 5.4)) as figure:
        panels = figure.subplots(2, len(bins), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
        for top, bottom, (title, one) in zip(*panels, bins.items(), strict=True):
            filled = one.count > 0
            centres, width = (one.edges[:-1] + one.edges[1:]) / 2, np.diff(one.edges)
            top.bar(centres[filled], one.accuracy[filled], width[filled] * 0.94, color=ACCENT, label="accuracy")
            top.hlines(one.confidence[filled], one.edges[:-1][filled], one.edges[1:][filled], color=SECOND, linewidth=2.2,
                       label="mean confidence")  # fmt: skip
            top.vlines(centres[filled], one.accuracy[filled], one.confidence[filled], color=SECOND, linewidth=1)
            top.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1)
            top.set(xlim=(0, 1), ylim=(0, 1.02))
            top.set_title(f"{title}: expected calibration error {100 * one.calibration_error:.1f} %")
            bottom.bar(centres, one.count, width * 0.94, color=FAINT)
            bottom.set_xlabel("confidence (probability of the predicted class)")
        panels[0, 0].set_ylabel("accuracy")
        panels[0, 0].legend(loc="upper left")
        panels[1, 0].set_ylabel("recordings")


def plot_risk_coverage(risk: np.ndarray, path: str | os.PathLike):
    """Draws the share of wrong answers against the share of recordings that are answered, the most confident first.

    Args:
        risk: (N,) from `risk_coverage`.
        path: PNG file to write.
    """
    with _figure(path, (4.6, 3.6)) as figure:
        axes = figure.subplots()
        axes.plot(100 * np.arange(1, len(risk) + 1) / len(risk), 100 * risk, color=ACCENT, linewidth=1.8)
        axes.set(
            xlim=(0, 100), xlabel="answered, the most confident first (%)", ylabel="wrong answers among these (%)"
        )
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.set_title(f"Risk and coverage: area {100 * risk.mean():.2f} %")


def plot_token_usage(counts: np.ndarray, path: str | os.PathLike, title: str = "Frequency of the action tokens"):
    """Draws the frequency of tokens against their rank, with the Zipf–Mandelbrot law 1 / (rank + 2.7) (LLM-AR, Eq. 2).

    Args:
        counts: (K,) number of occurrences of each token.
        path: PNG file to write.
        title: title of the figure.
    """
    import torch
    from matplotlib.ticker import LogFormatter

    from action_llm.language_priors import js_divergence, zipf_law

    counts = np.sort(np.asarray(counts, dtype=float))[::-1]
    ranks = np.arange(1, len(counts) + 1)
    frequency = counts / max(counts.sum(), 1)
    law = zipf_law(len(counts))
    used = frequency > 0
    entropy = -np.sum(frequency[used] * np.log2(frequency[used]))
    divergence = js_divergence(torch.from_numpy(frequency), law).item()
    with _figure(path, (5.6, 4.2)) as figure:
        axes = figure.subplots()
        axes.loglog(ranks, law, color=SECOND, linewidth=1.6, label="Zipf–Mandelbrot, α = 1, β = 2.7")
        axes.loglog(ranks[used], frequency[used], "o", color=ACCENT, markersize=3.5, markeredgewidth=0, alpha=0.85,
                    label="tokens in the recordings")  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):  # the default formatter writes formulas
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter())
        axes.grid(which="major", color=FAINT, linewidth=0.5)
        axes.set(xlabel="rank of the token", ylabel="frequency")
        axes.set_title(title)
        axes.legend(loc="lower left")
        summary = (
            f"{int(used.sum())} of {len(counts)} tokens used\n{entropy:.2f} bits per token\n"
            f"divergence from the law: {divergence:.3f} bits"
        )
        axes.text(0.98, 0.97, summary, transform=axes.transAxes, ha="right", va="top", backgroundcolor="white")


def plot_sentence_lengths(lengths: Sequence[int], path: str | os.PathLike):
    """Draws a histogram of the number of tokens per sentence.

    Args:
        lengths: number of tokens of each sentence.
        path: PNG file to write.
    """
    lengths = np.asarray(lengths)
    step = max(1, -(-int(lengths.max() + 1 - lengths.min()) // 40))
    edges = np.arange(lengths.min(), lengths.max() + step + 1, step) - 0.5
    with _figure(path, (5.6, 3.2)) as figure:
        axes = figure.subplots()
        axes.hist(lengths, bins=edges, color=ACCENT, edgecolor="white", linewidth=0.5)
        axes.axvline(lengths.mean(), color=SECOND, linewidth=1.6, label=f"mean {lengths.mean():.1f}")
        axes.set(xlabel="tokens", ylabel="recordings")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title("Tokens per recording")
        axes.legend()


def plot_action_sentence(
    keypoints: np.ndarray,
    layout: "SkeletonLayout",
    fps: float,
    action_ids: np.ndarray,
    start_times: np.ndarray,
    end_times: np.ndarray,
    path: str | os.PathLike,
    title: str = "",
    contributions: np.ndarray | None = None,
):
    """Draws a recording above its sentence: the skeleton at several times, and each token from its start to its end.

    Args:
        keypoints: (T, P, J, 3) joints; zeros for people who are absent.
        layout: names and bones of the joints.
        fps: frames per second of `keypoints`.
        action_ids: (W,) tokens, or (W, R) words, whose first token is shown. A token always has the same colour.
        start_times, end_times: (W,) start and end of each token in seconds.
        path: PNG file to write.
        title: title of the figure.
        contributions: (W,) contribution of each token to the decision (`TokenEvidence.contribution`), drawn as bars.
    """
    keypoints = np.asarray(keypoints, dtype=float)
    duration = max(len(keypoints) / fps, float(np.max(end_times, initial=0.0)))
    present = np.abs(keypoints).sum(axis=(2, 3)) > 0
    points = keypoints[..., :2] * (1, layout.up)
    seen = points[present] if present.any() else np.zeros((1, 1, 2))
    low, high = seen[..., 1].min(), seen[..., 1].max()
    height = 1.08 * max(high - low, 1e-6)
    with _sentence(path, duration, action_ids, start_times, end_times, title, contributions) as axes:
        # A metre is as wide as it is high, although the x axis is time.
        _lay_out(axes.figure)
        box = axes.get_window_extent()
        seconds_per_unit = duration / box.width * box.height / height
        widths = [np.ptp(points[frame, present[frame], :, 0]) for frame in np.flatnonzero(present.any(axis=1))]
        widest = max(np.quantile(widths, 0.9), 0.3 * height) if widths else height
        shown: set[int] = set()
        snapshots = int(np.clip(duration / (1.1 * widest * seconds_per_unit), 3, 12))
        for place in (np.arange(snapshots) + 0.5) * duration / snapshots:
            frame = min(int(place * fps), len(keypoints) - 1)
            bodies = np.flatnonzero(present[frame])
            if not len(bodies):
                continue
            shown.update((bodies + 1).tolist())
            across = points[frame, bodies][..., 0]
            middle = (across.min() + across.max()) / 2
            for body in bodies:
                pose = (points[frame, body] - (middle, 0)) * (seconds_per_unit, 1) + (place, 0)
                _draw_skeleton(axes, pose, layout, faint=body > 0)
        axes.set(ylim=(low - 0.04 * height, low + 0.96 * height))
        if len(shown) > 1:
            others = ", ".join(str(body) for body in sorted(shown) if body > 1)
            note = f"several bodies were detected; in lighter colours: body {others}"
            axes.text(1, 1, note, transform=axes.transAxes, ha="right", va="top", fontsize=8)


def plot_video_sentence(
    frames_at: Callable[[Sequence[float]], np.ndarray],
    duration: float,
    action_ids: np.ndarray,
    start_times: np.ndarray,
    end_times: np.ndarray,
    path: str | os.PathLike,
    title: str = "",
    contributions: np.ndarray | None = None,
):
    """Draws a video above its sentence: frames at several times, and each token from its start to its end.

    Args:
        frames_at: function of N times in seconds that returns frames, uint8 (N, H, W, 3), such as `VideoFile.frames_at`.
        duration: duration of the video in seconds.
        action_ids, start_times, end_times, path, title, contributions: see `plot_action_sentence`.
    """
    with _sentence(path, duration, action_ids, start_times, end_times, title, contributions) as axes:
        _lay_out(axes.figure)
        box = axes.get_window_extent()
        height, width = frames_at([0.0]).shape[1:3]
        shown = int(np.clip(box.width / (box.height * width / height), 6, 12))
        span = duration / shown
        tall = min(1.0, 0.97 * span / duration * box.width / box.height * height / width)
        wide = tall * width / height * box.height / box.width * duration
        places = (np.arange(shown) + 0.5) * span
        for place, frame in zip(places, frames_at(places.tolist()), strict=True):
            extent = (place - wide / 2, place + wide / 2, 0.5 - tall / 2, 0.5 + tall / 2)
            axes.imshow(frame, extent=extent, aspect="auto", interpolation="lanczos")
        axes.set(ylim=(0, 1), xlim=(0, duration))


@contextmanager
def _sentence(path, duration: float, action_ids, start_times, end_times, title: str, contributions):
    """A figure of a sentence, with its tokens below; yields the axes above them, for the recording."""
    from matplotlib.ticker import MaxNLocator

    from action_llm.action_sentence import first_tokens
    from action_llm.token_lexicon import token_color

    action_ids, rows_of_tokens = first_tokens(action_ids), token_rows(start_times, end_times)
    rows = max(rows_of_tokens, default=0) + 1
    ratios = [3.4, 1] if contributions is None else [3.4, 1.2, 1]
    with _figure(path, (11, 3.6 if contributions is None else 4.6)) as figure:
        top, *others = figure.subplots(len(ratios), 1, height_ratios=ratios, sharex=True, gridspec_kw={"hspace": 0.04})
        bottom = others[-1]
        top.set_title(title)
        top.set(xlim=(0, duration))
        bottom.set(yticks=[], ylim=(rows, 0), xlabel="seconds")
        top.axis("off")
        if contributions is not None:
            values = np.asarray(contributions, dtype=float)
            colours = [ACCENT if value > 0 else SECOND for value in values]
            widths = np.subtract(end_times, start_times)
            style = {"color": colours, "edgecolor": "white", "alpha": 1.0 if rows == 1 else 0.5}
            others[0].bar(start_times, values, width=widths, align="edge", **style)
            others[0].axhline(0, color=INK, linewidth=0.6)
            # The scale shows both signs, even if all contributions have the same.
            most = max(np.abs(values).max(initial=0), 1e-3)
            others[0].set(
                ylim=(min(1.15 * values.min(initial=0), -0.15 * most), max(1.15 * values.max(initial=0), 0.15 * most))
            )
            others[0].yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            others[0].set_ylabel(
                "contribution,\nlog-probability\n(nats)", rotation=0, ha="right", va="center", fontsize=8
            )
            others[0].spines[["bottom"]].set_visible(False)
            others[0].tick_params(axis="x", length=0)
            others[0].tick_params(axis="y", labelsize=8)
        for token, row, start, end in zip(action_ids, rows_of_tokens, start_times, end_times, strict=True):
            bottom.barh(row + 0.5, end - start, 1, start, color=token_color(int(token)), linewidth=0)
            bottom.vlines(end, row, row + 1, color="white", linewidth=1)
            share = (end - start) / duration
            if share < 0.007 or rows > 4:  # no room for a number
                continue
            bottom.text((start + end) / 2, row + 0.5, str(int(token)), ha="center", va="center", fontsize=7,
                        rotation=90 if share < 0.022 else 0, color=INK)  # fmt: skip
        bottom.spines[["left"]].set_visible(False)
        # Last, since frames are sized by the layout of all else.
        yield top


def token_rows(start_times: Sequence[float], end_times: Sequence[float]) -> list[int]:
    """The row in which each token of a sentence is drawn: tokens that overlap in time, such as events at several places of the
    frame, are in different rows."""
    rows, free_from = [0] * len(start_times), []
    for index in np.argsort(start_times, kind="stable").tolist():
        start = start_times[index] + 1e-3  # times are rounded
        row = next((row for row, end in enumerate(free_from) if end <= start), len(free_from))
        free_from[row : row + 1] = [end_times[index]]
        rows[index] = row
    return rows


def plot_class_accuracy(table: list[ClassScore], path: str | os.PathLike, title: str = "Accuracy by class"):
    """Draws the accuracy of each class that has recordings, the highest at the top, with the class it is confused with most.

    Args:
        table: from `per_class_table`.
        path: PNG file to write.
        title: title of the figure.
    """
    rows = sorted((row for row in table if row.count), key=lambda row: (row.accuracy, row.name))
    mean = float(np.mean([row.accuracy for row in rows])) if rows else float("nan")
    width = 7.6 + _room_for([row.name for row in rows]) + _room_for([row.confused_with or "" for row in rows])
    with _figure(path, (width, 1.2 + 0.19 * max(len(rows), 3))) as figure:
        axes = figure.subplots()
        values = np.array([row.accuracy for row in rows])
        colours = [THIRD if value >= 0.9 else ACCENT if value >= mean else SECOND for value in values]
        axes.barh(np.arange(len(rows)), 100 * values, color=colours, height=0.74)
        axes.axvline(100 * mean, color=INK, linestyle=(0, (4, 3)), linewidth=1)
        axes.set_yticks(np.arange(len(rows)), [_short(row.name) for row in rows], fontsize=7.5)
        axes.tick_params(axis="y", length=0)
        for index, row in enumerate(rows):
            if row.confused_with is not None:
                axes.text(101, index, f"{row.confused_count} × {_short(row.confused_with)}", va="center", fontsize=6.5)
        axes.set(xlim=(0, 100), ylim=(-0.6, len(rows) - 0.4), xlabel="accuracy (%)")
        axes.set_title(f"{title}: mean {100 * mean:.1f} %")
        axes.text(101, len(rows) - 0.3, "most confused with", fontsize=6.5, style="italic", va="bottom")


def plot_ratings(scales: dict[str, dict[str, dict[str, int]]], path: str | os.PathLike, title: str = "Ratings"):
    """Draws a bar for each system and scale: the shares of its answers from the lowest to the highest, and their number.

    Args:
        scales: title of a scale → name of a system → answer, from the lowest to the highest → how often it was given.
        path: PNG file to write.
        title: title of the figure.
    """
    from matplotlib.ticker import PercentFormatter

    bars = sum(len(systems) for systems in scales.values())
    with _figure(path, (7.6, 1.0 + 0.5 * len(scales) + 0.34 * bars)) as figure:
        heights = [1.2 + len(systems) for systems in scales.values()]
        panels = figure.subplots(len(scales), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        for axes, (scale, systems) in zip(panels, scales.items(), strict=True):
            axes.set_title(scale, fontsize=9, fontweight="normal")
            for row, counts in enumerate(systems.values()):
                total, left = sum(counts.values()), 0.0
                colours = _rating_colours(np.linspace(0, 1, len(counts)))
                for (answer, count), colour in zip(counts.items(), colours, strict=True):
                    share = count / max(total, 1)
                    axes.barh(row, share, left=left, color=colour, height=0.78, edgecolor="white", linewidth=0.8)
                    if share > 0.035:
                        is_dark = colour[:3] @ (0.299, 0.587, 0.114) < 0.6
                        axes.text(left + share / 2, row, answer, ha="center", va="center", fontsize=8,
                                  color="white" if is_dark else INK)  # fmt: skip
                    left += share
                axes.text(1.01, row, f"{total:,}", va="center", fontsize=8)
            axes.set_yticks(range(len(systems)), list(systems))
            axes.tick_params(axis="y", length=0)
            axes.set(xlim=(0, 1), ylim=(len(systems) - 0.5, -0.5))
            axes.spines[["left", "bottom"]].set_visible(False)
            axes.tick_params(axis="x", length=0)
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        panels[-1].set_xlabel("share of the ratings; their number at the right")


def plot_robustness(
    results: dict[str, dict[str, dict[str, dict]]], path: str | os.PathLike, title: str = "Robustness"
):
    """Draws a panel for each group of conditions, with a curve of accuracies for each recogniser, which begins at complete
    recordings. Bars are ranges over seeds, or 95 % intervals over recordings of a single model; the legend says which.

    Args:
        results: group → level → name of a recogniser → `accuracy`, `low` and `high`, from 0 to 1, and `seeds` if there are
            several; the group "complete" has one level.
        path: PNG file to write.
        title: title of the figure.
    """
    (complete,) = results["complete"].values()
    groups = {name: levels for name, levels in results.items() if name != "complete"}
    widths = [1 + len(levels) for levels in groups.values()]
    with _figure(path, (1.2 + 0.75 * sum(widths), 3.8)) as figure:
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False, width_ratios=widths)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        for axes, (group, levels) in zip(panels, groups.items(), strict=True):
            entries = [complete, *levels.values()]
            # Layouts have no order, so nothing connects them.
            line = "none" if group == "layout" else "-"
            for index, name in enumerate(complete):
                colour, marker = [INK, ACCENT, SECOND, THIRD][index % 4], "osv^D"[index // 4 % 5]
                accuracy, low, high = (
                    [100 * entry[name][key] for entry in entries] for key in ("accuracy", "low", "high")
                )
                seeds = complete[name].get("seeds")
                label = f"{name} ({f'range of {len(seeds)} seeds' if seeds else '95 % interval'})"
                place = np.arange(len(entries)) + (0.12 * (index - (len(complete) - 1) / 2) if line == "none" else 0)
                axes.errorbar(
                    place, accuracy, [np.subtract(accuracy, low), np.subtract(high, accuracy)], color=colour, label=label,
                    linestyle=line, marker=marker, markersize=4, linewidth=1.5, elinewidth=0.8,
                )  # fmt: skip
            axes.set_xticks(range(len(entries)), ["complete", *levels], rotation=35, ha="right")
            axes.set_title(group, fontsize=9, fontweight="normal")
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
            axes.set_axisbelow(True)
        panels[0].set(ylim=(0, 100), ylabel="accuracy (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


@contextmanager
def _figure(path: str | os.PathLike, size: tuple[float, float]):
    """A figure that needs no display; written atomically when the block ends without an error."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        _write(figure, Path(path))


def _write(figure, path: Path):
    """Lays out a figure, and writes it atomically."""
    _lay_out(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    # Without the version of Matplotlib in the file, equal results give equal files. `savefig` would draw twice.
    try:
        figure.canvas.print_png(partial, metadata={"Software": None})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _lay_out(figure):
    """Lays out a figure, with fonts of this machine for characters that Matplotlib's own font lacks."""
    from matplotlib import font_manager
    from matplotlib.text import Text

    from action_llm_datasets.fonts import drawable, fallback_font, has_character

    base = Path(font_manager.findfont("DejaVu Sans"))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            names = [label.get_text() for label in axis.get_ticklabels()]
            written = [drawable(name, base) for name in names]
            if written != names:
                axis.set_ticks(axis.get_ticklocs(), written)
    for text in figure.findobj(Text):
        written = drawable(text.get_text(), base)
        if written != text.get_text():
            text.set_text(written)
        paths = {fallback_font(character) for character in written if not has_character(base, character)}
        if paths:
            for path in paths:
                font_manager.fontManager.addfont(path)
            # Few fonts for other scripts are bold.
            text.set(family=["DejaVu Sans", *(font_manager.get_font(path).family_name for path in sorted(paths))])
            text.set(weight="normal")
    # Titles are broken before the layout, since a wide title leaves no room for the axes, and after it, when their place is
    # known. The layout is slow, and done again only if that changed it.
    _fit_titles(figure)
    figure.draw_without_rendering()
    if not _fit_titles(figure):
        figure.set_layout_engine("none")


def _short(name: str) -> str:
    """A class name, cut to `MAX_NAME_LENGTH` characters."""
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1].rstrip()}…"


def _room_for(names: Sequence[str]) -> float:
    """Inches that long names need beyond the usual."""
    return 0.12 * max(0, max(map(len, map(_short, names)), default=0) - 20)


def _fit_titles(figure) -> bool:
    """Breaks titles that are wider than the figure into several lines; returns whether there were any."""
    from matplotlib.text import Text

    has_broken = False
    titles = {figure.get_suptitle(), *(axes.get_title(loc="left") for axes in figure.axes)} - {""}
    for title in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() in titles):
        box = title.get_window_extent()
        room = figure.bbox.width - box.x0 - 0.06 * figure.dpi
        if box.width > room > 0:
            width = max(10, int(max(map(len, title.get_text().splitlines())) * room / box.width * 0.97))
            lines = textwrap.wrap(title.get_text(), width, max_lines=3, placeholder=" …")
            title.set_text("\n".join(lines))
            has_broken = True
    return has_broken


def _confusion_colours():
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("confusion", ["#f4f6f8", "#9dc0d8", ACCENT, "#173a56"])
    return colours.with_extremes(bad="#ffffff")


def _rating_colours(places: np.ndarray) -> np.ndarray:
    """Colours (N, 4) of answers from the worst at 0 to the best at 1."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ratings", [SECOND, "#eec3ae", "#e4e8ec", "#9dc0d8", ACCENT])(places)


def _draw_skeleton(axes, pose: np.ndarray, layout: "SkeletonLayout", faint: bool):
    """Draws the bones of a body, left and right in different colours; `pose` is (J, 2) in the units of the axes."""
    from matplotlib.colors import to_rgb

    # Mixed with white, since overlapping transparent lines would show joints as dots.
    left_colour, right_colour, middle_colour = (
        tuple(1 - (0.45 if faint else 1.0) * (1 - channel) for channel in to_rgb(name))
        for name in (SECOND, ACCENT, INK)
    )
    side = {}
    for left, right in layout.left_right:
        side[left], side[right] = left_colour, right_colour
    for child, parent in layout.bones:
        axes.plot(pose[[child, parent], 0], pose[[child, parent], 1], color=side.get(child, middle_colour),
                  linewidth=1.7, solid_capstyle="round", zorder=1 if faint else 2)  # fmt: skip
    middle = [joint for joint in range(layout.num_joints) if joint not in side]
    head = max(middle, key=lambda joint: pose[joint, 1]) if middle else 0
    axes.plot(*pose[head], "o", color=middle_colour, markersize=5, markeredgewidth=0)


def plot_timeline(
    timeline, path: str | os.PathLike, true: Sequence | None = None, nothing: str = "", title: str = "", rows: int = 12
):
    """Draws class probabilities along a recording, the boundaries of its events, if any, and, if known, its true actions.

    Args:
        timeline: a `Timeline` of `action_llm.timelines`.
        path: PNG file to write.
        true: true actions, with `start`, `end` and `label`.
        nothing: the class that means that no action happens.
        title: title of the figure.
        rows: maximum number of classes: true classes first, then those with the highest probabilities.
    """
    names, probabilities = timeline.class_names, timeline.probabilities
    true_names = {segment.label for segment in true or ()}
    ranked = sorted(
        range(len(names)),
        key=lambda index: (names[index] not in true_names, -np.nanmax(probabilities[:, index], initial=0)),
    )
    shown = sorted(ranked[:rows], key=lambda index: (names[index] == nothing, index))
    end = float(timeline.ends[-1])
    unit, name = (60, "minutes") if end > 300 else (1, "seconds")
    with _figure(path, (10, 1.9 + 0.27 * len(shown))) as figure:
        ratios = [len(shown), 1.6] if timeline.events else [len(shown)]
        top, *below = panels = figure.subplots(len(ratios), sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        edges = np.append(timeline.starts, end) / unit
        lines = np.arange(len(shown) + 1) - 0.5
        image = top.pcolormesh(
            edges, lines, probabilities[:, shown].T, cmap=_confusion_colours(), vmin=0, vmax=1, rasterized=True
        )
        for segment in true or ():
            if segment.label in names and names.index(segment.label) in shown:
                row = shown.index(names.index(segment.label))
                box = ((segment.start / unit, row - 0.42), (segment.end - segment.start) / unit, 0.84)
                top.add_patch(_box(*box, fill=False, edgecolor=SECOND, linewidth=1.4))
        best = timeline.best()
        for row, index in enumerate(shown):
            for step in np.flatnonzero(best == index):
                top.plot(edges[step : step + 2], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
        top.set_yticks(range(len(shown)), [_short(names[index]) for index in shown], fontsize=8)
        top.set_ylim(len(shown) - 0.5, -0.5)
        top.tick_params(length=0)
        top.set_title(title or "Actions over time", pad=18)  # leaves a line for the note
        legend = "; boxes and green areas" if below else "; boxes"
        legend = f"{legend}: true actions" if true else ""
        note = f"blue: probability; lines: most likely class{legend}"
        top.text(0, 1.02, note, transform=top.transAxes, ha="left", va="bottom", fontsize=8)
        figure.colorbar(image, ax=list(panels), fraction=0.02, pad=0.01, label="probability")
        for bottom in below:
            starts = [event.start / unit for event in timeline.events]
            bottom.vlines(starts, 0, 1, color=ACCENT, linewidth=0.6)
            for segment in true or ():
                bottom.axvspan(segment.start / unit, segment.end / unit, color=THIRD, alpha=0.25, linewidth=0)
            bottom.set_yticks([])
            bottom.set_ylabel("event\nboundaries", fontsize=8)
        panels[-1].set_xlim(0, end / unit)
        panels[-1].set_xlabel(name)


def plot_people(people: dict, path: str | os.PathLike, nothing: str = "", title: str = "", rows: int = 12):
    """Draws which action each person of a recording does, in a row per person.

    Args:
        people: a `Timeline` of `action_llm.timelines` by the number of each person.
        path: PNG file to write.
        nothing: the class that means that no action happens.
        title: title of the figure.
        rows: maximum number of people: those who are seen longest.
    """
    from matplotlib.patches import Patch

    from action_llm.token_lexicon import token_color
    from action_llm_datasets.fonts import drawable, text_width

    spans = {person: timeline.spans() for person, timeline in people.items()}
    longest = sorted(spans, key=lambda person: -sum(span.end - span.start for span in spans[person]))[:rows]
    shown = [person for person in spans if person in longest]
    end = max(float(timeline.ends[-1]) for timeline in people.values())
    unit, name = (60, "minutes") if end > 300 else (1, "seconds")
    names = next(iter(people.values())).class_names
    unnamed = {}  # the classes whose names fit in none of their spans
    with _figure(path, (10, 1.7 + 0.34 * len(shown))) as figure:
        axes = figure.subplots()
        for row, person in enumerate(shown):
            for span in spans[person]:
                colour = FAINT if span.label == nothing else token_color(names.index(span.label))
                hatch = "////" if span.is_doubtful else None
                box = (span.start / unit, row - 0.4), (span.end - span.start) / unit, 0.8
                axes.add_patch(_box(*box, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=1))
                label, room = _short(span.label), 8.4 * figure.dpi * (span.end - span.start) / end
                texts = (f"{label} {span.probability:.0%}", label)
                # Matplotlib's font is a fifth wider than Pillow's; 17 pixels are 8 points.
                text = next((text for text in texts if 1.2 * text_width(drawable(text), 17) <= room), None)
                if text is None:
                    unnamed.setdefault(span.label, Patch(facecolor=colour, label=label))
                else:
                    unnamed[span.label] = None
                    axes.text((span.start + span.end) / 2 / unit, row, text, ha="center", va="center", fontsize=8)
        axes.set_yticks(range(len(shown)), [f"person {person}" for person in shown], fontsize=8)
        axes.set(ylim=(len(shown) - 0.5, -0.5), xlim=(0, end / unit), xlabel=name)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title or "Actions of each person", pad=18)  # leaves a line for the note
        others = f"; {len(people) - len(shown)} others are seen for a shorter time" if len(people) > len(shown) else ""
        doubtful = any(span.is_doubtful for person in shown for span in spans[person])
        note = f"the most likely class and its probability{'; hatched: unlike the training recordings' * doubtful}{others}"
        axes.text(0, 1.02, note, transform=axes.transAxes, ha="left", va="bottom", fontsize=8)
        if keys := [patch for patch in unnamed.values() if patch is not None]:
            figure.legend(handles=keys, loc="outside lower left", ncols=4, fontsize=8)


def _box(corner: tuple[float, float], width: float, height: float, **style):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, **style)
