"""Captions of timelines: what happens in a long recording, and when, in a sentence."""

from collections.abc import Sequence


def caption(spans: Sequence, seconds: float, nothing: str | None = None) -> str:
    """
    Tells the actions of a recording in their order.

    Actions have the names of their classes: "2 actions in 9.0 s: throw (0.5 to 3.0 s) and then wave (4.0 to 8.5 s)." Doubtful
    spans are marked.

    Args:
        spans (`Sequence[Span]`): of [`~timelines.Timeline.spans`].
        seconds (`float`): length of the recording.
        nothing (`str`, *optional*): class of the time in which there is no action; it is left out.
    """
    actions = [span for span in spans if span.label != nothing]
    if not actions:
        return f"No action in {seconds:.1f} s."
    doubt = ", unlike the training recordings"
    told = [
        f"{span.label} ({span.start:.1f} to {span.end:.1f} s{doubt if span.is_doubtful else ''})" for span in actions
    ]
    number = "1 action" if len(told) == 1 else f"{len(told)} actions"
    *before, last = told
    text = f"{', then '.join(before)}{' and then ' if before else ''}{last}"
    return f"{number} in {seconds:.1f} s: {text}."


__all__ = ["caption"]
