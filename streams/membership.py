"""What aiokafka's consumers do not do by themselves as members of a group."""

from typing import Any

from aiokafka.errors import CommitFailedError


def commit_as_member_only(consumer: Any) -> None:
    """Have a consumer that has started refuse to commit (CommitFailedError) while it is no member of its group.

    aiokafka would commit as somebody outside the group, and while the group has no members brokers take that: one that
    was paused while another took over, went on and ended would set the group back behind what that one has said.
    """
    coordinator = consumer._coordinator
    commit = coordinator._do_commit_offsets

    async def of_member(assignment: Any, offsets: Any) -> None:
        if coordinator.generation < 0:
            raise CommitFailedError("not a member of the group at this moment")
        await commit(assignment, offsets)

    coordinator._do_commit_offsets = of_member


def leave_for_good(consumer: Any) -> None:
    """Have a consumer say that it leaves when it stops, so that its partitions move at once.

    aiokafka never says so for a static member, whose partitions would stand still until its session ends.
    """
    if consumer._coordinator is not None:
        consumer._coordinator._group_instance_id = None
