"""A session with the existing client library: reads orders as JSON, one a line, answers each with a line.

``{"do": "open", "service": ...}``, ``{"do": "submit", "function": ..., "arguments": {...}, "options": {...}}``,
``{"do": "wait", "work": n}``, ``{"do": "kill", "task": n}``, ``{"do": "status", "work": n}``,
``{"do": "messages", "work": n}``.
"""

import json
import os
import time
import uuid
from pathlib import Path

ORDERS, ANSWERS = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the libraries print

import shipped  # noqa: E402
from idds.client.clientmanager import ClientManager  # noqa: E402
from idds.iworkflow.work import work  # noqa: E402
from idds.iworkflow.workflow import workflow  # noqa: E402
from pandaclient import Client  # noqa: E402

PATIENCE_S = 150.0


class Session:
    """One workflow and its works."""

    def __init__(self):
        self.flow, self.works = None, []

    def open(self, service):
        make = workflow(
            func=shipped.add,
            service=service,
            local=True,
            return_workflow=True,
            source_dir=str(Path(__file__).parent),
            init_env="export GREETING=hello; ",
            queue="TEST",
            name=f"grid-test-{uuid.uuid4().hex[:8]}",
        )
        self.flow = make()
        self.flow.username = "alice"
        self.flow.prepare()
        return self.flow.submit()

    def submit(self, function, arguments, options):
        # A key per work: without one, results of functions without arguments cannot be told apart.
        name = f"{function}-{len(self.works)}"
        make = work(
            func=getattr(shipped, function),
            workflow=self.flow,
            return_work=True,
            map_results=True,
            name=name,
            job_key=name,
            **options,
        )
        made = make(**arguments)
        made.max_attempt = 1
        self.works.append(made)
        made.submit()
        made.init_async_result()
        return made.transform_id

    def wait(self, work):
        awaited, deadline = self.works[work], time.monotonic() + PATIENCE_S
        while not awaited.is_terminated():
            assert time.monotonic() < deadline, "no result and no final status in time"
            time.sleep(0.2)
        return awaited.get_results().get_result(name=None, key=awaited.job_key)

    def status(self, work):
        return self.works[work].get_status().name

    def messages(self, work):
        asked = self.works[work]
        manager = ClientManager(host=os.environ["IDDS_HOST"])
        found = manager.get_messages(
            request_id=asked.request_id, transform_id=asked.transform_id, internal_id=asked.internal_id
        )
        return json.loads(json.dumps(found, default=str))

    def kill(self, task):
        return Client.killTask(task)


def main():
    session = Session()
    for line in ORDERS:
        order = json.loads(line)
        answer = getattr(session, order.pop("do"))(**order)
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()
    os._exit(0)  # the library's threads do not end


if __name__ == "__main__":
    main()
