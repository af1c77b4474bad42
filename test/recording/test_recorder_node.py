"""The recorder as a real node: episodes by service, by instruction, through a crash."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from robot import YAM, Robot
from std_msgs.msg import String
from wam_ros.msg import PolicyState, SimState
from wam_ros.srv import StartEpisode, StopEpisode

from wam_ros.nodes.convert import to_seconds
from wam_ros.nodes.qos import LATCHED
from wam_ros.perception.assemble import vector
from wam_ros.perception.images import decode, fit
from wam_ros.perception.sync import pick
from wam_ros.recording import metadata
from wam_ros.recording.playback import Playback
from wam_ros.recording.reader import BagReader
from wam_ros.recording.repair import needs_repair
from wam_ros.recording.rows import pick_all
from wam_ros.recording.series import read_recording

SUCCESS, FAILURE, DISCARD = 0, 1, 2


def recorder(node_process, out: Path, *more: str):
    return node_process(
        "wam_ros.nodes.recorder_node", "-r", "__ns:=/wam",
        "-p", "robot:=yam", "-p", f"out:={out}", *more,
    )  # fmt: skip


def start(robot: Robot, text: str = "") -> StartEpisode.Response:
    return robot.call(StartEpisode, "/wam/start_episode", StartEpisode.Request(instruction=text))


def stop(robot: Robot, verdict: int, note: str = "") -> StopEpisode.Response:
    request = StopEpisode.Request(verdict=verdict, note=note)
    return robot.call(StopEpisode, "/wam/stop_episode", request)


def test_episodes_by_service(node_process, tmp_path: Path) -> None:
    recorder(node_process, tmp_path)
    with Robot() as robot:
        begun = start(robot, "fold the towel")
        assert begun.success and Path(begun.path).parent == tmp_path
        assert "stop it first" in start(robot).message
        robot.run(1.5)
        ended = stop(robot, SUCCESS, "neat")
        assert ended.success and ended.path == begun.path
        # A second thought about the last episode, then another one that is thrown away.
        assert stop(robot, FAILURE).success
        assert metadata.read(Path(begun.path))["custom_data"]["wam_verdict"] == "failure"
        second = start(robot, "fold it again")
        robot.run(0.5)
        gone = stop(robot, DISCARD)
        assert Path(gone.path) == tmp_path / "discarded" / Path(second.path).name
        assert not Path(second.path).exists() and Path(gone.path).is_dir()
        # The running one is gone; the last is the one before it, and it can be discarded once.
        assert Path(stop(robot, DISCARD).path).name == Path(begun.path).name
        nothing = stop(robot, DISCARD)
        assert not nothing.success and "no episode was recorded" in nothing.message
        assert not stop(robot, 9).success
    bag = BagReader(tmp_path / "discarded" / Path(begun.path).name)
    topics = {m.topic for m in bag.messages()}
    assert {s.topic for s in YAM.inputs} <= topics
    episode = bag.episode()
    assert episode is not None and not bag.truncated
    assert episode.instruction == "fold the towel" and episode.verdict == "discard"
    assert episode.contract().robot == "yam" and episode.contract_text == Path(YAM.path).read_text()
    assert episode.versions["mcap"] != "not installed" and episode.started


def test_other_tools_open_the_bag(node_process, tmp_path: Path) -> None:
    """rosbags is an independent reader of rosbag2 folders; mcap's own needs index and schemas."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    rosbags = pytest.importorskip("rosbags.highlevel", reason="needs rosbags")
    recorder(node_process, tmp_path, "-p", "compression:=zstd")
    with Robot() as robot:
        begun = start(robot, "fold the towel")
        robot.run(1.2)
        assert stop(robot, SUCCESS).success
    folder = Path(begun.path)
    with rosbags.AnyReader([folder]) as reader:
        counts = {c.topic: c.msgcount for c in reader.connections}
        info = metadata.read(folder)
        assert sum(counts.values()) == info["message_count"] > 100
        assert reader.duration == pytest.approx(info["duration"]["nanoseconds"], abs=1e6)
        camera = [c for c in reader.connections if c.topic == "/camera/top"]
        for connection, _, raw in reader.messages(connections=camera):
            message = reader.deserialize(raw, connection.msgtype)
            assert (message.width, message.height, message.encoding) == (64, 48, "rgb8")
    with next(folder.glob("*.mcap")).open("rb") as f:
        mcap = make_reader(f, decoder_factories=[DecoderFactory()])
        assert mcap.get_header().profile == "ros2"
        summary = mcap.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == info["message_count"]
        assert {c.compression for c in summary.chunk_indexes} == {"zstd"}
        for channel in summary.channels.values():
            assert "offered_qos_profiles" in channel.metadata
        seen = [m.decoded_message for m in mcap.iter_decoded_messages("/joint_states")]
        assert list(seen[0].name) == list(YAM.sources[0].joints)


