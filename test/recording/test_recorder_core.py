"""The recorder's parts without ROS: keys, warnings, disk, file layout, repair."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import Scene

from wam_ros.contract import load_contract
from wam_ros.recording import metadata, screen
from wam_ros.recording.bag import BagWriter
from wam_ros.recording.definitions import DefinitionMissing, definition
from wam_ros.recording.episode import Episode
from wam_ros.recording.keyboard import Keys
from wam_ros.recording.metadata import Topic
from wam_ros.recording.monitor import DiskGuard, TopicMonitor, header_stamp
from wam_ros.recording.reader import BagReader
from wam_ros.recording.recorder import Arrival, Recorder, RecorderError, Settings
from wam_ros.recording.repair import repair, repair_all

TEXT = Path(load_contract("yam").path).read_text()


class FakeRecorder:
    """Answers as a recorder would and notes the calls."""

    def __init__(self) -> None:
        self.status = {"recording": "false", "episodes": "0"}
        self.calls: list[tuple[str, str]] = []

    def start(self, instruction: str = "") -> tuple[bool, str]:
        self.calls.append(("start", instruction))
        self.status["recording"] = "true"
        return True, "recording x"

    def stop(self, verdict: str, note: str = "") -> tuple[bool, str]:
        self.calls.append(("stop", verdict))
        self.status["recording"] = "false"
        return True, f"x: {verdict}"


def test_keys_do_what_they_say() -> None:
    client = FakeRecorder()
    keys = Keys(client, "fold it")
    assert keys.press(" ") and client.calls == [("start", "fold it")]
    assert keys.press("q"), "an episode that runs is not left behind"
    assert keys.press(" ") and keys.asking and len(client.calls) == 1
    shown = screen.lines(keys, client.status, 80, 24)
    assert "How did it go?" in [t for t, _ in shown]
    keys.press("s")
    assert client.calls[-1] == ("stop", "success") and not keys.asking
    keys.press("d")
    assert len(client.calls) == 2, "d ends a running episode only"
    keys.press("u")
    assert client.calls[-1] == ("stop", "discard")
    keys.press(" ")
    keys.press("u")
    assert client.calls[-1][0] == "start", "u never touches the running episode"
    keys.press("d")
    assert client.calls[-1] == ("stop", "discard")
    assert not keys.press("q")


def stamped(seconds: float) -> bytes:
    return b"\x00\x01\x00\x00" + struct.pack("<iI", int(seconds), round(seconds % 1 * 1e9))


def test_header_stamp() -> None:
    assert header_stamp(stamped(12.25)) == 12.25
    assert header_stamp(b"\x00\x01\x00") is None
    assert header_stamp(b"\x00\x00" + b"\x00" * 20) is None, "big-endian is not guessed at"


def test_warnings_name_the_topic_and_the_fault() -> None:
    never = TopicMonitor("/camera/top", rate=30.0)
    assert never.warning(0.5, 0.0) == ""
    assert "nothing on /camera/top yet" in never.warning(3.0, 0.0)
    slow = TopicMonitor("/camera/top", rate=30.0)
    for k in range(30):
        slow.add(k / 15, b"", k)
    assert "comes at 15.0 Hz, the contract says 30" in slow.warning(2.0, 0.0)
    assert "is silent for" in slow.warning(5.0, 0.0)
    lossy = TopicMonitor("/camera/top", rate=None, stamped=True)
    sent = [k for k in range(60) if k % 4 != 3]
    for k in sent:
        lossy.add(k / 30, stamped(100 + k / 30), k)
    assert "% of the frames on /camera/top are lost" in lossy.warning(2.0, 0.0)
    assert lossy.lost == sent[-1] + 1 - len(sent)


def test_disk_guard(tmp_path: Path) -> None:
    assert DiskGuard(tmp_path / "not" / "yet", 1).problem() == ""
    assert "are kept: make room" in DiskGuard(tmp_path, 10**18).problem()


def test_the_disk_guard_ends_a_running_episode(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    core = Recorder(Settings(tmp_path), lambda t: Episode("yam", TEXT, t), said.append)
    folder = core.start("x", [Topic("/a", "std_msgs/msg/String")], {}, set())
    core.put([Arrival("/a", b"\x00\x01\x00\x00\x01\x00\x00\x00\x00", 10, 10, 0, 0.5)])
    monkeypatch.setattr(DiskGuard, "problem", lambda self: "only 0.1 GB free")
    for _ in range(100):
        if said:
            break
        time.sleep(0.1)
    assert said == ["recording stopped: only 0.1 GB free"]
    assert not core.recording and BagReader(folder).files
    custom = metadata.read(folder)["custom_data"]
    assert custom["wam_verdict"] == "interrupted" and "0.1 GB" in custom["wam_note"]
    with pytest.raises(RecorderError, match="GB free"):
        core.start("x", [], {}, set())


def test_a_batch_goes_in_as_it_came_and_strangers_do_not(tmp_path: Path) -> None:
    said: list[str] = []
    core = Recorder(
        Settings(tmp_path),
        lambda t: Episode("yam", TEXT, t),
        on_thread=lambda: said.append("writer"),
    )
    kind = "std_msgs/msg/String"
    core.put([Arrival("/a", b"early", 1, 1, 0, 0.0)])  # nothing runs: dropped
    folder = core.start("x", [Topic("/a", kind), Topic("/b", kind)], {}, set())
    sent = [Arrival(f"/{'ab'[k % 2]}", b"%d" % k, 10 + k, 5, k // 2, k / 10) for k in range(40)]
    core.put(sent[:25])
    core.put([Arrival("/c", b"?", 36, 5, 0, 2.6), *sent[25:]])
    core.stop("success")
    found = [(m.topic, m.data, m.log_ns, m.sequence) for m in BagReader(folder).messages()]
    assert found == [(a.topic, a.data, a.log_ns, a.sequence) for a in sent]
    assert core.loss() == {"/a": (20, 0), "/b": (20, 0)} and said == ["writer"]


def test_definitions_hold_every_type_they_use() -> None:
    text = definition("sensor_msgs/msg/Image")
    assert "uint32 height" in text.split("=" * 80)[0]
    for used in ("std_msgs/Header", "builtin_interfaces/Time"):
        assert f"MSG: {used}\n" in text
    assert text.count("MSG: builtin_interfaces/Time\n") == 1
    with pytest.raises(DefinitionMissing, match="source the workspace that has 'genie_msgs'"):
        definition("genie_msgs/msg/HeadState")


def test_two_recorders_never_share_a_folder(tmp_path: Path) -> None:
    BagWriter(tmp_path / "a", Episode("yam", TEXT)).close("none")
    with pytest.raises(FileExistsError):
        BagWriter(tmp_path / "a", Episode("yam", TEXT))


def test_a_bag_being_written_is_not_repaired(tmp_path: Path) -> None:
    bag = BagWriter(tmp_path / "a", Episode("yam", TEXT))
    assert repair(tmp_path / "a") is None
    bag.close("none")
    assert repair_all(tmp_path) == []


@settings(max_examples=15, deadline=None)
@given(st.floats(0.02, 0.999))
def test_repair_keeps_a_prefix_whatever_the_cut(tmp_path_factory, share: float) -> None:
    """Cut anywhere: what remains is a prefix of what was recorded, and a whole bag."""
    root = tmp_path_factory.mktemp("cut")
    folder = Scene(seconds=1.0, size=(160, 120)).write(root / "bag")
    whole = [(m.topic, m.log_ns, m.data) for m in BagReader(folder).messages()]
    mcap = next(folder.glob("*.mcap"))
    with mcap.open("r+b") as f:
        f.truncate(int(mcap.stat().st_size * share))
    (folder / "metadata.yaml").unlink()
    found = repair(folder)
    if found is None:
        assert share < 0.9, "a file with whole chunks must give messages"
        return
    mended = BagReader(folder)
    kept = [(m.topic, m.log_ns, m.data) for m in mended.messages()]
    assert kept == whole[: len(kept)] and len(kept) == found.messages
    assert not mended.truncated
    info = metadata.read(folder)
    assert info["message_count"] == len(kept)
