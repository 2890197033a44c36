"""Pictures of a pool of KV blocks and its sequences."""

from .block_tables import BlockTables
from .pool_history import PoolHistory
from .schedule import Schedule
from .token_path import TokenPath

__all__ = ["BlockTables", "PoolHistory", "Schedule", "TokenPath"]
