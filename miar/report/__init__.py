"""The HTML report: what people look at."""

from miar.report.page import write_report

__all__ = ["write_report"]
