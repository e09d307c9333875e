"""The notebook runs from its first cell to its last, on the embedded model."""

import json
import os
import subprocess
import sys

import pytest

from doc_pages import ROOT

TOUR = ROOT / "docs" / "notebooks" / "tour.ipynb"
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))

if not TOUR.exists():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)


# In a process of its own, since what Jupyter leaves for the garbage collector is not this package's. The kernel is
# reached over sockets in a folder and not over ports, so that notebooks can run side by side.
RUN = """
import os
import sys
import tempfile
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

source, done, folder = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
with tempfile.TemporaryDirectory() as sockets:  # whose paths have to be short
    where = {} if os.name == "nt" else {"transport": "ipc", "ip": sockets + "/kernel"}
    kernel = AsyncKernelManager(kernel_name="python3", **where)
    NotebookClient(notebook, km=kernel, timeout=60, resources={"metadata": {"path": folder}}).execute()
nbformat.write(notebook, done)
"""


def outputs(cell) -> str:
    """What a cell printed or showed."""
    texts = [output.get("text") or output["data"]["text/plain"] for output in cell["outputs"]]
    return "".join(line for text in texts for line in text)


@pytest.fixture
def environment(tmp_path):
    """Nothing of the machine's own configuration of Jupyter counts."""
    folders = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    return {**os.environ, **{name: str(tmp_path / name) for name in folders}}


def test_the_tour_runs(tmp_path, environment):
    for package in ("ipykernel", "nbclient"):
        pytest.importorskip(package)
    done = tmp_path / "done.ipynb"
    ran = subprocess.run(
        [sys.executable, "-c", RUN, TOUR, done, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    notebook = json.loads(done.read_text(encoding="utf-8"))

    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(outputs(cell) for cell in code)
    printed = "".join(map(outputs, code))
    assert "3, 4, 5, 6, 7, 8, 9, 10, 11, 12" in printed
    assert printed.count("Your word is lantern.") >= 2
    assert printed.endswith("True")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_what_it_printed(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
