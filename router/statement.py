"""A document of numbered sections, as Markdown and as HTML; whatever stands in it is text and nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their headings."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part: paragraphs and tables in their order."""

    number: str
    title: str
    blocks: tuple[str | Table, ...] = ()


MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\|*_`[]"})
"""What Markdown would take for its own."""


def markdown(sections: Iterable[Section], title: str) -> str:
    """The statement as Markdown."""
    lines = [f"# {title}", ""]
    for one in sections:
        lines += [f"{'#' * min(6, 2 + one.number.count('.'))} {one.number} {one.title}", ""]
        for block in one.blocks:
            lines += [block] if isinstance(block, str) else _rows(block)
            lines.append("")
    return "\n".join(lines)


def _rows(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape(" ".join(cell.split()), quote=False).translate(MARKS) for cell in cells) + " |"

    return [line(table.heads), line(["---"] * len(table.heads)), *map(line, table.rows)]


STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}"
    "td,th{border:1px solid #888;padding:.2rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
)


def html(sections: Iterable[Section], title: str) -> str:
    """The statement as one HTML page."""
    parts = []
    for one in sections:
        level = min(6, 2 + one.number.count("."))
        parts.append(f"<h{level}>{one.number} {escape(one.title)}</h{level}>")
        for block in one.blocks:
            parts.append(f"<p>{escape(block)}</p>" if isinstance(block, str) else _table(block))
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    page = f'<html lang="en"><head>{head}</head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>'
    return f"<!DOCTYPE html>\n{page}\n"


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(one)}</th>" for one in table.heads)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>"
