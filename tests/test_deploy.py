"""Container recipes and job files: linted, and their commands are ones that the programs understand."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))
BATCH = [*sorted(DEPLOY.glob("*.sbatch")), ROOT / "extract" / "engines" / "extract.sbatch"]


def understood(line: str) -> None:
    """Parse a command line as the program itself would."""
    program, *words = shlex.split(line)
    commands = importlib.import_module(f"{program}.cli").COMMANDS
    name, *rest = words if words and words[0] in commands else ["run", *words]
    parser = argparse.ArgumentParser(prog=f"{program} {name}")
    importlib.import_module(commands[name].module).add_arguments(parser)
    parser.parse_args(rest)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_clean(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "the extra 'test' installs it"
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*DOCKERFILES, DEPLOY / "closerlook.def"], ids=lambda path: path.name)
def test_a_recipe_installs_extras_that_exist(path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"pip install .*\[([\w,-]+)\]'", path.read_text())
    assert set(named.split(",")) <= set(extras)
    assert ("extract" in named) == (path.name != "Dockerfile.laptop")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_container_is_not_run_as_root(path: Path) -> None:
    lines = path.read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("root", "0")


@pytest.mark.parametrize("path", [*DOCKERFILES, *sorted(DEPLOY.glob("*.def"))], ids=lambda path: path.name)
def test_the_commands_in_a_header_are_understood(path: Path) -> None:
    text = re.sub(r"\\\n#\s*", "", path.read_text())
    found = re.findall(r"#   (?:docker run|apptainer exec).*? ((?:extract|analyze) .*)", text)
    assert found
    for line in found:
        understood(line)


@pytest.mark.parametrize("path", BATCH, ids=lambda path: path.name)
def test_a_batch_file_is_shell_whose_command_is_understood(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = re.sub(r"\\\n\s*", "", path.read_text())
    (line,) = re.findall(r"^srun (.*)$", text, re.MULTILINE)
    line = re.sub(r"\$\{\w+:-([^}$]*)\}", r"\1", line)
    line = line.replace("$SLURM_ARRAY_TASK_ID", "3").replace("${SHARDS:-$SLURM_ARRAY_TASK_COUNT}", "16")
    understood(line.replace("$SLURM_CPUS_PER_TASK", "16"))


def test_the_ray_job_runs_a_command_that_is_understood_on_gpus() -> None:
    job = yaml.safe_load((DEPLOY / "ray-job.yaml").read_text())
    understood(job["spec"]["entrypoint"])
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in workers["template"]["spec"]["volumes"]}


def test_the_build_context_leaves_out_what_is_made(tmp_path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    made = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()} - {"__pycache__", "*.egg-info"}
    missing = {name for name in made if name not in ignored and not name.startswith((".i", "docs/"))}
    assert not missing
