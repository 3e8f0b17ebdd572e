"""Numbers and names in lines for people."""


def counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`: a number with its noun, whose plural ends in s (of class: classes)."""
    return f"{count} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def either(count: int, singular: str, plural: str) -> str:
    """The word that agrees with a number: is and are, has and have."""
    return singular if count == 1 else plural
