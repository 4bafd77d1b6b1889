"""`compare` and `ab` as a user meets them."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlp_accel.bench.gate import launches as gate
from mlp_accel.bench.gate.measures import EPOCH
from mlp_accel.bench.output.gate import gate_table
from mlp_accel.bench.output.markdown import markdown_table
from mlp_accel.cli.ab import ab
from mlp_accel.cli.compare import VERSUS, compare
from mlp_accel.errors import SettingError
from tests.cli.commands import assert_clear_error, run

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tests" / "data" / "bench_schema_1.json"
CURRENT = ROOT / "benchmarks" / "results" / "bench.json"


def test_compare_says_what_differs_before_it_gives_ratios(tmp_path: Path) -> None:
    other = json.loads(BENCH.read_text())
    other["environment"]["cpu"] = "another CPU"
    (tmp_path / "b.json").write_text(json.dumps(other))
    result = run("compare", BENCH, tmp_path / "b.json", "--json", tmp_path / "c.json")
    assert result.returncode == 0, result.stderr
    assert -1 < result.stdout.index("another CPU") < result.stdout.index("not ranked: different machines (cpu)")
    assert result.stdout.index("not ranked") < result.stdout.index("B / A")
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert {row["verdict"] for row in comparison["results"]} == {None}
    same = run("compare", BENCH, BENCH, "--json", "-")
    assert json.loads(same.stdout)["results"][0]["ratio"] == 1
    assert "environments and settings are the same" in same.stderr


def test_compare_names_a_wrong_file(tmp_path: Path) -> None:
    assert_clear_error(run("compare", BENCH, tmp_path / "no.json"), 2, "no.json", "cannot be read")
    assert_clear_error(run("compare", ROOT / "README.md", "--", BENCH), 2, "README.md", "is not JSON")


def files_of_runs(folder: Path, side: str, times: float, spread: float = 0.01) -> list[Path]:
    """Five files as `bench` would write them, whose engine takes so long."""
    paths = []
    for number in range(5):
        content = json.loads(CURRENT.read_text())
        for row in content["results"]:
            if row["epoch_seconds"]:
                row["epoch_seconds"] = {"samples": [times * (1 + spread * number) for _ in range(5)]}
        paths.append(folder / f"{side}{number}.json")
        paths[-1].write_text(json.dumps(content))
    return paths


def test_compare_of_several_files_a_side_fails_with_evidence_alone(tmp_path: Path) -> None:
    a, b = files_of_runs(tmp_path, "a", 1.0), files_of_runs(tmp_path, "b", 1.1)
    result = run("compare", *a, "--", *b, "--fail-above", "5%", "--json", tmp_path / "c.json")
    assert result.returncode == 1, result.stderr
    assert "numpy loop: slower by 10.0%, above 5.0% (p = 0.004)" in result.stdout
    comparison = json.loads((tmp_path / "c.json").read_text())
    assert (comparison["schema"], comparison["files"], len(comparison["a"])) == (3, [5, 5], 5)
    assert {row["verdict"] for row in comparison["results"] if row["ratio"]} == {"B is slower"}
    assert run("compare", "--fail-above", "15%", *a, "--", *b).returncode == 0, "10 % is less than 15 %"
    assert run("compare", "--fail-above", "5%", *b, "--", *a).returncode == 0
    assert run("compare", *a, "--", *b).returncode == 0, "nobody has asked for a verdict"
    few = run("compare", *a[:2], "--", *b[:2], "--fail-above", "5%")
    assert few.returncode == 4
    assert "2 and 2 files can never reach p < 0.01" in few.stdout


def test_compare_as_markdown(tmp_path: Path) -> None:
    a, b = files_of_runs(tmp_path, "a", 1.0), files_of_runs(tmp_path, "b", 1.1)
    result = run("compare", *a, "--", *b, "--format", "markdown")
    rows = [line for line in result.stdout.splitlines() if line.startswith("| numpy loop |")]
    assert rows == ["| numpy loop | 1.0199 | 1.1219 | 1.100 | 1.075–1.125 | 0.004 | B is slower |"]
    assert "| engine | A | B | B / A | 95% interval | p | verdict |" in result.stdout.splitlines()
    assert "- environments and settings are the same" in result.stdout.splitlines()


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ([BENCH], {}, "name two files, or the files of A, then --, then the files of B: compare a*.json -- b*.json"),
        ([BENCH, BENCH, BENCH], {}, "name two files"),
        ([BENCH, VERSUS], {}, "name two files"),
        ([BENCH, VERSUS, BENCH, VERSUS, BENCH], {}, "name two files"),
        ([BENCH, BENCH, VERSUS, BENCH], {}, "stands twice on one side"),
        (
            [BENCH, BENCH],
            {"fail_above": "5"},
            "'5' from --fail-above is no slowdown between 0% and 100%; write for example 3% or 0.03",
        ),
        ([BENCH, BENCH], {"form": "html"}, "unknown format 'html'; choose one of text, markdown"),
    ],
    ids=str,
)
def test_compare_says_what_was_wrong(files: list[object], options: dict[str, str], words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        compare(list(map(str, files)), **options)


def test_what_stands_in_a_file_commands_no_terminal(tmp_path: Path) -> None:
    foreign = json.loads(CURRENT.read_text())
    foreign["environment"]["cpu"] = "\x1b]0;title\x07\x1b[2J\u202ecpu"
    foreign["results"][0]["name"] = "\x1b[31m$numpy|[link](http://x)"
    (tmp_path / "b.json").write_text(json.dumps(foreign))
    for form in ("text", "markdown"):
        result = run("compare", CURRENT, tmp_path / "b.json", "--format", form)
        assert result.returncode == 0, result.stderr
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout
        assert "\\x1b" in result.stdout.replace("\\\\", "\\")
    assert "\\[link\\](http" in result.stdout, "no link of theirs"
    (tmp_path / "b.json").write_text(
        '{"schema": 2, "environment": {}, "config": {"\\u001b[2J": 3, "batch_size": "\\u001b[2J"}, "results": []}'
    )
    result = run("compare", CURRENT, tmp_path / "b.json")
    assert_clear_error(result, 2, "config.batch_size must be a whole number", "\\x1b[2J")
    assert "\x1b" not in result.stderr


def test_compare_of_nothing_that_has_times_is_inconclusive(tmp_path: Path) -> None:
    empty = {**json.loads(BENCH.read_text()), "results": []}
    (tmp_path / "b.json").write_text(json.dumps(empty))
    assert run("compare", BENCH, tmp_path / "b.json").returncode == 4


def test_compare_puts_an_old_file_beside_a_new_one_path_by_path(clouds: Path, tmp_path: Path) -> None:
    new = run(
        "bench",
        "--backends",
        "numpy,numpy-handwritten",
        "--data",
        clouds,
        "--epochs",
        5,
        "--starts",
        1,
        "--json",
        tmp_path / "b.json",
    )
    assert new.returncode == 0, new.stderr
    result = run("compare", BENCH, tmp_path / "b.json", "--json", tmp_path / "c.json")
    assert result.returncode == 0, result.stderr
    ratios = {(row["name"], row["path"]): row["ratio"] for row in json.loads((tmp_path / "c.json").read_text())["results"]}
    assert [key for key, ratio in ratios.items() if ratio] == [("numpy-handwritten", None)]
    assert set(ratios) == {("numpy-handwritten", None), ("numpy", "fused"), ("numpy", "loop"), ("numba", "sparse"), ("cupy", None)}
    assert "numpy fused: in B no row" in result.stdout
    assert "numpy loop: in A no row" in result.stdout


def in_folder(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlp_accel", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the package as it is here in its last commit; the one before it, ``older``, has no harness."""
    root = tmp_path_factory.mktemp("repository") / "checkout"
    root.mkdir()
    shutil.copytree(ROOT / "mlp_accel", root / "mlp_accel", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]

    def git(*command: str) -> None:
        subprocess.run(["git", *identity, *command], cwd=root, check=True)

    git("init", "-q", "-b", "main")
    git("add", "-A", ":!mlp_accel/harness.py")
    git("commit", "-q", "-m", "older")
    git("tag", "older")
    git("add", "-A")
    git("commit", "-q", "-m", "all")
    return root


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base", "nowhere"], ["'nowhere'", "--base", "names no commit"]),
        (["--base", "main", "--launches", "6"], ["--launches must be at least 7; got 6", "p < 0.01"]),
        (["--base", "main", "--rounds", "5"], ["--rounds must be at least 6; got 5"]),
        (["--base", "main", "--threshold", "3"], ["'3'", "--threshold", "3% or 0.03"]),
        (["--base", "main", "--threshold", "0%"], ["'0%'"]),
        (["--base", "main", "--backends", "numpyy"], ["numpyy"]),
        (["--base", "main", "--plot", "a.xyz"], ["a.xyz"]),
        (["--base", "main", "--threads", "0"], ["--threads"]),
        (["--base", "main", "--momentum", "0.9"], ["'sgd' has no setting momentum"]),
        (["--base", "main", "--backends", "numpy", "--path", "sparse"], ["no path 'sparse' of numpy", "--path"]),
        (["--base", "older", "--optimizer", "adam"], ["the base 'older' knows plain SGD alone"]),
        (["--base", "older", "--weight-decay", "0.1"], ["the base 'older' knows plain SGD alone"]),
        (["--base", "older", "--activation", "gelu"], ["does not know the activation 'gelu'", "tanh, relu, sigmoid"]),
        (["--base", "main", "--measure", "taste"], ["measure", "'taste'", "first-start"]),
        (["--base", "main", "--call", "work"], ["--call takes module:function", "'work'"]),
        (["--base", "main", "--call", "work:total", "--measure", "import"], ["no --measure beside it"]),
        ([], ["--base"]),
    ],
    ids=str,
)
def test_ab_says_what_was_wrong(checkout: Path, arguments: list[str], words: list[str]) -> None:
    assert_clear_error(in_folder(checkout, "ab", *arguments), 2, *words)


