"""Pictures of a pool of KV blocks and its sequences."""

from .block_tables import BlockTables
from .pool_history import PoolHistory

__all__ = ["BlockTables", "PoolHistory"]
