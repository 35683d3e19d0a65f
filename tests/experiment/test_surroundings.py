"""The main job in odd surroundings: it trains, tests, draws, and says nothing that a user could not read.

A process for each, on 24 images; most are slow for the quick suite, since Python has to start.
"""

import fcntl
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.helpers.tiny_command import tiny_command, tiny_set

ROOT = Path(__file__).parents[2]
ODD = b"caf\xe9 \xea\xb3\xa0\n"                         # Latin-1, a Korean character as UTF-8, the end of a line
DONE = {"best.safetensors", "last.safetensors", "metrics.jsonl", "test.json", "conv1.png", "curves.png",
        "predictions.png"}
MORE = {"previous.safetensors"}                         # of runs that have saved twice
NOBODY = 65534
QUICK = {"a notebook's background job"}
NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
PLAIN = ["-m", "minicnn.cli"]
IN_GROUPS = ("import sys; from pathlib import Path; from minicnn.system import container; "
             "container.ROOT, container.OWN = Path('groups'), Path('groups/own'); "
             "from minicnn.cli.main import main; sys.exit(main())")

# name -> environment (None: not set), what Python gets, in what the shell starts it
SURROUNDINGS = {
    "a notebook's background job": (NOTEBOOK, PLAIN, "{} <&- >&- 2>&-"),
    "a notebook": (NOTEBOOK, PLAIN, "{}"),
    "closed streams": ({}, PLAIN, "{} <&- >&- 2>&-"),
    "a closed stdout": ({}, PLAIN, "{} >&-"),
    "a full disk under the log": ({}, PLAIN, "{} >/dev/full 2>&1"),
    "a reader that has gone": ({}, PLAIN, "set -o pipefail; {} 2>&1 | head -n 1"),
    "ascii": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, PLAIN, "{}"),
    "strict ascii": ({"PYTHONIOENCODING": "ascii:strict"}, PLAIN, "{}"),
    "strict UTF-8": ({"PYTHONIOENCODING": "utf-8:strict"}, PLAIN, "{}"),
    "no home": ({"HOME": None, "XDG_CACHE_HOME": None}, PLAIN, "{}"),
    "a home that cannot be written to": ({"HOME": "/proc/nowhere", "XDG_CACHE_HOME": None}, PLAIN, "{}"),
    "-O": ({}, ["-O", *PLAIN], "{}"),
    "-OO": ({}, ["-OO", *PLAIN], "{}"),
    "-W error": ({}, ["-W", "error", *PLAIN], "{}"),
    "a small stack": ({}, PLAIN, "ulimit -s 1024; {}"),
    "few files": ({}, PLAIN, "ulimit -n 64; {}"),
    "half a processor": ({}, ["-c", IN_GROUPS], "{}"),
    "one thread of Numba's": ({"NUMBA_NUM_THREADS": "1"}, PLAIN, "{}"),
    "more threads of Numba's than cores": ({"NUMBA_NUM_THREADS": "64"}, PLAIN, "{}"),
    "no folder for compiled kernels": ({"NUMBA_CACHE_DIR": "/proc/nowhere"}, PLAIN, "{}"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Its images have class and file names that are of no encoding, and one of them is none."""
    root = tmp_path_factory.mktemp("odd")
    tiny_set(root)
    for part in ("train", "val", "test"):
        os.rename(root / "set" / part / "checks", os.path.join(os.fsencode(root / "set" / part), ODD))
    Path(os.fsdecode(os.path.join(os.fsencode(root / "set/train"), ODD, ODD + b".png"))).write_bytes(b"no image")
    (root / "groups").mkdir()
    for name, text in (("own", "0::/"), ("cpu.max", "50000 100000"), ("memory.max", "max"), ("memory.current", "0"),
                       ("memory.stat", "")):
        (root / "groups" / name).write_text(text)
    return root


def environment(changes):
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **changes}
    return {name: value for name, value in given.items() if value is not None}


def check(root, name, code, errors):
    assert code == 0 and "Traceback" not in errors, errors
    assert set(os.listdir(root / "runs" / name)) - MORE == DONE


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
                                  for name in SURROUNDINGS])
def test_it_trains(root, name):
    changes, python, shell = SURROUNDINGS[name]
    words = shlex.join([sys.executable, *python, *tiny_command(root, f"--run-name={name}")])
    ended = subprocess.run(["bash", "-c", shell.format(words)], env=environment(changes), cwd=root,
                           capture_output=True, timeout=300)
    check(root, name, ended.returncode, ended.stderr.decode(errors="replace"))


@pytest.mark.slow
@pytest.mark.parametrize("columns", [0, 1, 80])
def test_it_trains_in_a_terminal_of_any_width(root, columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    process = subprocess.Popen([sys.executable, *PLAIN, *tiny_command(root, "--run-name", f"wide {columns}")],
                               env=environment({}), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = _read_all(ours)
    check(root, f"wide {columns}", process.wait(300), said)


def _read_all(descriptor) -> str:
    said = b""
    while True:
        try:
            found = os.read(descriptor, 65536)
        except OSError:                                 # the other side was closed
            found = b""
        if not found:
            os.close(descriptor)
            return said.decode(errors="replace")
        said += found


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_it_trains_as_another_user(root, tmp_path_factory):
    """Who has no home, no name, and may write into the folder of the runs alone."""
    for folder in (root, *root.parents[:2]):            # pytest's own are for its user alone
        os.chmod(folder, 0o755)
    os.makedirs(root / "runs", exist_ok=True)
    os.chmod(root / "runs", 0o777)
    started = [sys.executable, *PLAIN, *tiny_command(root, "--run-name", "another user")]
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    where = environment({"HOME": "/nonexistent", "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": str(root / "runs/numba")})
    try:
        subprocess.run([sys.executable, "-c", "import minicnn"], env=where, check=True, capture_output=True, **who)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("another user cannot read this installation")
    ended = subprocess.run(started, env=where, capture_output=True, text=True, timeout=300, **who)
    check(root, "another user", ended.returncode, ended.stderr)


@pytest.mark.slow
def test_the_limits_of_a_container(root):
    """Are printed in the first lines; too little memory is an error, and no kill by the system."""
    words = [sys.executable, "-c", IN_GROUPS, *tiny_command(root, "--run-name", "in a container")]

    def run(memory):
        (root / "groups/memory.max").write_text(memory)
        return subprocess.run(words, env=environment({}), cwd=root, capture_output=True, text=True, errors="replace")

    ended = run("99999")
    assert ended.returncode == 2 and "needs" in ended.stderr and "0 MiB are free; " in ended.stderr
    assert ended.stderr.count("\n") == 1 and not (root / "runs/in a container").exists()
    ended = run("2147483648")
    assert "cpu, 1 of 1 cores" in ended.stdout and "predicted for a step, 2.0 GiB free" in ended.stdout
    check(root, "in a container", ended.returncode, ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("example", ["alexnet_imagenet", "cifar10"])
def test_examples_without_docstrings(example):
    ended = subprocess.run([sys.executable, "-OO", ROOT / f"examples/{example}.py", "--help"], env=environment({}),
                           capture_output=True, text=True)
    assert ended.returncode == 0 and "--epochs" in ended.stdout


@pytest.mark.slow
def test_without_the_compiler(root):
    ended = subprocess.run([sys.executable, *PLAIN, "train", "alexnet", "--data", root / "set", "--out", root / "none"],
                           env=environment({"NUMBA_DISABLE_JIT": "1"}), capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith("error: device 'cpu': NUMBA_DISABLE_JIT is set")
    assert ended.stderr.count("\n") == 1 and not (root / "none").exists()


@pytest.mark.parametrize(("name", "value", "line"), [
    ("NUMBA_NUM_THREADS", "0", "NUMBA_NUM_THREADS=0 is ignored: expected 1 or more; minicnn takes --threads"),
    pytest.param("NUMBA_NUM_THREADS", "abc", "'NUMBA_NUM_THREADS' is defined but its associated value 'abc' could not",
                 marks=pytest.mark.slow),
    pytest.param("NUMBA_OPT", "fast", "'NUMBA_OPT' is defined but its associated value 'fast' could not be parsed",
                 marks=pytest.mark.slow)])
def test_a_setting_that_numba_cannot_use_is_one_line(name, value, line):
    ended = subprocess.run([sys.executable, *PLAIN, "models", "alexnet"], env=environment({name: value}),
                           capture_output=True, text=True)
    assert ended.returncode == 0 and line in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.slow
def test_two_commands_begin_at_once(root):
    """Each in a folder of its own, with a line of its own for the page that both write."""
    started = [[sys.executable, *PLAIN, *tiny_command(root, "--out", f"{root / 'two'}", "--device", "reference",
                                                      "--results", f"{root / 'two/page'}", "--seed", seed)]
               for seed in "01"]
    processes = [subprocess.Popen(words, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, errors="replace") for words in started]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted(os.listdir(root / "two")) == ["page.json", "page.md", "set-tiny-1", "set-tiny-2"]
    for number in (1, 2):
        assert set(os.listdir(root / f"two/set-tiny-{number}")) - MORE == DONE
    assert (root / "two/page.md").read_text().count("| set | 2 | 16 |") == 2
    shutil.rmtree(root / "two")
