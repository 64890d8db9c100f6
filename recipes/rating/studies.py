"""The studies with human raters of LVLM-VAR (Table 3, Figure 1) and VT-LVLM-AR (Table III).

The papers give only the names of their scales; the questions and the meanings of 1 and 5 are this project's.
"""

from dataclasses import dataclass

YES_NO = ("no", "yes")
# Added to the instruction if the recordings are skeletons.
SKELETONS = "People are drawn as stick figures: the left side of their body is red, the right side blue."


@dataclass(frozen=True)
class Scale:
    """A question about an item.

    Attributes:
        name: name of its column in a sheet.
        title: name of the scale in the paper's table.
        question: the question that raters answer.
        low, high: meanings of 1 and 5; empty if the answer is yes or no.
        of_text: whether the question is about the text. It is then asked only for items with a text, after the others.
    """

    name: str
    title: str
    question: str
    low: str = ""
    high: str = ""
    of_text: bool = False

    @property
    def answers(self) -> tuple[str, ...]:
        """The possible answers, from the lowest to the highest."""
        return tuple("12345") if self.low else YES_NO


@dataclass(frozen=True)
class Study:
    """The texts and questions of a study.

    Attributes:
        title, instruction: at the top of the page.
        scales: questions, in the order in which they are asked.
        label_heading, text_heading: headings of the predicted label and of the text, which are not shown if empty.
    """

    title: str
    instruction: str
    scales: tuple[Scale, ...]
    label_heading: str = ""
    text_heading: str = ""


STUDIES = {
    "explanations": Study(
        "Names and explanations of actions",
        "Computer programs watched recordings of people. Each program named the action in a recording, and some explained "
        "their choice. Watch the clip as often as you like, and decide whether the name fits. If there is an explanation, it "
        "is shown afterwards: judge it by the clip alone. A wrong name can have a good explanation, and a correct name a bad "
        "one. Words like <act_12> are a program's own names for short movements.",
        (
            Scale("agreement", "Human agreement (action label)", "Does the name fit the action in the clip?"),
            Scale(
                "coherence",
                "Explanation coherence (1–5)",
                "Is the explanation well formed and coherent?",
                "hard to read, disconnected, or contradictory",
                "clear, complete, and consistent",
                of_text=True,
            ),
            Scale(
                "accuracy",
                "Explanation accuracy (1–5)",
                "Is the explanation true of the clip?",
                "nothing that it describes can be seen in the clip",
                "everything that it describes can be seen, at the times that it gives",
                of_text=True,
            ),
            Scale(
                "helpfulness",
                "Helpfulness for diagnosis (1–5)",
                "Does it help you to understand why the program chose this name, whether correct or wrong?",
                "it tells me nothing about the choice",
                "I know what the choice is based on, and could tell where it went wrong",
                of_text=True,
            ),
        ),
        label_heading="Name",
        text_heading="Explanation",
    ),
    "events": Study(
        "Descriptions of actions",
        "Computer programs described recordings of people as a sequence of events. Each line is an event: its time, and the "
        "actions that the program knows such an event from. Watch the clip as often as you like, and read the "
        "description. Judge it by the clip alone.",
        (
            Scale(
                "coherence",
                "Average coherence score (1–5)",
                "Do the events fit together as a single course of action?",
                "very poor: separate events that have nothing to do with each other",
                "excellent: a single course, in which each event follows from the previous one",
                of_text=True,
            ),
            Scale(
                "meaningfulness",
                "Average meaningfulness score (1–5)",
                "Does the description capture the essence and the progression of the action in the clip?",
                "very poor: nobody could tell the action from it",
                "excellent: it tells what is done, and in which order",
                of_text=True,
            ),
        ),
        text_heading="Description",
    ),
    "tokens": Study(
        "Moments that belong together",
        "Each page shows several short moments from different recordings, slowed down. Only the part with the coloured frame "
        "counts; what comes before and after it is shown for context. Decide to what degree the moments show the same part of "
        "an action (for example, an arm that is raised, or a person standing still), no matter who does it and from which side "
        "it is seen.",
        (
            Scale(
                "consistency",
                "Semantic consistency score (1–5)",
                "How consistently do these moments show the same part of an action?",
                "not at all: each moment shows something different",
                "highly: all moments show the same",
            ),
        ),
    ),
}


class RatingFileError(ValueError):
    """A file of a study has unexpected content.

    Attributes:
        path (str), line (int), field (str): where it is.
        found (str): the content.
        expected (str): the content that was expected.
    """

    def __init__(self, path, line: int, field: str, found: str, expected: str):
        self.path, self.line, self.field, self.found, self.expected = str(path), line, field, found, expected
        super().__init__(f"{path}, line {line}, {field}: expected {expected}, found {found}")
