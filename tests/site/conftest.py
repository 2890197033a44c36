"""The built site over HTTP, and readers of its pages."""

import functools
import http.server
import threading

import pytest
from reader import Reader
from site_folder import SITE


@pytest.fixture(scope="session")
def address():
    """Serve the site over HTTP: from files, the search may not fetch its index."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def readers(browser, address):
    """Return a function that gives the reader of a theme; one serves all tests."""
    made = {}

    def reader(theme, **options):
        key = (theme, *options.items())
        if key not in made:
            made[key] = Reader(browser, address, theme, **options)
        return made[key]

    yield reader
    for one in made.values():
        one.context.close()
