"""What papermill injects is checked against what the notebook declares."""

from pathlib import Path

import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from david.runs.parameters import check_parameters

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

DECLARED = "dataset: str = 'motions'  # which data\nseeds = [0, 1]  # of the distillation"


def test_names_that_are_declared_pass():
    check_parameters(["", DECLARED, "# Parameters\nseeds = [7]\n", "import david"])
    check_parameters(["", DECLARED, "import david"])  # run by hand: nothing was injected


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no parameter 'sedes'; did you mean 'seeds'"):
        check_parameters(["", DECLARED, "# Parameters\nsedes = [7]\n"])
    with pytest.raises(ValueError, match="no parameter 'x'; it has dataset, seeds"):
        check_parameters(["", DECLARED, "# Parameters\nx = 1\n"])


def test_a_notebook_stops_at_an_unknown_parameter(tmp_path):
    source, target = NOTEBOOKS / "02-table-1.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError, match="no parameter 'seed'; did you mean 'seeds'"):
        papermill.execute_notebook(source, target, {"seed": 3}, cwd=tmp_path, progress_bar=False)
