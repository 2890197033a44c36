"""What a kernel can say: functions, intrinsics, synchronization, atomics, access to arrays, control flow."""
