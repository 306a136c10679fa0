"""Time servers, over TCP and UDP: the time for machines (RFC 868) and for people (RFC 867).

    $ python3 -m demos.time
    time on 127.0.0.1 port 7037, TCP and UDP; try: rdate -p -o 7037 127.0.0.1
    daytime on 127.0.0.1 port 7013, TCP and UDP; try: nc 127.0.0.1 7013

Their source is `corolib/demo/daytime.py`: each corolib that is installed has it.
"""

from corolib.demo.daytime import ARGUMENTS, main
from corolib.demo.daytime import FROM_1900_TO_1970 as FROM_1900_TO_1970
from corolib.demo.daytime import daytime_of as daytime_of
from corolib.demo.daytime import time_of as time_of
from demos.start import start

if __name__ == "__main__":
    start(main, __doc__, port=7037, arguments=ARGUMENTS)
