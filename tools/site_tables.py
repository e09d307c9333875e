"""For the site: a class for each cell of the comparison that says yes, partly or no, so that it can be coloured.

mkdocs calls this as a hook.
"""

import re
from typing import Any

_CELL = re.compile(r"<td([^>]*)>((?:<strong>)?([YPN])(?:</strong>)?)</td>")


def on_page_content(html: str, *, page: Any, **_others: Any) -> str:
    """Adds the classes ``cell-y``, ``cell-p`` and ``cell-n``.

    Args:
        html: The rendered page.
        page: The page as mkdocs describes it.

    Returns:
        The page with the classes, if it is the comparison.
    """
    if page.file.src_uri != "comparison.md":
        return html
    return _CELL.sub(lambda cell: f'<td{cell[1]} class="cell-{cell[3].lower()}">{cell[2]}</td>', html)
