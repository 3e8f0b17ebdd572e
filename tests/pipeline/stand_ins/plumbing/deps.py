def require_declared(pipeline):
    pass
