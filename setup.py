"""Build the wheel: run CMakeLists.txt into a staging prefix and pack what it installed.

The same CMakeLists.txt serves `colcon build`, so the two ways to install cannot drift apart. The
interface libraries travel as data files into ``lib/`` of the environment, where the ROS wheels look
for theirs, and ``share/`` brings the ament index entry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def ros_prefixes() -> list[str]:
    """Return the prefixes with ROS's CMake packages: the wheels' environment, else a sourced ROS.

    Raises
    ------
    SystemExit
        When neither is there; says what to install.
    """
    found: list[str] = []
    for entry in [sys.prefix, *sys.path]:
        folder = Path(entry or ".").resolve()
        for prefix in [folder, *folder.parents[:4]]:
            has_ros = (prefix / "share" / "ament_cmake_core" / "cmake").is_dir()
            if has_ros and str(prefix) not in found:
                found.append(str(prefix))
    if not found:
        found = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if not found:
        raise SystemExit(
            "wam_ros: ROS's build packages were not found. Use `pip install .` (with isolation), "
            "install the build-system requirements of pyproject.toml, or source a ROS installation."
        )
    return found


def cmake_install(stage: Path, build: Path) -> None:
    """Configure, build and install into ``stage``; raises CalledProcessError when a step fails."""
    prefixes = ros_prefixes()
    env = dict(os.environ)
    env["AMENT_PREFIX_PATH"] = os.pathsep.join(prefixes)
    env["CMAKE_PREFIX_PATH"] = os.pathsep.join(prefixes)
    bins = [str(Path(p) / "bin") for p in prefixes]
    env["PATH"] = os.pathsep.join([*bins, str(Path(sys.executable).parent), env.get("PATH", "")])
    # The generators are Python programs that set up their libraries themselves.
    env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    cmake = shutil.which("cmake", path=env["PATH"])
    if cmake is None:
        raise SystemExit("wam_ros: cmake was not found; install it (pip install cmake)")
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=env["PATH"]) else []
    configure = [
        cmake,
        "-S",
        str(ROOT),
        "-B",
        str(build),
        *generator,
        f"-DCMAKE_INSTALL_PREFIX={stage}",
        f"-DPython3_EXECUTABLE={sys.executable}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_INSTALL_LIBDIR=lib",
        "-DCMAKE_INSTALL_MESSAGE=NEVER",
        "-DBUILD_TESTING=OFF",
    ]
    subprocess.run(configure, check=True, env=env)
    subprocess.run([cmake, "--build", str(build), "--target", "install"], check=True, env=env)


def build_folder() -> Path:
    """Return a build folder that is reused only where the environment stays in place.

    Build isolation installs ROS's packages into a new temporary folder each time, and a CMake cache
    that names the last one would be stale.
    """
    stable = Path(sys.prefix).resolve()
    prefixes = [Path(p) for p in ros_prefixes()]
    if all(p.is_relative_to(stable) for p in prefixes):
        key = hashlib.sha256(f"{sys.executable}{sys.version}".encode()).hexdigest()[:10]
        return ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{key}"
    return Path(tempfile.mkdtemp(prefix="wam_ros_build_"))


class CMakeBuild(build_py):
    """Replace setuptools' copy of the sources by what CMake installed."""

    def run(self) -> None:
        build = build_folder()
        stage = build / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        cmake_install(stage, build)
        package = next(stage.glob("lib/python*/*-packages/wam_ros"), None)
        if package is None:
            raise SystemExit(f"wam_ros: CMake installed no Python package under {stage}")
        target = Path(self.build_lib) / "wam_ros"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        data: dict[str, list[str]] = {}
        for path in sorted(p for p in stage.rglob("*") if p.is_file()):
            relative = path.relative_to(stage)
            # bin/wam is the console entry of pyproject.toml; lib/python* was packed above.
            if relative.parts[0] == "bin" or relative.parts[1].startswith("python"):
                continue
            data.setdefault(str(relative.parent), []).append(str(path))
        self.distribution.data_files = list(data.items())

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [str(p) for p in (Path(self.build_lib) / "wam_ros").rglob("*") if p.is_file()]


class BinaryDistribution(Distribution):
    """A distribution whose wheel is tied to one Python version and platform."""

    def has_ext_modules(self) -> bool:
        return True


if __name__ == "__main__":
    if sysconfig.get_platform().startswith("win"):
        raise SystemExit("wam_ros: Windows is not supported; use Linux or WSL")
    setup(
        cmdclass={"build_py": CMakeBuild},
        distclass=BinaryDistribution,
        packages=["wam_ros"],
        # A placeholder, so that the data step runs; CMakeBuild fills in the real list.
        data_files=[("share/wam_ros", ["package.xml"])],
    )