def test_the_defaults_of_ab_are_those_of_the_gate() -> None:
    """The command does not import the gate, which needs SciPy, until it is used."""
    parameters = inspect.signature(ab).parameters
    assert parameters["launches"].default == gate.LAUNCHES
    assert parameters["measure"].default == EPOCH


def test_ab_needs_a_checkout(tmp_path: Path) -> None:
    assert_clear_error(in_folder(tmp_path, "ab", "--base", "main"), 2, "is not in a git checkout")


def test_ab_builds_and_measures_and_a_head_that_fails_is_inconclusive(checkout: Path, tmp_path: Path) -> None:
    """The whole way once: two builds, workers, files, exit code. A head without a training spares the launches."""
    harness = checkout / "mlp_accel" / "harness.py"
    before = harness.read_text()
    try:
        harness.write_text(f"{before}\ndel MeasuredTraining\n")
        arguments = ("--backends", "numpy", "--json", str(tmp_path / "ab.json"), "--plot", str(tmp_path / "ab.png"))
        result = in_folder(checkout, "ab", "--base", "main", *arguments, TMPDIR=str(tmp_path))
    finally:
        harness.write_text(before)
    if "a build failed" in result.stdout:
        pytest.skip(f"pip cannot build here: {result.stdout}")
    assert result.returncode == 4, result.stderr
    assert "head: AttributeError: module 'mlp_accel.harness' has no attribute 'MeasuredTraining'" in result.stdout
    content = json.loads((tmp_path / "ab.json").read_text())
    assert "inconclusive" in markdown_table(gate_table(content))
    assert content["results"][0]["verdict"] == "inconclusive"
    assert content["config"]["data"] == "mnist"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ab.json", "ab.png"], "temporary files are left"


