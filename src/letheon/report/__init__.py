"""The run folder as one page to read (`report.html`) and as a model card. Reads files only; knows no model."""

from letheon.report.model_card import write_model_card
from letheon.report.page import write_report

__all__ = ["write_model_card", "write_report"]
