"""``jupyter_kernel_test``, the kernel authors' own suite, against ipykernel behind Holdfast."""

from __future__ import annotations

from typing import Any, ClassVar

import jupyter_kernel_test
import pytest

from conformance.websocket_kernel import RemoteKernel, WebsocketKernelClient
from support.cluster import Cluster

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="class")
def behind(cluster: Cluster) -> Cluster:
    """Where the kernel is, before ``setUpClass`` starts it."""
    TestKernelBehindHoldfast.place = (cluster.proxy_urls[1], cluster.token)
    return cluster


@pytest.mark.usefixtures("behind")
class TestKernelBehindHoldfast(jupyter_kernel_test.KernelTests):
    """What ipykernel's own repository checks of ipykernel, by way of a proxy and a keeper."""

    place: ClassVar[tuple[str, str]]
    km: ClassVar[Any] = None
    kernel_name = "python3"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples: ClassVar = [
        "1",
        "print('hello, world')",
        "def f(x):\n  return x*2\n\n\n",
    ]
    incomplete_code_samples: ClassVar = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples: ClassVar = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('no')"
    code_execute_result: ClassVar = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data: ClassVar = [
        {
            "code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))",
            "mime": "text/html",
        }
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "search")
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def setUpClass(cls) -> None:
        """Not a kernel of this process: the fixture has not run yet. See ``setUp``."""

    def setUp(self) -> None:
        if type(self).km is None:
            url, token = self.place
            type(self).km = RemoteKernel(url, token, self.kernel_name)
            type(self).kc = WebsocketKernelClient(url, token, self.km.kernel_id)
        super().setUp()
