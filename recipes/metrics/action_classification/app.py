"""The metric's page as a Space."""

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("action_classification.py"))
