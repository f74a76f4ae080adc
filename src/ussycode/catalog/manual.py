"""The manual: every page of docs/guide, for the lobby's `doc` and the addresses below /docs."""
from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ussycode.access.actions import Action
from ussycode.base.errors import ErrorCode, Kind
from ussycode.cmdline.render import Style, reflow, table
from ussycode.cmdline.spec import NOTHING, command, word
from ussycode.ports import Ctx

NO_PAGE = ErrorCode("doc.unknown", Kind.NOT_FOUND, "no page of the manual is about {query}", hint="doc lists all pages")
MAX_PAGE = 256 << 10
"""Bytes of one page that are read."""
_PACKAGE = Path(__file__).parent.parent
# Not resolved: an unprivileged process reaches the code through an open folder and may not walk its real path.
_PLACES = (_PACKAGE / "_data" / "manual", _PACKAGE / ".." / ".." / "docs" / "guide")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Page:
    """One page. `text` is Markdown; `slug` is its name in addresses."""

    slug: str
    title: str
    text: str


@functools.cache
def pages() -> tuple[Page, ...]:
    """All pages by slug; none where the manual was not installed."""
    place = next((p for p in _PLACES if p.is_dir()), None)
    if place is None:
        return ()
    found = (p for p in sorted(place.iterdir()) if p.suffix == ".md" and _SLUG.fullmatch(p.stem))
    return tuple(_page(path.stem, path.read_text()[:MAX_PAGE]) for path in found)


def page(slug: str) -> Page | None:
    """The page with exactly this slug."""
    return next((p for p in pages() if p.slug == slug), None)


def search(words: Sequence[str]) -> tuple[Page, ...]:
    """Pages that hold every word: those with all of them in the title first."""
    wanted = [w.casefold() for w in words]
    held = [p for p in pages() if all(w in (p.title + p.text).casefold() for w in wanted)]
    return tuple(sorted(held, key=lambda p: not all(w in p.title.casefold() for w in wanted)))


def whole() -> str:
    """Every page, one after the other."""
    return "\n\n".join(p.text.rstrip() for p in pages()) + "\n"


@functools.cache
def samples() -> Mapping[str, str]:
    """Code that the pages link, by its path below the manual's own folder."""
    place = next((p for p in _PLACES if p.is_dir()), None)
    if place is None:
        return {}
    found = (f for f in sorted((*place.glob("*"), *place.glob("*/*"))) if f.suffix in (".py", ".mjs", ".sh"))
    return {f.relative_to(place).as_posix(): f.read_text()[:MAX_PAGE] for f in found}


def index(home: str) -> str:
    """The list of pages as Markdown, with addresses below `home` (`https://host/`)."""
    return "\n".join(f"- [{p.title}]({home}docs/{p.slug}.md)" for p in pages()) + "\n"


def _page(slug: str, text: str) -> Page:
    heading = next((line for line in text.splitlines() if line.startswith("# ")), f"# {slug}")
    return Page(slug, heading[2:].strip(), text)


@dataclass(frozen=True)
class Doc:
    """Arguments of `doc`."""

    query: tuple[str, ...] = word(
        str, help="a page's slug, or words to look for; omit for the list", many=True, default=(), complete="page"
    )


class PageItem(TypedDict):
    """One page of the list."""

    slug: str
    title: str


class PagesDocument(TypedDict):
    """`doc`: the list of pages."""

    pages: list[PageItem]


class PageDocument(TypedDict):
    """`doc PAGE`: the page itself."""

    slug: str
    title: str
    markdown: str


@dataclass(frozen=True)
class DocView:
    """One page, or a list of them."""

    found: tuple[Page, ...]
    whole: bool

    def text(self, style: Style) -> str:
        """The page itself, or a table of pages."""
        if not self.whole:
            return table(["PAGE", "TITLE"], [[p.slug, p.title] for p in self.found], style)
        (one,) = self.found
        text = reflow(one.text.rstrip(), style.width) if style.folds else one.text.rstrip()
        return f"{style.paint(one.title, 'bold')} (doc {one.slug})\n\n{text}"

    def document(self) -> PagesDocument | PageDocument:
        """The document of `doc`."""
        if not self.whole:
            return {"pages": [{"slug": p.slug, "title": p.title} for p in self.found]}
        (one,) = self.found
        return {"slug": one.slug, "title": one.title, "markdown": one.text}


@command("doc", needs=Action.NOTHING, on=NOTHING, reads_only=True, examples=("doc", "doc first-vm", "doc token"))
async def doc(ctx: Ctx, a: Doc) -> DocView:
    """Read the manual: a list of pages, one page, or the pages that hold some words."""
    if not a.query:
        return DocView(pages(), False)
    named = page("-".join(a.query).lower())
    found = (named,) if named is not None else search(a.query)
    if not found:
        raise NO_PAGE(query=" ".join(a.query))
    return DocView(found, len(found) == 1)
