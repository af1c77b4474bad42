"""The package's lists agree: interface files, dependencies and what the installed copy holds."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
INTERFACES = sorted(p for kind in ("msg", "srv", "action") for p in (ROOT / kind).glob(f"*.{kind}"))


@pytest.mark.parametrize("path", INTERFACES, ids=lambda p: p.name)
def test_every_interface_is_built_and_imports(path: Path) -> None:
    listed = f"{path.parent.name}/{path.name}" in (ROOT / "CMakeLists.txt").read_text()
    assert listed, f"{path.name} is not listed in CMakeLists.txt"
    module = import_module(f"wam_ros.{path.parent.name}")
    assert hasattr(module, path.stem), f"{path.stem} was not generated; run `make build`"


def test_generated_message_keeps_its_definition() -> None:
    from wam_ros.msg import ActionChunk

    text = (ROOT / "msg" / "ActionChunk.msg").read_text()
    constants = dict(re.findall(r"^uint8 ([A-Z_]+)=(\d+)", text, flags=re.MULTILINE))
    assert constants
    assert {name: getattr(ActionChunk, name) for name in constants} == {
        name: int(value) for name, value in constants.items()
    }


def test_every_ros_dependency_of_pip_is_declared_for_rosdep() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {e.text for e in package if e.tag.endswith("depend")}
    project = (ROOT / "pyproject.toml").read_text().split("\n[project]\n")[1]
    dependencies = project.split("dependencies = [")[1].split("\n]")[0]
    names = {n.replace("-", "_") for n in re.findall(r'"ros-jazzy-([a-z-]+)', dependencies)}
    assert names
    assert names <= declared, f"missing in package.xml: {sorted(names - declared)}"


def test_versions_agree() -> None:
    import wam_ros

    package = ElementTree.parse(ROOT / "package.xml").getroot()
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert project is not None
    assert package.findtext("version") == project.group(1) == wam_ros.__version__


@pytest.mark.parametrize("node", ["perception", "policy", "executor", "sim"])
def test_ros2_run_finds_an_executable_for_each_node(node: str) -> None:
    script = ROOT / "scripts" / f"{node}_node"
    assert script.stat().st_mode & 0o111, f"{script.name} is not executable"
    assert f"wam_ros.nodes.{node}_node" in script.read_text()
    assert f"scripts/{node}_node" in (ROOT / "CMakeLists.txt").read_text()


def test_node_process_is_stopped_and_shares_the_domain(node_process, domain_id) -> None:
    process = node_process("this")
    assert process.wait(timeout=60) == 0
    assert "Zen of Python" in process.log.read_text()
