"""The guide as a site: chapters, tour and reference, built here and served by corolib.

    $ python3 -m demos.guide
    the guide is on 127.0.0.1 port 7090: http://127.0.0.1:7090/
    $ python3 -m demos.guide --build site

`--build` writes the site into a folder, and serves nothing. Its pages need no network and no
scripts; they can be opened as files. With scripts, the steps of the tour are recorded runs, too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from corolib import listen_tcp, run
from demos.guide.pages import Site
from demos.start import start
from demos.web.static import serve


def main(options: argparse.Namespace) -> None:
    if options.build is not None:
        count = Site().build(options.build)
        print(f"{count} pages in {options.build}")
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        listen_tcp(options.host, options.port) as listener,
    ):
        Site().build(Path(folder))
        host, port = listener.addresses[0][:2]
        address = f"[{host}]" if ":" in host else host
        print(f"the guide is on {host} port {port}: http://{address}:{port}/", flush=True)
        run(serve, os.fsencode(os.path.realpath(folder)), listener)


if __name__ == "__main__":
    what = {"type": Path, "metavar": "FOLDER", "help": "only build, into this folder"}
    start(main, __doc__, port=7090, arguments={"--build": what})
