"""Commands that run kernels on lockstep and watch them."""
