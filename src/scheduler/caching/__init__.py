"""The step cache: results of jobs, found again by what decided them, across trials and runs.

``sources`` says what a payload is made of, ``keys`` makes one digest of all that decides a result, ``entries`` is
the directory, and ``runner`` stands in front of a runner and answers for it when the result is there already.
"""
