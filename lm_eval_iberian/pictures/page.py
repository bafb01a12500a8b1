"""report.html: one file, no script, no request; for phones and desks, light and dark, screen readers and paper."""

from __future__ import annotations

from lm_eval_iberian.pictures import html
from lm_eval_iberian.pictures import page_differences as changes
from lm_eval_iberian.pictures import page_pictures as pictures
from lm_eval_iberian.pictures import page_tables as figures
from lm_eval_iberian.pictures import page_texts as texts
from lm_eval_iberian.pictures.gathered import Gathered
from lm_eval_iberian.pictures.head import head
from lm_eval_iberian.pictures.html import section, text


def page(found: Gathered) -> str:
    """The whole page."""
    sections = [
        ("curves", "The sweep", pictures.curves(found)),
        ("tradeoff", "Trade-off", pictures.tradeoffs(found)),
        ("methods", "Every merge at a glance", figures.heat(found.heat)),
        ("tables", "Tables", figures.tables(found)),
        ("differences", "Differences to the parents", changes.differences(found)),
        ("answers", "Answers side by side", texts.answers(found)),
        ("signatures", "What was measured", texts.signatures(found)),
    ]
    there = [(slug, title, body) for slug, title, body in sections if body]
    links = "".join(f'<li><a href="#{slug}">{text(title)}</a></li>' for slug, title, _ in there)
    body = "".join(section(slug, title, part) for slug, title, part in there)
    return html.document(
        f"{found.run.name}: a sweep of merges",
        f'<a class="skip" href="#content">To the content</a>{head(found)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="content">{body}</main>'
        "<footer><p>Made by <code>iberian report</code> from the run folder alone; the same store gives the same page. "
        "Pictures (SVG, PNG) and tables (Markdown, CSV, LaTeX) lie beside it.</p></footer>",
    )
