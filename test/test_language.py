"""Every sentence means its task, and no sentence is both learned from and judged by."""

from __future__ import annotations

from itertools import pairwise

import pytest

from wam_ros.contract import load_contract
from wam_ros.sim.language import NEW_VERBS, SPLITS, phrases, say, sentences
from wam_ros.sim.tasks import (
    BowlTask,
    InstructionError,
    PlayTask,
    TouchTask,
    bowl_tasks,
    chain,
    parse_instruction,
    touch_tasks,
)

ROBOTS = ("agibot_g1", "franka_droid", "yam")


def every_task(robot: str) -> tuple:
    contract = load_contract(robot)
    return contract, (*touch_tasks(contract), *bowl_tasks(contract), PlayTask())


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_sentence_means_its_task(robot: str, split) -> None:
    contract, tasks = every_task(robot)
    for task in tasks:
        for text in sentences(contract, split, (task,)):
            assert "{" not in text and "SIDE" not in text and "  " not in text
            assert parse_instruction(text, contract) == task, text


@pytest.mark.parametrize("robot", ROBOTS)
def test_splits_share_no_sentence(robot: str) -> None:
    contract, tasks = every_task(robot)
    train, held_out = (set(sentences(contract, s, tasks)) for s in SPLITS)
    assert not train & held_out
    assert len(held_out) > len(tasks)


def test_held_out_sentences_use_trained_words_but_for_a_few_verbs() -> None:
    contract, tasks = every_task("agibot_g1")
    known = {w for t in sentences(contract, "train", tasks) for w in t.replace(",", "").split()}
    strange = [
        text
        for text in sentences(contract, "held_out", tasks)
        if not set(text.replace(",", "").split()) <= known
    ]
    assert strange and all(text.startswith(NEW_VERBS) for text in strange)


@pytest.mark.parametrize("robot", ROBOTS)
def test_sentences_of_different_tasks_differ(robot: str) -> None:
    contract, tasks = every_task(robot)
    for split in SPLITS:
        texts = [t for task in tasks for t in set(sentences(contract, split, (task,)))]
        assert len(texts) == len(set(texts))


def test_one_arm_is_never_asked_for_a_hand() -> None:
    contract, tasks = every_task("franka_droid")
    for text in sentences(contract, "train", tasks):
        assert "left" not in text and "right" not in text
    assert "touch the red block" in set(sentences(contract, "train", tasks))


def test_seed_fixes_the_sentence_and_all_occur() -> None:
    contract = load_contract("yam")
    task = TouchTask("green_block", "right_arm")
    drawn = [say(task, contract, "train", seed) for seed in range(300)]
    assert drawn == [say(task, contract, "train", seed) for seed in range(300)]
    assert len(set(drawn)) == len(phrases(task, contract, "train"))


def test_bowl_and_hand_are_told_apart() -> None:
    contract = load_contract("agibot_g1")
    put = parse_instruction("put the red block in the bowl with the right hand", contract)
    move = parse_instruction("move the right hand to the red block", contract)
    assert put == BowlTask("red_block", "right_arm")
    assert move == TouchTask("red_block", "right_arm")


@pytest.mark.parametrize(
    "text", ["put the bowl on the red block", "touch the red block and put it in the bowl",
             "never put the red block in the bowl", "play with the red block", "move the bowl"],
)  # fmt: skip
def test_what_no_task_covers_is_refused(text: str) -> None:
    with pytest.raises(InstructionError, match="cannot understand"):
        parse_instruction(text, load_contract("agibot_g1"))


def test_unknown_split_is_named() -> None:
    contract = load_contract("yam")
    with pytest.raises(ValueError, match="unknown split 'test'"):
        say(PlayTask(), contract, "test", 0)  # type: ignore[arg-type]


def test_chains_repeat_and_never_ask_for_the_same_block_twice_in_a_row() -> None:
    contract = load_contract("agibot_g1")
    chains = [chain(contract, seed) for seed in range(50)]
    assert chains == [chain(contract, seed) for seed in range(50)]
    assert len(set(chains)) > 40
    for tasks in chains:
        assert len(tasks) == 5
        assert all(a.object != b.object for a, b in pairwise(tasks))
    assert len(chain(contract, 0, 3, [PlayTask()])) == 3
