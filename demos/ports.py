"""How every demo opens its ports, and says that a client has come: as those of corolib's own do.

    with open_ports("localhost", 7007) as ports: ...

Its source is `corolib/demo/ports.py`.
"""

from corolib.demo.ports import Port as Port
from corolib.demo.ports import announce as announce
from corolib.demo.ports import open_listeners as open_listeners
from corolib.demo.ports import open_ports as open_ports
