"""Which files of a folder are deployed, and the archive made of them: equal files give equal bytes."""

import fnmatch
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from stoker.cli.output import size
from stoker.core.errors import StokerError

UNPACKED_BYTES_MAX = 262_144_000
UPLOAD_BYTES_MAX = 52_428_800
"""Lambda's quotas, checked here so that nothing is built, copied or sent in vain."""

SKIPPED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".idea", ".vscode"}
)
SKIPPED_FILES = frozenset({".DS_Store", ".git", ".stokerignore"})
IGNORE_FILE = ".stokerignore"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every member's time, so that equal folders give equal archives and equal CodeSha256."""
BIGGEST_SHOWN = 3
COPY_BYTES = 1024 * 1024


class SourceError(StokerError):
    """The folder cannot be deployed as it is."""


def ignore_patterns(root: Path) -> list[str]:
    """The lines of .stokerignore: shell patterns for a name, or for a path from the folder on."""
    try:
        lines = (root / IGNORE_FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]


def selected(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Files and symbolic links to deploy, relative to ``root`` and sorted.

    Version control, caches, virtual environments and what ``patterns`` match are left out.

    Raises:
        SourceError: a link leads out of the folder, where a sandbox has nothing.
    """
    found = sorted(_walk(root, patterns))
    for name in found:
        _check_link(root, name)
    return found


def check_size(root: Path, names: Sequence[Path]) -> None:
    """Raises SourceError, naming the biggest files, where Lambda would refuse the unpacked size."""
    sizes = {name: (root / name).lstat().st_size for name in names}
    total = sum(sizes.values())
    if total > UNPACKED_BYTES_MAX:
        biggest = sorted(sizes, key=lambda name: -sizes[name])[:BIGGEST_SHOWN]
        listed = ", ".join(f"{name} ({size(sizes[name])})" for name in biggest)
        raise SourceError(
            f"{root} holds {size(total)}, more than the {size(UNPACKED_BYTES_MAX)} that a function may "
            f"have; the biggest: {listed}. {IGNORE_FILE} names what to leave out"
        )


def check_archive(archive: Path) -> None:
    """Raises SourceError for an archive larger than an upload may be."""
    if (count := archive.stat().st_size) > UPLOAD_BYTES_MAX:
        raise SourceError(
            f"the archive has {size(count)}; an upload may have {size(UPLOAD_BYTES_MAX)}. Leave files out "
            f"({IGNORE_FILE}), or put it into S3: aws lambda create-function --code S3Bucket=...,S3Key=..."
        )


def copy(root: Path, names: Sequence[Path], target: Path) -> None:
    """Copy these files with their modes; links stay links."""
    target.mkdir()
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name, follow_symlinks=False)


def write_archive(root: Path, archive: Path) -> None:
    """Zip every file below ``root``, in order, with times and modes evened out."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as output:
        for name in sorted(_walk(root, ())):
            _add(output, root, name)


def _walk(root: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if not _skipped_folder(here / name, root, patterns)]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in (*files, *links):
            path = here / name
            if name in SKIPPED_FILES or _matches(path, root, patterns):
                continue
            if stat.S_ISREG(mode := path.lstat().st_mode) or stat.S_ISLNK(mode):
                yield path.relative_to(root)


def _skipped_folder(path: Path, root: Path, patterns: Sequence[str]) -> bool:
    if path.name in SKIPPED_FOLDERS or (path / "pyvenv.cfg").exists():
        return True
    return path.match("node_modules/.cache") or _matches(path, root, patterns)


def _matches(path: Path, root: Path, patterns: Sequence[str]) -> bool:
    relative = path.relative_to(root).as_posix()
    return any(fnmatch.fnmatch(path.name, each) or fnmatch.fnmatch(relative, each) for each in patterns)


def _check_link(root: Path, name: Path) -> None:
    path = root / name
    if not path.is_symlink():
        return
    if path.readlink().is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(
            f"{path} is a link to {path.readlink()}, outside of the folder or absolute, which a sandbox does "
            f"not see; copy what it points to, or leave it out ({IGNORE_FILE})"
        )


def _add(output: zipfile.ZipFile, root: Path, name: Path) -> None:
    file = root / name
    member = zipfile.ZipInfo(name.as_posix(), EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    if file.is_symlink():
        member.external_attr = 0o120777 << 16
        output.writestr(member, str(file.readlink()))
        return
    executable = file.stat().st_mode & 0o111
    member.external_attr = (0o100755 if executable else 0o100644) << 16
    with file.open("rb") as content, output.open(member, "w", force_zip64=True) as packed:
        shutil.copyfileobj(content, packed, COPY_BYTES)