def test_a_killed_recorder_loses_a_second_at_most_and_is_mended(
    node_process, tmp_path: Path
) -> None:
    process = recorder(node_process, tmp_path)
    with Robot() as robot:
        begun = start(robot, "fold the towel")
        folder = Path(begun.path)
        robot.run(4.0)
        killed = robot.node.get_clock().now().nanoseconds
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # As it is, it opens up to the last second.
        bag = BagReader(folder)
        times = [m.log_ns for m in bag.messages()]
        assert bag.truncated and times
        assert (killed - max(times)) * 1e-9 < 2.5
        assert needs_repair(folder)
        # The next recorder mends it without being asked, and records on.
        again = recorder(node_process, tmp_path)
        assert start(robot, "next").success
        assert robot.until(lambda: not needs_repair(folder))
        robot.run(0.5)
        assert stop(robot, SUCCESS).success
        assert robot.until(lambda: "repaired" in again.log.read_text())
    whole = BagReader(folder)
    assert [m.log_ns for m in whole.messages()] == times
    episode = whole.episode()
    assert not whole.truncated and episode is not None
    assert episode.verdict == "interrupted" and episode.instruction == "fold the towel"
    assert metadata.read(folder)["message_count"] == len(times)


def test_an_episode_for_every_instruction(node_process, tmp_path: Path) -> None:
    recorder(node_process, tmp_path, "-p", "auto:=true")
    with Robot() as robot:
        say = robot.node.create_publisher(String, "/wam/instruction", 10)
        assert robot.until(lambda: say.get_subscription_count() > 1)
        robot.run(0.5)
        for text in ("fold the towel", "open the drawer", ""):
            say.publish(String(data=text))
            robot.run(1.0)
        bags = sorted(tmp_path.glob("*/metadata.yaml"))
        texts = [metadata.read(b.parent)["custom_data"]["wam_instruction"] for b in bags]
        assert texts == ["fold the towel", "open the drawer"]
        assert robot.until(lambda: not any(needs_repair(b.parent) for b in bags))


def test_a_success_counts_that_was_said_a_moment_before_the_end(
    node_process, tmp_path: Path
) -> None:
    """A recorder that is held up finds both at once; the end came first, of two topics."""
    process = recorder(node_process, tmp_path, "-p", "auto:=true", "-p", "sim:=true")
    with Robot() as robot:
        say = robot.node.create_publisher(String, "/wam/instruction", 10)
        judge = robot.node.create_publisher(SimState, "/wam/sim/state", 10)
        assert robot.until(lambda: say.get_subscription_count() > 1)
        assert robot.until(lambda: judge.get_subscription_count() > 1)
        say.publish(String(data="fold the towel"))
        robot.run(1.0)
        os.kill(process.pid, signal.SIGSTOP)
        for success in (False, True):
            judge.publish(SimState(task="fold the towel", success=success))
        say.publish(String(data=""))
        judge.publish(SimState())
        robot.run(0.2)
        os.kill(process.pid, signal.SIGCONT)
        (bag,) = tmp_path.glob("*/metadata.yaml")
        assert robot.until(lambda: not needs_repair(bag.parent))
    assert metadata.read(bag.parent)["custom_data"]["wam_verdict"] == "success"


def test_a_policy_that_is_late_does_not_cut_the_episode(node_process, tmp_path: Path) -> None:
    """Its states from before it heard of the instruction are no change of mind; a later one is."""
    recorder(node_process, tmp_path, "-p", "auto:=true")
    with Robot() as robot:
        say = robot.node.create_publisher(String, "/wam/instruction", 10)
        policy = robot.node.create_publisher(PolicyState, "/wam/policy_state", LATCHED)
        assert robot.until(lambda: say.get_subscription_count() > 1)
        policy.publish(PolicyState(instruction=""))
        robot.run(0.5)
        say.publish(String(data="fold the towel"))
        for echo in ("", "", "fold the towel", "fold the towel"):
            robot.run(0.3)
            policy.publish(PolicyState(instruction=echo))
        robot.run(0.5)
        (bag,) = tmp_path.glob("*/metadata.yaml")
        assert needs_repair(bag.parent), "it goes on"

        def given_up() -> bool:
            policy.publish(PolicyState(instruction=""))  # as a policy does twice a second
            robot.run(0.3)
            return not needs_repair(bag.parent)

        assert robot.until(given_up)
    assert metadata.read(bag.parent)["duration"]["nanoseconds"] > 1.0e9


