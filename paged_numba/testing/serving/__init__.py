"""Properties of servers: of the toy one (`toy`), and of the engine (`workloads`, `engine`)."""

from .toy import Workload as Workload
from .toy import answers_do_not_depend_on_the_pool as answers_do_not_depend_on_the_pool
from .toy import serve as serve
from .toy import workloads as workloads
