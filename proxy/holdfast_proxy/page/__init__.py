"""The cluster page: what an admin sees in a browser at ``/cluster``.

HTML, CSS and JavaScript modules are files of this package (``static/``), served by the proxy
itself: no build step, no framework, no request to anybody else. The Python here signs people in
and serves files. It must not know etcd, kernels or how a snapshot is made: it is given two
handlers that answer one.
"""

from .routes import PageRoutes
from .stream import page_events

__all__ = ["PageRoutes", "page_events"]
