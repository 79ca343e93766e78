"""Serves /opt/model.gguf in the OpenAI wire format on /models/<name>/model.sock, and says when it is ready.

The model is a base model, so the chat template only joins the messages: whoever prompts it shows it examples.
"""

import os
import signal
import sys

import xllamacpp

SLOTS = 2
CONTEXT = 4096


def main(name: str) -> None:
    """Serve until told to stop."""
    path = f"/models/{name}/model.sock"
    params = xllamacpp.CommonParams()
    params.model.path = "/opt/model.gguf"
    params.model_alias = {name}
    params.hostnames = [path]
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT * SLOTS
    params.endpoint_slots = False
    params.use_jinja = True
    params.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = xllamacpp.Server(params)
    # The relay's group may connect; nobody else mounts the directory.
    os.chmod(path, 0o660)  # noqa: PTH101 - no more than needed is imported here
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


main(sys.argv[1])
