def place_of(error):
    return None
