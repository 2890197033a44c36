"""The SIMT machine: lanes, their masks, memory and arithmetic, and the order in which warps run."""
