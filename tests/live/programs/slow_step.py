"""The job of the long program, in a module that imports nothing heavy."""

import time


def objective(x):
    time.sleep(6.0)
    return {"objective": (x - 0.3) ** 2}
