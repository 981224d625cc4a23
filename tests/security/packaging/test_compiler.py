"""A compiler that hostile sources took over reads its tree and its interpreter, and makes files in one folder."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stoker.packaging import landlock

pytestmark = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")

INTERPRETER = os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def confined(code: str, folder: Path) -> str:
    """What ``code`` prints in the interpreter that a confined launcher became."""
    for name in ("tree", "out"):
        (folder / name).mkdir(exist_ok=True)
    script = textwrap.dedent(
        f"""
        import os
        from stoker.packaging.confinement import confine_compiler
        assert confine_compiler({INTERPRETER!r}, {str(folder / "tree")!r}, {str(folder / "out")!r})
        os.execve({INTERPRETER!r}, [{INTERPRETER!r}, "-I", "-S", "-c", {textwrap.dedent(code)!r}], {{}})
        """
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ESCAPES = {
    "read": "open(secret)",
    "read a system file": "open('/etc/passwd')",
    "list": "os.listdir(folder)",
    "overwrite": "open(secret, 'w')",
    "create beside": "open(folder + '/new', 'w')",
    "change a source": "open(folder + '/tree/a.py', 'a')",
    "add a source": "open(folder + '/tree/new.py', 'w')",
    "remove a source": "os.unlink(folder + '/tree/a.py')",
    "link a source out": "os.link(folder + '/tree/a.py', folder + '/out/1')",
    "symbolic link": "os.symlink('/etc', folder + '/out/1')",
    "folder": "os.mkdir(folder + '/out/1')",
    "read what was made": "open(folder + '/out/0')",
    "move out": "os.rename(folder + '/out/0', folder + '/tree/b.py')",
    "run what it made": "os.chmod(folder + '/out/0', 0o700); os.execv(folder + '/out/0', ['0'])",
    "signal the service": "os.kill(os.getppid(), 0)",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_it_reaches_no_file_but_what_it_needs(tmp_path: Path, name: str) -> None:
    if name == "signal the service" and landlock.version() < 6:
        pytest.skip("this kernel's Landlock does not know signals")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text("x = 1")
    (tmp_path / "master.key").write_text("secret")
    output = confined(
        f"""
        import os
        folder, secret = {str(tmp_path)!r}, {str(tmp_path / "master.key")!r}
        assert open(folder + "/tree/a.py").read() == "x = 1"
        os.close(os.open(folder + "/out/0.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.rename(folder + "/out/0.part", folder + "/out/0")
        try:
            {ESCAPES[name]}
            print("escaped")
        except OSError as problem:
            print(type(problem).__name__)
        """,
        tmp_path,
    )
    assert output in ("PermissionError", "OSError")
    assert (tmp_path / "master.key").read_text() == "secret"
    assert (tmp_path / "tree" / "a.py").read_text() == "x = 1"
    assert os.listdir(tmp_path / "out") == ["0"]
    assert os.listdir(tmp_path / "tree") == ["a.py"]


def test_it_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        output = confined(
            f"""
            import socket
            try:
                socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}), 2)
                print("connected")
            except OSError:
                print("refused")
            """,
            tmp_path,
        )
    if output == "connected" and landlock.version() < 4:
        pytest.skip("this host gives unprivileged processes no network namespace and its Landlock has no TCP")
    assert output == "refused"


def test_its_limits_hold(tmp_path: Path) -> None:
    output = confined(
        """
        import resource
        limits = [resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC]
        print([resource.getrlimit(limit)[1] for limit in limits], resource.getrlimit(resource.RLIMIT_CPU)[0] <= 61)
        """,
        tmp_path,
    )
    assert output == "[64, 0, 0] True"
    wrote = confined(
        f"""
        import os
        file = os.open({str(tmp_path / "out" / "0")!r}, os.O_WRONLY | os.O_CREAT)
        os.lseek(file, 16 * 1024**2, 0)
        try:
            os.write(file, b"x")
        except OSError as problem:
            print(problem.strerror)
        """,
        tmp_path,
    )
    assert wrote == "File too large"
