from src.plumbing.keys import Key, integer, number

KEYS: dict[str, Key] = {
    "width": integer(4, 256),
    "confidence_cost": number("in [0, 1]", lambda x: 0 <= x <= 1),
    "turn": number(">= 0", lambda x: x >= 0),
    "colours": integer(2, 3),
}
