"""For the site: links that lead out of docs/ go to the repository.

Pages are read on the repository's own site too, where a link such as ``../examples/chat_loop.py`` works as it
stands. mkdocs calls this as a hook.
"""

import logging
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")

_log = logging.getLogger("mkdocs.hooks.site_links")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_others: Any) -> str:
    """Rewrites the links of a page before it is rendered.

    Args:
        markdown: The page.
        page: What mkdocs knows of it.
        config: The configuration of the site.

    Returns:
        The page with links that the site can follow.
    """
    root = Path(config["docs_dir"]).parent
    folder = PurePosixPath("docs", page.file.src_uri).parent

    def rewritten(match: re.Match[str]) -> str:
        target = os.path.normpath(folder / match[1])
        if target.startswith("docs/"):
            return match[0]
        if not (root / target).exists():
            _log.warning("%s links to %s, which is not in the repository", page.file.src_uri, target)
        return f"{config['repo_url']}/blob/main/{target}{match[2] or ''}"

    return _LINK.sub(rewritten, markdown)
