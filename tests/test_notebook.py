"""The notebook runs from its first cell to its last, on the embedded model."""

import json

import pytest

from doc_pages import ROOT

TOUR = ROOT / "docs" / "notebooks" / "tour.ipynb"
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))

if not TOUR.exists():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)


def outputs(cell) -> str:
    """What a cell printed or showed."""
    shown = [output.get("text") or output["data"]["text/plain"] for output in cell.get("outputs", [])]
    return "".join(shown)


# A kernel is a process of its own, whose warnings and threads are not this package's.
@pytest.mark.filterwarnings("default")
def test_the_tour_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import AsyncKernelManager

    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    notebook = nbformat.read(TOUR, as_version=4)
    # Over sockets in a folder and not over ports, so that notebooks can run side by side.
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(tmp_path / "kernel"))
    client.NotebookClient(
        notebook, km=kernel, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
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
