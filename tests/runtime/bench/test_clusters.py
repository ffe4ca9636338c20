from __future__ import annotations

from pathlib import Path

import pytest

from svitkit.errors import ConfigError
from svitkit.runtime.bench.clusters import Cluster, choose_cpus, parse_cpus, read_clusters
from tests.runtime.sysfs_trees import BOARDS, JETSON_NANO, PC, plant

ROCK = (Cluster(cpus=(4, 5, 6, 7), capacity=1024), Cluster(cpus=(0, 1, 2, 3), capacity=530))


def test_big_and_little_cores_are_told_apart_and_the_big_ones_come_first(tmp_path: Path) -> None:
    assert read_clusters(plant(tmp_path, BOARDS["rock-5b"])) == ROCK


@pytest.mark.parametrize("board", sorted(set(BOARDS) - {"rock-5b"}))
def test_boards_with_one_kind_of_cores_have_one_cluster(tmp_path: Path, board: str) -> None:
    (cluster,) = read_clusters(plant(tmp_path, BOARDS[board]))
    assert cluster.cpus == tuple(range(6 if board != "jetson-nano" and "jetson" in board else 4))


def test_kinds_without_a_capacity_are_told_apart_by_their_part_number(tmp_path: Path) -> None:
    denver = {f"sys/devices/system/cpu/cpu{core}/regs/identification/midr_el1": "0x4e0f0031" for core in (1, 2)}
    clusters = read_clusters(plant(tmp_path, {**JETSON_NANO, **denver}))
    assert [cluster.cpus for cluster in clusters] == [(0, 3), (1, 2)]


def test_cores_of_a_pc_are_one_cluster_and_an_unknown_machine_has_none(tmp_path: Path) -> None:
    assert read_clusters(tmp_path) == ()
    assert read_clusters(plant(tmp_path, PC)) == (Cluster(cpus=(0, 1), capacity=None),)


def test_a_core_that_is_switched_off_is_in_no_cluster(tmp_path: Path) -> None:
    tree = {**BOARDS["rock-5b"], "sys/devices/system/cpu/online": "0-3,6"}
    assert [cluster.cpus for cluster in read_clusters(plant(tmp_path, tree))] == [(6,), (0, 1, 2, 3)]


@pytest.mark.parametrize(
    ("wanted", "cpus"),
    [(None, (4, 5, 6, 7)), ("big", (4, 5, 6, 7)), ("little", (0, 1, 2, 3)), ("all", ()), ("5,0-1", (0, 1, 5))],
)
def test_cores_are_chosen_by_cluster_or_by_number(wanted: str | None, cpus: tuple[int, ...]) -> None:
    assert choose_cpus(wanted, ROCK) == cpus


def test_the_system_chooses_where_all_cores_are_alike_or_unknown() -> None:
    assert choose_cpus(None, ROCK[:1]) == choose_cpus(None, ()) == ()
    assert choose_cpus("3", ()) == (3,)


def test_clusters_and_cores_that_a_board_lacks_are_refused() -> None:
    with pytest.raises(ConfigError, match="all cores of this board are alike"):
        choose_cpus("little", ROCK[:1])
    with pytest.raises(ConfigError, match="there is no core 8"):
        choose_cpus("7-9", ROCK)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,", "-1", "0-9999", "1--2", "²"])
def test_what_is_no_list_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no list of cores"):
        parse_cpus(text, source="--cpus")
