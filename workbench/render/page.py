"""Sheets of pictures as one HTML page that needs nothing beside it: pictures grow with a slider or a click, and tell their scores."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.render.sheet import Sheet

if TYPE_CHECKING:
    from PIL.Image import Image

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --line: #d0d7de; --paper: #fff; --edge: 128px; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --paper: #0d1117; } }
body { margin: 0; padding: 1rem 1.5rem 3rem; font: 15px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
header { position: sticky; top: 0; left: 0; z-index: 2; padding: .5rem 0; background: var(--paper); width: max-content; }
h2 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
table { border-collapse: separate; border-spacing: .6rem; }
th { font-weight: 600; vertical-align: bottom; max-width: max(10rem, var(--edge) * var(--across)); }
tbody th { text-align: left; vertical-align: middle; min-width: 7rem; max-width: 16rem; }
small, .faint { color: var(--faint); font-weight: 400; font-size: .8rem; }
th small, td small { display: block; }
td { vertical-align: top; text-align: center; }
.seeds { display: flex; gap: .25rem; justify-content: center; }
.down { flex-direction: column; align-items: center; }
img { width: var(--edge); display: block; border: 1px solid var(--line); cursor: zoom-in; image-rendering: var(--dots, auto); }
td small { max-width: max(10rem, var(--edge) * var(--across)); margin: .2rem auto 0; overflow-wrap: anywhere; }
dialog { border: 0; padding: 1rem; max-width: 96vw; max-height: 96vh; color: var(--ink); background: var(--paper); border-radius: 8px; }
dialog::backdrop { background: rgba(0, 0, 0, .7); }
dialog img { width: min(80vh, 90vw); cursor: zoom-out; }
"""
_SCRIPT = """
const all = [...document.querySelectorAll('td img')], big = document.querySelector('dialog'), size = document.querySelector('#size');
let at = 0;
const show = number => {
  at = (number + all.length) % all.length;
  big.querySelector('img').src = all[at].src;
  big.querySelector('p').textContent = all[at].alt;
  if (!big.open) big.showModal();
};
all.forEach((image, number) => image.addEventListener('click', () => show(number)));
big.addEventListener('click', () => big.close());
big.addEventListener('keydown', event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (step) { event.preventDefault(); show(at + step); }
});
size.addEventListener('input', () => document.documentElement.style.setProperty('--edge', size.value + 'px'));
"""


def page(sheets: Sequence[Sheet], labels: Sequence[str], settings: Mapping[str, Any]) -> Iterator[bytes]:
    """The page in pieces, so that only one picture is in memory at a time; it carries the settings as JSON.

    `labels` are what the pictures are, by number; the last sheet's caption stands below all.
    """
    edge = sheets[-1].edge
    dots = "pixelated" if sheets[-1].shape[0] < edge else "auto"
    style = f"<style>{_STYLE}:root {{ --edge: {edge}px; --dots: {dots}; }}</style>"
    yield f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>Workbench: grid</title>{style}</head><body>\n".encode()
    slider = f"<input id=size type=range min=32 max=768 step=8 value={edge} aria-label='size of the pictures'>"
    yield f"<header><label>Size {slider}</label> <span class=faint>a click enlarges a picture; ← → go on</span></header>\n".encode()
    for sheet in sheets:
        yield from _table(sheet, labels)
    yield f"<p class=faint>{html.escape(sheets[-1].caption)}</p>\n".encode()
    yield b"<dialog><img alt=''><p></p></dialog>\n"
    carried = json.dumps(settings).replace("<", "\\u003c")  # no text of a prompt ends the script
    yield f"<script type=application/json id=workbench>{carried}</script>\n<script>{_SCRIPT}</script></body></html>\n".encode()


def _table(sheet: Sheet, labels: Sequence[str]) -> Iterator[bytes]:
    heads = "".join(f"<th>{html.escape(heading.text)}{_small(heading.detail)}</th>" for heading in sheet.columns)
    title = f"<h2>{html.escape(sheet.title)}</h2>" if sheet.title else ""
    yield f"{title}<table style='--across: {sheet.across}'><thead><tr><td></td>{heads}</tr></thead><tbody>\n".encode()
    for row, heading in enumerate(sheet.rows):
        yield f"<tr><th>{html.escape(heading.text)}</th>".encode()
        for column, note in enumerate(sheet.notes[row]):
            yield f"<td><div class='seeds{' down' if sheet.down > 1 else ''}'>".encode()
            for number in sheet.group(row, column):
                yield _picture(sheet.images, labels, number).encode()
            yield f"</div>{_small(note)}</td>".encode()
        yield b"</tr>\n"
    yield b"</tbody></table>\n"


def _picture(images: Sequence[Image | None], labels: Sequence[str], number: int | None) -> str:
    if number is None or (image := images[number]) is None:
        return ""
    words = html.escape(labels[number])
    return f'<img loading=lazy title="{words}" alt="{words}" src="data:image/png;base64,{_encoded(image)}">'


def _small(text: str) -> str:
    return f"<small>{html.escape(text)}</small>" if text else ""


def _encoded(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
