"""Python reads this at its start: the catalogue of every process of the node also lists the tests' own pipelines."""

from pathlib import Path

from pipelines import catalog

catalog.__path__.append(str(Path(__file__).parents[2] / "work" / "shelf"))
