"""Language models of the Llama type: a forward pass in NumPy, weights, and tokenizers."""

from .llama import Llama as Llama
from .llama import LlamaConfig as LlamaConfig
from .llama import random_llama as random_llama
