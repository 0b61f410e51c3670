"""Pages over small indexes, served for as long as a test asks them."""

import asyncio
import http.client
import json
import time
from contextlib import contextmanager
from threading import Thread

import numpy as np
from digit_files import train_model
from drawn_codes import draw_codes
from PIL import Image

from search.index import main as index_command
from search.opening import create_index
from search.page_server import bind, make_server
from search.rows import make_rows
from search.store import Coding

COUNTS = {"cat": 101, "dog": 100, "eel": 20, "fox": 19}  # training images: at the groups' bounds
CODE_LENGTH = 24


class Client:
    """Asks a page, a connection each time."""

    def __init__(self, port):
        self.port = port

    def ask(self, method, target, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        found = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return found

    def get(self, target):
        """The answer to a question that is right."""
        status, _, body = self.ask("GET", target)
        assert status == 200, body
        return json.loads(body)

    def error(self, method, target, body=None, headers=None):
        """Status and line of a refusal."""
        status, found, content = self.ask(method, target, body, headers)
        assert found["content-type"] == "application/json"
        (line,) = json.loads(content).values()
        assert "\n" not in line
        return status, line


@contextmanager
def served(page, hosts=()):
    """A client of the page."""
    listener = bind("127.0.0.1", 0)
    server = make_server(page, list(hosts))
    thread = Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Client(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def made_index(folder, items=200, **coding):
    """An index without a model, of pictures of which each has a colour of its own."""
    rng, names = np.random.default_rng(3), list(COUNTS)
    labels = [names[number] for number in rng.integers(0, len(names), items)]
    paths = [f"{label}/{number}.png" for number, label in enumerate(labels)]
    root = folder / "images"
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 6), (number % 256, number // 256, 77)).save(root / path)
    stated = {"image_root": str(root), "class_names": tuple(COUNTS),
              "class_counts": tuple(COUNTS.values())} | coding  # fmt: skip
    index = create_index(folder / "index", Coding(CODE_LENGTH, **stated))
    split = ["query" if number % 4 == 0 else "database" for number in range(items)]
    rows = make_rows(items, path=paths, label=labels, split=split,
                     width=[9] * items, height=[6] * items)  # fmt: skip
    index.add(draw_codes(rng, items, CODE_LENGTH), rows)
    return index


def digits_index(folder):
    """An index of the digits with their pictures, and its model: a run of one epoch."""
    run = train_model(folder / "run")
    assert index_command(["build", str(run), "-o", str(folder / "index"), "--pictures"]) == 0
    return folder / "index"
