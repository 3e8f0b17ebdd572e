"""Numbers with their nouns."""

from src.base.words import counted, either


def test_one_is_in_the_singular() -> None:
    assert [counted(n, "row") for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [counted(2, noun) for noun in ("class", "epoch")] == ["2 classes", "2 epochs"]
    assert [either(n, "is", "are") for n in (0, 1, 2)] == ["are", "is", "are"]
