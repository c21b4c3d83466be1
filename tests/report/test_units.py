"""Numbers in words."""

from tvm_cdmpp.report import counted, ranges


def test_only_one_is_singular() -> None:
    assert [counted(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]


def test_ranges_have_one_ellipsis() -> None:
    assert ranges([1, 2, 3, 4, 7, 13, 14]) == "1-4, 7, 13-14"
    assert ranges(range(1, 40, 2), most=8) == "1, 3, 5, 7, 9, 11, 13, 15, ..."
    assert ranges(range(1, 10, 2), most=5) == "1, 3, 5, 7, 9"
