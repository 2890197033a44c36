"""What runs: lanes, their masks, their memory, arithmetic between them, and the order of warps."""
