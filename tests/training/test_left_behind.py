"""The first `fit` of a process imports Lightning; what that changes for everything else is in its docstring."""

import json
import subprocess
import sys
from pathlib import Path

from semipyro.inference import fit

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = """
import json
import sys

sys.path.insert(0, {tests!r})
from helpers.process_state import process_state
from helpers.training_runs import Line, line_batches
from semipyro.inference import fit

objective = Line()
before = process_state()
fit(objective, line_batches(), epochs=1)
after = process_state()
print(json.dumps([name for name in before | after if before.get(name) != after.get(name)]))
"""


def test_the_first_fit_leaves_nothing_behind_but_what_its_docstring_names(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(TESTS)))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    changed = json.loads(done.stdout)
    assert changed  # Lightning's logger, which it makes at its import
    assert not [name for name in changed if f"`{name.removeprefix('logger ')}`" not in fit.__doc__]
