"""An echo server (RFC 862), over TCP and UDP: what you send comes back.

    $ python3 -m demos.echo
    echo on 127.0.0.1 port 7007, TCP and UDP; try: nc 127.0.0.1 7007

Its source is `corolib/demo/echo.py`: each corolib that is installed has it.
"""

from corolib.demo.echo import accept_all as accept_all
from corolib.demo.echo import main as main
from demos.start import start

if __name__ == "__main__":
    start(main, __doc__, port=7007)
