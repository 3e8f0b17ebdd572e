def running(name):
    return ""
