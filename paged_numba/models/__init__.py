"""Language models of the Llama type: a forward pass in NumPy, checkpoints, and tokenizers."""

from .checkpoints import Checkpoint as Checkpoint
from .checkpoints import Known as Known
from .checkpoints import find as find
from .checkpoints import load as load
from .dense import DenseAttention as DenseAttention
from .llama import Llama as Llama
from .llama import LlamaConfig as LlamaConfig
from .llama import random_llama as random_llama
from .tokenizers import Tokenizer as Tokenizer
