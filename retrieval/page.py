"""The parts of a self-contained HTML page: style, tables and pictures inside."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib import rc_context
from matplotlib.figure import Figure

STYLE = """
:root { --ink: #1f2933; --soft: #5b6770; --line: #e3e7ec; --paper: #ffffff; --back: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 14px; }
h2 { font-size: 18px; margin: 0 0 12px; }
p { color: var(--soft); margin: 10px 0 0; max-width: 75ch; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(125px, 1fr)); gap: 12px 22px;
  margin: 0 0 22px; }
dt { color: var(--soft); font-size: 12.5px; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
dl div:first-child { grid-column: span 2; }
.cards { display: grid; gap: 18px; grid-template-columns: minmax(0, 1fr); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; }
section.warning { border-color: #d64541; background: #fdf3f2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  min-width: min(100%, 420px); }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; }
th { font-size: 12.5px; color: var(--soft); font-weight: 600; }
td:not(:first-child), th:not(:first-child) { text-align: right; padding: 5px 0 5px 22px; }
td.part { color: var(--soft); padding-left: 14px; }
td:first-child { white-space: normal; min-width: 9em; }
img { display: block; width: 100%; height: auto; margin: 6px 0 0; }
.panels { display: grid; gap: 14px 28px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.tables { display: flex; flex-wrap: wrap; gap: 14px 28px; align-items: flex-start; }
.tables .scroll { flex: 1 1 auto; max-width: 100%; }
.tables table { width: 100%; }
.panel { margin: 0 auto; }
.photographs { overflow-x: auto; }
.photographs img { min-width: 620px; }
@media (max-width: 640px) {
  main { padding: 18px 10px 40px; }
  section { padding: 14px 12px; border-radius: 8px; }
  table { min-width: 0; width: 100%; font-size: 13.5px; }
  td:not(:first-child), th:not(:first-child) { padding-left: 10px; }
}
"""


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `body` is HTML."""

    title: str
    body: list[str] = field(default_factory=list)
    warning: bool = False


def render_page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The whole page; nothing in it is loaded from elsewhere."""
    listed = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts
    )
    cards = "".join(
        f"<section{' class=warning' if part.warning else ''}>"
        f"<h2>{html.escape(part.title)}</h2>{''.join(part.body)}</section>"
        for part in sections
    )
    heading = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}: retrieval report</title><style>{STYLE}</style></head>"
        f'<body><main><h1>{heading}</h1><dl>{listed}</dl><div class="cards">{cards}</div>'
        "</main></body></html>\n"
    )


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways when narrow; a first cell that starts with · is indented."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    if text.startswith("· "):
        return f'<td class="part">{html.escape(text[2:])}</td>'
    return f"<td>{html.escape(text)}</td>"


def paragraph(text: str) -> str:
    """A line of prose."""
    return f"<p>{html.escape(text)}</p>"


def panels_html(figures: Sequence[Figure], description: str) -> str:
    """Figures inside the page, two a row where there is room."""
    inside = "".join(
        _image_html(
            f"{description}, {place} of {len(figures)}",
            "image/svg+xml",
            _svg(figure, f"{description} {place}"),
        )
        for place, figure in enumerate(figures, start=1)
    )
    if len(figures) > 1:
        return f'<div class="panels">{inside}</div>'
    width = round(106 * figures[0].get_figwidth())
    return f'<div class="panel" style="max-width: {width}px">{inside}</div>'


def photograph_html(png: bytes, description: str) -> str:
    """A PNG file inside the page."""
    return f'<div class="photographs">{_image_html(description, "image/png", png)}</div>'


def _image_html(description: str, mime: str, content: bytes) -> str:
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img alt="{html.escape(description)}" src="data:{mime};base64,{encoded}">'


def _svg(figure: Figure, salt: str) -> bytes:
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": salt}):  # the same figure, the same bytes
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
