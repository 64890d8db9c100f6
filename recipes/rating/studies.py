"""What human raters are asked: the studies of LVLM-VAR (Table 3, Figure 1) and VT-LVLM-AR (Table III).

The papers name their scales and no more; the questions, and what 1 and 5 mean, are this project's words.
"""

from dataclasses import dataclass

YES_NO = ("no", "yes")
# Behind the instruction, where skeletons are drawn.
SKELETONS = "People are drawn as stick figures: the left side of their body is red, the right side blue."


@dataclass(frozen=True)
class Scale:
    """One question about an item.

    Attributes:
        name: The column of a sheet.
        title: As the paper's table has it.
        question: As it is put to a rater.
        low, high: What 1 and 5 mean; empty where the answer is yes or no.
        of_text: Whether it is about the text, and so asked of items that have one, once the others are answered.
    """

    name: str
    title: str
    question: str
    low: str = ""
    high: str = ""
    of_text: bool = False

    @property
    def answers(self) -> tuple[str, ...]:
        """What may stand in its column."""
        return tuple("12345") if self.low else YES_NO


@dataclass(frozen=True)
class Study:
    """What is shown and asked.

    Attributes:
        title, instruction: At the head of the page.
        label_heading, text_heading: Above the predicted label and the text; no heading, and it is not shown.
        scales: In the order in which they are asked.
    """

    title: str
    instruction: str
    scales: tuple[Scale, ...]
    label_heading: str = ""
    text_heading: str = ""


STUDIES = {
    "explanations": Study(
        "Names and explanations of actions",
        "Programs were given recordings of people. Each gave a name to what somebody does, and some explained why. Watch the "
        "clip, as often as you like, and say whether the name fits. Where there is an explanation, it is shown then: judge it "
        "by the clip alone. A wrong name can have a good explanation, and a right name a bad one. Words like <act_12> are a "
        "program's own names for short stretches of movement.",
        (
            Scale("agreement", "Human agreement (action label)", "Does the name fit what is done in the clip?"),
            Scale(
                "coherence",
                "Explanation coherence (1–5)",
                "Is the explanation well formed and coherent?",
                "hard to read, in pieces, or against itself",
                "clear, whole, and each part follows from the others",
                of_text=True,
            ),
            Scale(
                "accuracy",
                "Explanation accuracy (1–5)",
                "Is what it says true of the clip?",
                "nothing that it says can be seen in the clip",
                "everything that it says can be seen, at the times that it says",
                of_text=True,
            ),
            Scale(
                "helpfulness",
                "Helpfulness for diagnosis (1–5)",
                "Does it help you to understand why the program chose this name, be it right or wrong?",
                "I know no more than without it",
                "I know what the choice rests on, and could say where it went wrong",
                of_text=True,
            ),
        ),
        label_heading="Name",
        text_heading="Explanation",
    ),
    "events": Study(
        "Descriptions of actions",
        "Programs described recordings of people as a course of events. Watch the clip, as often as you like, and read the "
        "description. Judge it by the clip alone.",
        (
            Scale(
                "coherence",
                "Average coherence score (1–5)",
                "Do the events go together as one course of action?",
                "very poor: single pieces that have nothing to do with each other",
                "excellent: one course, each event follows from the one before",
                of_text=True,
            ),
            Scale(
                "meaningfulness",
                "Average meaningfulness score (1–5)",
                "Does the description capture the essence and the progression of the action in the clip?",
                "very poor: nobody could tell from it what is done",
                "excellent: it tells what is done, and in which order",
                of_text=True,
            ),
        ),
        text_heading="Description",
    ),
    "tokens": Study(
        "Moments that belong together",
        "Each page has some short moments, cut from different recordings and slowed down. Only the part with the coloured "
        "frame counts: what is before and after is there to make it easier to see. Say how far the moments show one and the "
        "same part of an action (an arm that goes up, somebody who stands still), whoever does it and however it is seen.",
        (
            Scale(
                "consistency",
                "Semantic consistency score (1–5)",
                "How consistently do these moments show the same part of an action?",
                "not at all: each shows something else",
                "highly: all show the same",
            ),
        ),
    ),
}


class RatingFileError(ValueError):
    """A file of a study is not as it should be.

    Attributes:
        path (str), line (int), field (str): Where.
        found, expected (str): What is there, and what should be.
    """

    def __init__(self, path, line: int, field: str, found: str, expected: str):
        self.path, self.line, self.field, self.found, self.expected = str(path), line, field, found, expected
        super().__init__(f"{path}, line {line}, {field}: expected {expected}, found {found}")
