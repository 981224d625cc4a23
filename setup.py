"""Builds the native programs into the package, so that an installed stoker is complete."""

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


class BuildWithNative(build_py):
    """Runs make in native/ and ships what it made as stoker/_native."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        subprocess.run(["make", "-s", "-C", str(HERE / "native")], check=True)
        target = Path(self.build_lib) / "stoker" / "_native"
        target.mkdir(parents=True, exist_ok=True)
        for program in (HERE / "native" / "bin").glob("stoker-*"):
            shutil.copy2(program, target)


setup(cmdclass={"build_py": BuildWithNative})