@pytest.mark.skipif(os.name != "posix", reason="no signals to send")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_ab_with_its_workers_and_temporary_folders(checkout: Path, tmp_path: Path, name: str, code: int) -> None:
    command = [sys.executable, "-m", "mlp_accel", "ab", "--base", "main", "--backends", "numpy", "--rounds", "6"]
    caches = tmp_path / "caches"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "MLP_ACCEL_CACHE_DIR": str(caches)}
    process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "built both" in line or "failed" in line:
            break
    time.sleep(1)
    process.send_signal(getattr(signal, name))
    output, errors = process.communicate(timeout=60)
    if any("a build failed" in line for line in lines):
        pytest.skip(f"pip cannot build here: {lines}")
    assert process.returncode == code, (output, errors)
    assert "Traceback" not in errors
    assert list(temporary.iterdir()) == []
    assert not caches.exists(), "what temporary builds compile goes with them"
    workers = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=False).stdout
    assert str(temporary) not in workers


def test_ab_gates_a_repository_that_is_not_ours(tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    (root / "src").mkdir(parents=True)
    (root / "numbers.txt").write_text("1 2 3")
    source = "from pathlib import Path\ndef total(): return sum(map(int, Path('numbers.txt').read_text().split()))\n"
    (root / "src" / "work.py").write_text(source)
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    (root / "src" / "work.py").write_text(source.replace("return sum", "return 1 + sum"))
    result = in_folder(root, "ab", "--base", "main", "--call", "work:total", "--rounds", "6", "--json", str(tmp_path / "ab.json"))
    assert result.returncode == 4, result.stderr
    assert "work:total: inconclusive: a run failed: head does not compute what base computes" in result.stdout
    (root / "src" / "work.py").write_text(f"# another comment\n{source}")
    arguments = ("--launches", "7", "--rounds", "6", "--threshold", "90%", "--json", str(tmp_path / "ab.json"))
    result = in_folder(root, "ab", "--base", "main", "--call", "work:total", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = json.loads((tmp_path / "ab.json").read_text())["results"]
    assert (row["backend"], row["verdict"]) == ("work:total", "no slowdown found")