def test_a_full_disk_is_refused(node_process, tmp_path: Path) -> None:
    recorder(node_process, tmp_path, "-p", "min_free_gb:=1000000.0")
    with Robot() as robot:
        answer = start(robot, "fold the towel")
        assert not answer.success and "make room" in answer.message
    assert not list(tmp_path.glob("*/*.mcap"))


def test_a_converted_bag_equals_what_perception_published(node_process, tmp_path: Path) -> None:
    """Every observation that went out live comes out of the bag again, bit for bit.

    Topics are best effort, so perception may have missed a message that the recorder has: then the
    sample it used instead, which it names, must be in the bag as it was, and what lies between must
    be in no observation.
    """
    node_process("wam_ros.nodes.perception_node", "-r", "__ns:=/wam", "-p", "robot:=yam")
    recorder(node_process, tmp_path)
    with Robot() as robot:
        assert robot.until(lambda: len(robot.heard) > 3)
        begun = start(robot, "fold the towel")
        robot.run(1.0)
        first = len(robot.heard)
        assert robot.until(lambda: len(robot.heard) >= first + 80)
        live = robot.heard[first : len(robot.heard)]
        robot.run(0.5)
        assert stop(robot, SUCCESS).success
    folder = Path(begun.path)
    bag = BagReader(folder)
    recording = read_recording(bag, YAM)
    named = {**recording.cameras, **recording.sources}
    pictures = {c.name: [] for c in YAM.cameras}
    names = {c.topic: c.name for c in YAM.cameras}
    for raw in bag.messages():
        if raw.topic in names:
            pictures[names[raw.topic]].append(decode(bag.decoder(raw.topic)(raw.data)))
    every = np.array([[to_seconds(x) for x in seen.source_stamps] for seen in robot.heard])
    used = dict(zip(live[0].source_names, every.T, strict=True))
    alike = 0
    for seen in live:
        # A stamp goes through the message rounded to what a double holds, a quarter microsecond.
        t0 = to_seconds(seen.header.stamp) + 5e-7
        picked = pick_all(named, t0)
        stamps = dict(zip(seen.source_names, map(to_seconds, seen.source_stamps), strict=True))
        missed = {n for n, p in picked.items() if abs(p.stamp - stamps[n]) > 1e-6}
        for name in missed:
            series = named[name]
            passed_over = [x for x in series.stamps if stamps[name] + 1e-6 < x <= t0]
            assert passed_over, f"{name}: perception used a sample that is not in the bag"
            assert np.abs(np.subtract.outer(used[name], passed_over)).min() > 1e-6, name
            picked[name] = pick(series.spec, series.stamps, series.values, stamps[name] + 5e-7, t0)
            assert picked[name].stamp == pytest.approx(stamps[name], abs=1e-6)
        joints = {}
        for source in YAM.sources:
            joints.update(picked[source.name].value)
        assert vector(YAM, YAM.state_names, joints).tolist() == list(seen.state)
        for name, view in zip(seen.view_names, seen.views, strict=True):
            found = fit(pictures[name][picked[name].value], YAM.view_width, YAM.view_height)
            expected = np.frombuffer(view.data, np.uint8).reshape(view.height, view.width, 3)
            assert np.array_equal(found, expected)
        if not missed:
            assert [int(p.status) for p in picked.values()] == list(seen.source_status)
            alike += 1
    print(f"{alike} of {len(live)} observations from the same messages")
    assert alike > 20
    # The rows of the data set are made by the same choice, at the ticks of the action clock.
    playback = Playback(folder)
    for k, observation in enumerate(playback.observations()):
        picked = pick_all(named, float(playback.rows.t[k]))
        for name, view in observation.views.items():
            shown = pictures[name][picked[name].value]
            assert np.array_equal(view, fit(shown, YAM.view_width, YAM.view_height))
    assert k == len(playback.rows.t) - 1
